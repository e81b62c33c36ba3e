"""Whole lives on a scripted platform, under a clock that moves from one thing that is due to the next."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import stores
from brokersite import Site, asked, names, platform, start_of, uuid_of
from execbroker.config import RetentionSettings
from execbroker.engine.engine import Engine
from execbroker.model.phases import Phase
from execbroker.model.waist import Job
from execbroker.platforms.base import Context
from execbroker.platforms.fake import Fake

STORAGE = {"kind": "simple-storage-resource", "meta": {"name": "kept"}, "size": {"min": 10, "max": 10}, "lifetime": "PT1H"}


class Slow(Fake):
    """A platform whose `start` waits at a gate."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.started: list[UUID] = []

    async def start(self, job: Job) -> None:
        self.started.append(job.uuid)
        self.begun.set()
        await self.gate.wait()
        await super().start(job)


def run(work: Callable[[Site], Awaitable[None]], folder: Path, **settings: Any) -> None:
    async def opened() -> None:
        async with Site(folder, **settings) as site:
            await work(site)
            assert await site.faults() == []

    asyncio.run(opened())


def scripted(**settings: Any) -> dict[str, Any]:
    return {"platforms": [platform(**settings)]}


async def history(site: Site, uuid: str) -> list[tuple[str, int]]:
    """The phases that a session came to, and when."""
    query = "SELECT phase, min(time) FROM events WHERE session = ? GROUP BY phase ORDER BY min(seq)"
    return stores.execute(site.folder, query, (uuid,))


def free(site: Site) -> list[int]:
    """The cores that are free on the first node, from now on."""
    (profile, *_) = site.books.timeline.site("site").profiles
    steps = zip(profile.times.tolist(), profile.free[0].tolist(), strict=True)
    return [cores for time, cores in steps if time >= site.clock.seconds]


def test_a_whole_life_on_schedule(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        begin = site.clock.seconds
        start = site.clock.at(600)
        uuid = await site.take(**asked(duration="PT10M", start=f"{start}/PT0S"))
        await site.advance(2000)
        assert await history(site, uuid) == [
            ("ACCEPTED", begin),
            ("WAITING", begin),
            ("PREPARING", begin + 570),
            ("AVAILABLE", begin + 570),
            ("RUNNING", begin + 600),
            ("RELEASING", begin + 1200),
            ("COMPLETED", begin + 1200),
        ]
        done = await site.show(uuid)
        assert names(done) == ["time-limit"]
        assert {part["phase"] for part in (done["executable"], done["compute"])} == {"COMPLETED"}
        assert free(site) == []
        assert site.books.holdings._held == {}
        assert site.engine._steps._jobs == {}

    run(work, tmp_path, **scripted(preparing="PT30S"))


def test_an_early_end_frees_the_rest(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(4, 8, duration="PT2H"))
        await site.advance(100)
        assert await site.phase(uuid) == "COMPLETED"
        assert names(await site.show(uuid)) == ["ended"]
        (offer, *_) = await site.offers(**asked(4, 8))
        assert start_of(offer) == site.clock.seconds

    run(work, tmp_path, **scripted(lasts="PT1M"))


def test_an_exit_code_is_a_failure_that_says_so(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked())
        await site.advance(100)
        done = await site.show(uuid)
        assert done["phase"] == "FAILED"
        assert done["meta"]["messages"][-1]["message"] == "It ended with exit code 3"

    run(work, tmp_path, **scripted(lasts="PT1M", exit_code=3))


@pytest.mark.parametrize("verb", ["prepare", "start"])
def test_a_verb_that_fails_fails_the_session_and_frees_it(tmp_path: Path, verb: str) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(), storage=[STORAGE])
        await site.advance(5)
        done = await site.show(uuid)
        assert done["phase"] == "FAILED"
        assert done["meta"]["messages"][-1]["message"] == f"{verb} failed, as scripted"
        assert site.books.holdings._held == {}
        assert await site.ledger.bookings() == []

    run(work, tmp_path, **scripted(script={verb: {"does": "fail"}}))


@pytest.mark.parametrize("verb", ["prepare", "start", "poll", "release"])
def test_a_platform_that_is_away_for_a_while(tmp_path: Path, verb: str) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT10M"))
        await site.advance(900)
        done = await site.show(uuid)
        assert done["phase"] == "COMPLETED"
        assert "unreachable" in names(done)

    run(work, tmp_path, **scripted(script={verb: {"does": "unreachable", "times": 3}}))


@pytest.mark.parametrize("verb", ["prepare", "start", "release"])
def test_a_verb_that_takes_its_time(tmp_path: Path, verb: str) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT10M"))
        await site.advance(700)
        assert await site.phase(uuid) == "COMPLETED"

    run(work, tmp_path, **scripted(script={verb: {"does": "delay", "times": 3}}))


def test_a_session_that_its_platform_forgot(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(4, 8))
        await site.advance(10)
        done = await site.show(uuid)
        assert (done["phase"], names(done)) == ("FAILED", ["lost"])
        assert start_of((await site.offers(**asked(4, 8)))[0]) == site.clock.seconds

    run(work, tmp_path, **scripted(script={"poll": {"does": "delay"}}))


def test_a_platform_that_is_away_for_ever_is_too_late(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT10M"))
        await site.advance(700)
        done = await site.show(uuid)
        assert (done["phase"], names(done)) == ("FAILED", ["unreachable", "too-late"])

    run(work, tmp_path, **scripted(script={"prepare": {"does": "unreachable"}}))


def test_a_release_that_always_fails_is_a_failed_session(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT1M"))
        await site.advance(1000)
        done = await site.show(uuid)
        assert (done["phase"], names(done)) == ("FAILED", ["time-limit", "not-released"])
        assert site.books.holdings._held == {}

    run(work, tmp_path, **scripted(script={"release": {"does": "fail"}}))


@pytest.mark.parametrize("phase", ["ACCEPTED", "WAITING", "PREPARING", "AVAILABLE", "RUNNING"])
def test_cancel_in_every_phase(tmp_path: Path, phase: str) -> None:
    late = {"prepare": {"does": "delay", "times": 5}} if phase == "PREPARING" else {}
    away = {"start": {"does": "unreachable", "times": 5}} if phase == "AVAILABLE" else {}

    async def work(site: Site) -> None:
        start = f"{site.clock.at(100 if phase == 'WAITING' else 0)}/PT1M"
        uuid = await site.take(**asked(4, 8, start=start), storage=[STORAGE])
        if phase != "ACCEPTED":
            await site.advance(2)
        assert await site.phase(uuid) == phase
        answer = await site.update(uuid, "CANCELLED")
        assert answer.json()["phase"] == "RELEASING"
        assert (await site.update(uuid, "CANCELLED")).status_code == 409
        await site.settle()
        done = await site.show(uuid)
        assert (done["phase"], names(done)[-1]) == ("CANCELLED", "cancelled")
        assert (await site.ledger.session(UUID(uuid))).due == (site.clock.seconds + 3600 if phase == "RUNNING" else None)
        assert start_of((await site.offers(**asked(4, 8)))[0]) == site.clock.seconds

    run(work, tmp_path, **scripted(script={**late, **away}))


def test_a_cancelled_start_that_was_never_written_down_keeps_what_it_used(tmp_path: Path) -> None:
    """The platform started it, the broker died before it could say so, and it is cancelled first thing afterwards."""

    async def work(site: Site) -> None:
        uuid = await site.take(**asked(), storage=[STORAGE])
        row = await site.ledger.session(UUID(uuid))
        job = await site.engine._steps._job(row)
        await site.parts.platforms["site"].start(job)
        await site.update(uuid, "CANCELLED")
        await site.settle()
        row = await site.ledger.session(UUID(uuid))
        assert row.phase is Phase.CANCELLED
        assert row.state.started is not None
        assert (await site.client.get(f"/sessions/{uuid}/stdout")).text != ""
        assert row.slot.storages == ((10, site.clock.seconds + 3600),)

    run(work, tmp_path)


def test_a_session_that_ran_while_the_broker_was_down_is_not_too_late(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT10M", start=f"{site.clock.at(60)}/PT0S"))
        await site.advance(10)
        assert await site.phase(uuid) == "WAITING"
        row = await site.ledger.session(UUID(uuid))
        stores.execute(site.folder, "UPDATE sessions SET phase = 'AVAILABLE' WHERE uuid = ?", (uuid,))
        site.clock.advance(50)
        await site.parts.platforms["site"].start(await site.engine._steps._job(row))
        site.clock.advance(6000)
        await site.restart()
        await site.settle()
        done = await site.show(uuid)
        assert (done["phase"], names(done)) == ("COMPLETED", ["time-limit"])
        assert (await site.client.get(f"/sessions/{uuid}/stdout")).text != ""

    run(work, tmp_path)


def test_accepted_late_it_starts_late_and_ends_as_promised(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        (offer, *_) = await site.offers(**asked(duration="PT10M"))
        begin = site.clock.seconds
        await site.advance(120)
        uuid = uuid_of(await site.accept(offer))
        await site.advance(1000)
        assert ("RELEASING", begin + 600) in await history(site, uuid)
        assert names(await site.show(uuid)) == ["late", "time-limit"]

    run(work, tmp_path)


def test_an_offer_is_not_open_after_its_end(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        (offer, *_) = await site.offers(**asked(duration="PT1M"))
        assert offer["expires"] == site.clock.at(60)
        await site.advance(60)
        assert (await site.update(offer, "ACCEPTED")).status_code == 409
        await site.advance(300)
        assert site.books.holdings._held == {}

    run(work, tmp_path)


def test_a_platform_removed_from_the_configuration(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        running = await site.take(**asked(), storage=[STORAGE])
        await site.advance(5)
        waiting = await site.take(**asked(start=f"{site.clock.at(600)}/PT0S"))
        offered = uuid_of((await site.offers(**asked(start=f"{site.clock.at(600)}/PT0S")))[0])
        await site.settle()
        await site.restart(platforms=[platform("other")])
        await site.settle()
        assert await site.phase(waiting) == "WAITING"
        await site.advance(1300)
        lost = await site.show(running)
        assert (lost["phase"], names(lost)) == ("RUNNING", ["unreachable"])
        late = await site.show(waiting)
        assert (late["phase"], names(late)) == ("FAILED", ["unreachable", "too-late"])
        assert await site.phase(offered) == "EXPIRED"
        await site.restart(platforms=[platform()])
        await site.advance(60)
        assert await site.phase(running) == "COMPLETED"
        folder = site.store.folder(UUID(running))
        (folder / "storage" / "kept").mkdir(parents=True, exist_ok=True)
        await site.advance(3600)
        assert not (folder / "storage" / "kept").exists()

    run(work, tmp_path)


def test_fewer_nodes_after_a_restart_offer_less_and_keep_what_was_promised(tmp_path: Path) -> None:
    two = {"count": 2, "cores": 4, "memory": 8, "storage": 10}

    async def work(site: Site) -> None:
        one = await site.take(**asked(4, 8, start=f"{site.clock.at(60)}/PT0S"))
        other = await site.take(**asked(4, 8, start=f"{site.clock.at(60)}/PT0S"))
        assert {(await site.ledger.session(UUID(uuid))).slot.node for uuid in (one, other)} == {"site-1", "site-2"}
        await site.restart(**scripted(nodes=[{**two, "count": 1}]))
        answer = await site.ask(**asked(4, 8, start=f"{site.clock.at(60)}/PT0S"))
        assert answer["result"] == "NO"
        await site.advance(1000)
        assert {await site.phase(one), await site.phase(other)} == {"COMPLETED"}

    run(work, tmp_path, **scripted(nodes=[two]))


def test_storage_is_kept_for_its_lifetime_and_then_deleted(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT10M"), storage=[STORAGE])
        await site.advance(600)
        kept = site.store.folder(UUID(uuid)) / "storage" / "kept"
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "result").write_text("42")
        done = await site.show(uuid)
        assert done["storage"][0]["expires"] == site.clock.at(3600)
        listed = (await site.client.get(done["storage"][0]["location"])).json()["files"]
        assert [item["path"] for item in listed] == ["storage/kept/result"]
        assert (await site.client.get(listed[0]["url"])).text == "42"
        await site.advance(3599)
        assert kept.exists()
        await site.advance(1)
        assert not kept.exists()
        assert site.books.holdings._held == {}
        assert await site.ledger.bookings() == []

    run(work, tmp_path)


def test_storage_without_a_lifetime_is_deleted_at_once(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT10M"), storage=[{**STORAGE, "lifetime": "PT0S"}])
        await site.advance(300)
        kept = site.store.folder(UUID(uuid)) / "storage" / "kept"
        kept.mkdir(parents=True, exist_ok=True)
        await site.advance(300)
        assert await site.phase(uuid) == "COMPLETED"
        assert not kept.exists()

    run(work, tmp_path)


def test_what_was_staged_for_a_session_that_never_started_is_deleted(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(), storage=[STORAGE])
        await site.advance(2)
        assert await site.phase(uuid) == "PREPARING"
        kept = site.store.folder(UUID(uuid)) / "storage" / "kept"
        kept.mkdir(parents=True, exist_ok=True)
        await site.update(uuid, "CANCELLED")
        await site.settle()
        assert not kept.exists()

    run(work, tmp_path, **scripted(script={"prepare": {"does": "delay"}}))


def test_retention_leaves_neither_rows_nor_folders(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        for _ in range(5):
            await site.take(**asked(duration="PT1M"))
        await site.ask(**asked(100))
        await site.offers(**asked())
        await site.advance(700)
        assert len([*site.store._root.iterdir()]) == 5
        await site.advance(3 * 86400)
        assert [*site.store._root.iterdir()] == []
        for table in ("sessions", "offersets", "bookings"):
            assert stores.execute(site.folder, f"SELECT count(*) FROM {table}") == [(0,)]
        number, *rest = stores.execute(site.folder, "SELECT seq, session, message FROM events")
        assert (number[1:], rest) == (("", None), [])  # the highest, lest it come again

    run(work, tmp_path, retention={"sessions": "P1D", "offersets": "PT1H"})


def test_a_session_outlives_retention_while_its_storage_is_kept(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT1M"), storage=[{**STORAGE, "lifetime": "P3D"}])
        await site.advance(2 * 86400)
        assert await site.phase(uuid) == "COMPLETED"
        assert site.store.folder(UUID(uuid)).exists()
        await site.advance(3 * 86400)
        assert (await site.client.get(f"/sessions/{uuid}")).status_code == 404

    run(work, tmp_path, retention={"sessions": "P1D", "offersets": "PT1H"})


def test_a_clock_that_goes_back_stops_nothing(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT10M"))
        await site.advance(100)
        assert await site.phase(uuid) == "RUNNING"
        site.clock.step(-86400)
        await site.settle()
        await site.update(uuid, "CANCELLED")
        await site.settle()
        assert await site.phase(uuid) == "CANCELLED"
        other = await site.take(**asked(duration="PT10M"))
        await site.advance(5)
        assert await site.phase(other) == "RUNNING"

    run(work, tmp_path)


def test_a_running_session_is_looked_at_although_the_clock_went_back(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT10M"))
        await site.advance(10)
        site.clock.step(-3600)
        site.store.folder(UUID(uuid)).joinpath("run", "fake.json").unlink()
        await site.advance(2)
        assert await site.phase(uuid) == "FAILED"

    run(work, tmp_path)


def test_a_clock_that_jumps_ahead_ends_what_is_over(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        running = await site.take(**asked(duration="PT10M"))
        await site.advance(10)
        waiting = await site.take(**asked(duration="PT10M", start=f"{site.clock.at(300)}/PT0S"))
        await site.settle()
        site.clock.step(86400)
        await site.settle()
        assert (await site.phase(running), await site.phase(waiting)) == ("COMPLETED", "FAILED")

    run(work, tmp_path)


def test_output_that_cannot_be_written_keeps_no_session_from_its_end(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(4, 8, duration="PT10M"))
        await site.advance(5)
        output = site.store.folder(UUID(uuid)) / "stdout"
        output.unlink()
        output.symlink_to("nowhere/at/all")
        await site.advance(2000)
        done = await site.show(uuid)
        assert (done["phase"], names(done)) == ("COMPLETED", ["time-limit", "output-lost"])
        assert not (site.store.folder(UUID(uuid)) / "run" / "fake.json").exists()

    run(work, tmp_path)


def test_a_session_under_way_is_not_taken_twice_when_the_clock_jumps(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(duration="PT10M"))
        fake = site.parts.platforms["site"]
        slow = Slow(fake.settings, fake.context)
        engine = Engine(site.ledger, site.books, {"site": slow}, site.clock, site.store, RetentionSettings())
        await engine.turn()
        await slow.begun.wait()
        site.clock.step(400)
        assert not await engine.turn()
        slow.gate.set()
        await engine.settle()
        assert slow.started == [UUID(uuid)]
        assert await site.phase(uuid) == "RUNNING"

    run(work, tmp_path)


def test_what_is_not_released_in_time_holds_on_to_its_node(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(4, 8, "PT1M"))
        await site.advance(200)
        assert await site.phase(uuid) == "RELEASING"
        later = await site.offers(**asked(4, 8, "PT1M"))
        assert start_of(later[0]) > site.clock.seconds
        site.parts.platforms["site"].script.clear()
        await site.advance(130)
        assert await site.phase(uuid) == "COMPLETED"

    run(work, tmp_path, **scripted(script={"release": {"does": "delay"}}))
