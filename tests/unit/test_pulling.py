"""Flexible sessions: what frees what, who is pulled forward first, how far, and that nobody is ever worse off for it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from bookdesk import Desk, opened, wanted

import stores
from brokersite import NOTEBOOK, ManualClock, Site, asked, names, platform, uuid_of
from execbroker.books.pulling import BUDGET
from execbroker.ledger.rows import SessionRow, State
from execbroker.model.prices import Money, Prices, Tariff
from execbroker.model.times import Interval
from execbroker.model.waist import Node, Slot

MINUTE = 60
HOUR = 60 * MINUTE
Story = Callable[[Site, ManualClock], Awaitable[None]]


def told(folder: Path, story: Story, **settings: Any) -> None:
    """Run this with a broker, which must be in order in the end."""

    async def run() -> None:
        clock = ManualClock()
        async with Site(folder, clock, **settings) as site:
            await story(site, clock)
            assert await site.faults() == []

    asyncio.run(run())


def flexible(cores: int = 4, duration: str = "PT10M", start: str | None = None, **more: Any) -> dict[str, Any]:
    request = asked(cores, 1, duration, start, **more)
    request["schedule"]["requested"]["flexible"] = True
    return request


def window(session: dict[str, Any], clock: ManualClock) -> tuple[int, int]:
    """Between when and when a session is to start, in seconds from now."""
    interval = Interval.parse(session["schedule"]["available"]["start"])
    return int(interval.start.timestamp()) - clock.seconds, int(interval.end.timestamp()) - clock.seconds


async def latest(site: Site, session: Any) -> int:
    """When it starts at the latest, in seconds from now."""
    return window(await site.show(session), site.clock)[1]


def history(site: Site, session: str, phase: str) -> list[int]:
    """When a session came to this phase."""
    query = "SELECT time FROM events WHERE session = ? AND phase = ? AND message IS NULL ORDER BY seq"
    return [time for (time,) in stores.execute(site.folder, query, (session, phase))]


async def extend(site: Site, session: str, minutes: int) -> None:
    change = {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": minutes, "units": "minutes"}
    answer = await site.client.post(f"/sessions/{session}", json=change)
    assert answer.status_code == 200, answer.text


async def cancel(site: Site, session: str) -> None:
    assert (await site.update(session, "CANCELLED")).status_code == 200
    await site.settle()


def test_the_schedule_of_a_flexible_session_is_an_interval_that_shrinks(tmp_path: Path) -> None:
    async def story(site: Site, clock: ManualClock) -> None:
        blocker = await site.take(**asked(4, 1, "PT1H"))
        offer = (await site.offers(**flexible(start=f"{clock.at(600)}/PT12H")))[0]
        assert window(offer, clock) == (600, HOUR)
        accepted = await site.accept(offer)
        assert window(accepted, clock) == (600, HOUR)
        await cancel(site, blocker)
        session = await site.show(offer)
        assert window(session, clock) == (600, 600), "not before it was asked for"
        assert session["schedule"]["available"]["duration"] == "PT10M"
        assert names(session) == ["pulled-forward"]
        assert session["meta"]["messages"][0]["values"] == {"earlier": str(HOUR - 600)}
        await site.advance(600)
        assert await site.phase(offer) == "RUNNING"
        await site.advance(HOUR)
        assert await site.phase(offer) == "COMPLETED"
        assert history(site, uuid_of(offer), "RUNNING") == [clock.seconds - HOUR]

    told(tmp_path, story)


def test_who_is_not_flexible_stays_where_it_was_promised(tmp_path: Path) -> None:
    async def story(site: Site, clock: ManualClock) -> None:
        blocker = await site.take(**asked(4, 1, "PT1H"))
        fixed = await site.take(**asked(4))
        await cancel(site, blocker)
        assert window(await site.show(fixed), clock) == (HOUR, HOUR)

    told(tmp_path, story)


async def _early_end(site: Site, clock: ManualClock, blocker: dict[str, Any]) -> int:
    await site.accept(blocker)
    return 20 * MINUTE  # where the platform's sessions last so long


async def _cancel(site: Site, clock: ManualClock, blocker: dict[str, Any]) -> int:
    await site.accept(blocker)
    await cancel(site, uuid_of(blocker))
    return 0


async def _reject(site: Site, clock: ManualClock, blocker: dict[str, Any]) -> int:
    assert (await site.update(blocker, "REJECTED")).status_code == 200
    return 0


async def _expire(site: Site, clock: ManualClock, blocker: dict[str, Any]) -> int:
    return 5 * MINUTE


async def _shorten(site: Site, clock: ManualClock, blocker: dict[str, Any]) -> int:
    await site.accept(blocker)
    await extend(site, uuid_of(blocker), -50)
    return 10 * MINUTE


async def _grow(site: Site, clock: ManualClock, blocker: dict[str, Any]) -> int:
    await site.accept(blocker)
    nodes = [{"count": 2, "cores": 4, "memory": 8, "storage": 100}]
    await site.restart(platforms=[platform(lasts="PT20M", nodes=nodes)])
    await site.settle()
    return 0


@pytest.mark.parametrize("event", [_early_end, _cancel, _reject, _expire, _shorten, _grow])
def test_whatever_frees_a_place_pulls_who_waits_for_it(tmp_path: Path, event: Any) -> None:
    async def story(site: Site, clock: ManualClock) -> None:
        blocker = (await site.offers(**asked(4, 1, "PT1H")))[0]
        waiting = [uuid_of(await site.accept((await site.offers(**flexible(start=f"{clock.at(0)}/PT12H")))[0])) for _ in range(2)]
        assert [await latest(site, one) for one in waiting] == [HOUR, HOUR + 600]
        begin = clock.seconds
        first = begin + await event(site, clock, blocker)
        await site.advance(max(first - clock.seconds, 0))
        assert [clock.seconds + await latest(site, one) for one in waiting] == [first, first + 600]
        await site.advance(2 * HOUR)
        assert [await site.phase(one) for one in waiting] == ["COMPLETED", "COMPLETED"]
        assert [history(site, one, "RUNNING") for one in waiting] == [[first], [first + 600]]

    told(tmp_path, story, platforms=[platform(lasts="PT20M")], offers={"limit": 1})


def test_the_siblings_of_what_was_accepted_make_room(tmp_path: Path) -> None:
    async def story(site: Site, clock: ManualClock) -> None:
        first, second = await site.offers(**asked(4, 1, "PT1H"))
        waiting = await site.take(**flexible())
        assert await latest(site, waiting) == 2 * HOUR
        await site.accept(second)
        assert await latest(site, waiting) == 0
        assert (await site.update(first, "ACCEPTED")).status_code == 409

    told(tmp_path, story, offers={"limit": 2})


def test_higher_priorities_come_first_then_who_was_to_start_first_and_what_does_not_fit_is_passed_by(tmp_path: Path) -> None:
    interactive = {**NOTEBOOK, "mode": "interactive"}

    async def story(site: Site, clock: ManualClock) -> None:
        first, second = await site.take(**asked(2, 1, "PT1H")), await site.take(**asked(2, 1, "PT1H"))
        large = await site.take(**flexible(4))
        batch, later = await site.take(**flexible(2)), await site.take(**flexible(2, "PT50M"))
        urgent = await site.take(**flexible(2, "PT50M", executable=interactive))
        await cancel(site, first)
        assert await latest(site, large) == HOUR, "two cores are not enough for it"
        assert await latest(site, urgent) == 0
        assert await latest(site, batch) == 50 * MINUTE
        await cancel(site, second)
        assert await latest(site, batch) == 0, "it was to start before the other"
        assert await latest(site, later) > 0

    told(tmp_path, story, platforms=[platform(priorities={"interactive": 5, "batch": 0})])


RESOURCES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "several nodes": (asked(4, 1, "PT1H"), {"replicas": 2}, {"nodes": [{"count": 2, "cores": 4, "memory": 8}]}),
    "a licence": (
        asked(1, 1, "PT1H"),
        {"licences": [{"name": "idl", "count": 1}]},
        {"pools": {"licences": {"idl": 1}}},
    ),
    "an accelerator": (
        asked(1, 1, "PT1H"),
        {"accelerators": [{"kind": "a100", "count": {"min": 1, "max": 1}}]},
        {"nodes": [{"cores": 4, "memory": 8, "accelerators": [{"kind": "a100"}]}]},
    ),
    "storage of the node": (asked(1, 1, "PT1H"), {}, {}),
    "storage of the pool": (asked(1, 1, "PT1H"), {}, {"pools": {"storage": 100}}),
}


@pytest.mark.parametrize("what", RESOURCES)
def test_it_waits_for_whatever_it_needs(tmp_path: Path, what: str) -> None:
    block, needs, settings = RESOURCES[what]
    wait = flexible(1)
    if what == "several nodes":
        wait = flexible(3)
    else:
        block = {**block, "compute": {**block["compute"], **needs}}
    wait = {**wait, "compute": {**wait["compute"], **needs}}
    if what.startswith("storage"):
        storage = {"kind": "simple-storage-resource", "size": {"min": 60, "max": 60}, "lifetime": "PT5M"}
        block, wait = {**block, "storage": [storage]}, {**wait, "storage": [storage]}

    async def story(site: Site, clock: ManualClock) -> None:
        blocker, waiting = await site.take(**block), await site.take(**wait)
        promised = await latest(site, waiting)
        assert promised >= HOUR
        await cancel(site, blocker)
        assert await latest(site, waiting) == 0
        await site.advance(HOUR)
        assert await site.phase(waiting) == "COMPLETED"

    told(tmp_path, story, platforms=[platform(**settings)], offers={"limit": 1})


def test_storage_that_is_deleted_early_pulls_who_waits_for_it(tmp_path: Path) -> None:
    storage = [{"kind": "simple-storage-resource", "size": {"min": 60, "max": 60}, "lifetime": "PT30M"}]

    async def story(site: Site, clock: ManualClock) -> None:
        await site.take(**asked(1, 1, "PT3H", storage=storage))
        waiting = await site.take(**flexible(1, storage=storage))
        assert await latest(site, waiting) == 3 * HOUR + 30 * MINUTE
        await site.advance(20 * MINUTE)
        assert await latest(site, waiting) == 30 * MINUTE, "it ended after twenty minutes, and its storage is kept"
        await site.advance(30 * MINUTE)
        assert await site.phase(waiting) == "RUNNING"

    told(tmp_path, story, platforms=[platform(lasts="PT20M")], offers={"limit": 1})


def test_what_waited_before_a_restart_is_pulled_after_it(tmp_path: Path) -> None:
    async def story(site: Site, clock: ManualClock) -> None:
        blocker, waiting = await site.take(**asked(4, 1, "PT1H")), await site.take(**flexible())
        await site.restart()
        assert await latest(site, waiting) == HOUR
        await cancel(site, blocker)
        assert await latest(site, waiting) == 0

    told(tmp_path, story)


def test_what_came_free_while_no_broker_ran_is_used_though_a_platform_answers_late(tmp_path: Path) -> None:
    """Offers that expired meanwhile are let go with the first transaction, when nothing is known of that platform as yet."""

    async def story(site: Site, clock: ManualClock) -> None:
        waiting = []
        for name in ("one", "two"):
            await site.offers(**asked(4, 1, "PT1H", platforms=[name]))
            waiting.append(await site.take(**flexible(platforms=[name])))
        assert [await latest(site, one) for one in waiting] == [HOUR] * 2
        clock.advance(5 * MINUTE)
        late = platform("two", script={"capacity": {"does": "unreachable", "times": 1}})
        await site.restart(platforms=[platform("one"), late])
        await site.settle()
        assert [await latest(site, one) for one in waiting] == [0, 55 * MINUTE]
        await site.advance(MINUTE)
        assert await latest(site, waiting[1]) == 0

    told(tmp_path, story, platforms=[platform("one"), platform("two")], offers={"limit": 1})


def test_it_is_never_pulled_to_where_it_would_cost_more_than_it_was_quoted(tmp_path: Path) -> None:
    day = {"from": "08:00", "until": "17:00", "factor": 3}
    prices = {"money": {"core_hour": 1, "tariffs": [day]}}

    async def story(site: Site, clock: ManualClock) -> None:
        blocker = await site.take(**asked(4, 1, "PT11H"))
        waiting = await site.take(**flexible(4, "PT1H"))
        assert await latest(site, waiting) == 11 * HOUR
        await cancel(site, blocker)
        assert await latest(site, waiting) == 8 * HOUR, "at 17:00, when it costs as little as then"
        assert [cost["max"] for cost in (await site.show(waiting))["costs"]] == [4]

    told(tmp_path, story, platforms=[platform(prices=prices)], offers={"limit": 1})


@pytest.mark.parametrize("moment", range(12))
def test_a_step_of_the_engine_that_is_under_way_does_not_undo_the_pull(tmp_path: Path, moment: int) -> None:
    """A session that was accepted just now is taken up by the engine, which then writes down when to come again."""

    async def story(site: Site, clock: ManualClock) -> None:
        blocker = (await site.offers(**asked(4, 1, "PT1H")))[0]
        answer = await site.client.post("/direct", json={"executable": NOTEBOOK, **flexible(start=f"{clock.at(60)}/PT12H")})
        waiting = uuid_of(answer.json())
        engine = asyncio.create_task(site.engine.settle())
        for _ in range(moment):
            await asyncio.sleep(0)
        await site.books.reject(UUID(uuid_of(blocker)))
        await engine
        begin = clock.seconds
        assert await latest(site, waiting) == MINUTE
        row = await site.ledger.session(UUID(waiting))
        assert row
        assert row.slot
        assert (row.phase, row.due, row.lease) == ("WAITING", row.slot.prepare, None)
        await site.advance(3 * HOUR)
        assert history(site, waiting, "RUNNING") == [begin + MINUTE]
        assert await site.phase(waiting) == "COMPLETED"

    told(tmp_path, story, offers={"limit": 1})


@pytest.mark.parametrize("moment", range(0, 12, 3))
def test_a_session_that_begins_in_the_moment_something_comes_free_begins_once(tmp_path: Path, moment: int) -> None:
    async def story(site: Site, clock: ManualClock) -> None:
        first, second = await site.take(**asked(2, 1, "PT1H")), (await site.offers(**asked(2, 1, "PT2H")))[0]
        waiting = await site.take(**flexible(2))
        assert await latest(site, waiting) == HOUR
        clock.advance(HOUR)
        engine = asyncio.create_task(site.engine.settle())
        for _ in range(moment):
            await asyncio.sleep(0)
        await asyncio.gather(site.books.cancel(UUID(first)), site.books.expire(), return_exceptions=True)
        await engine
        await site.advance(HOUR)
        assert history(site, waiting, "RUNNING") == [clock.seconds - HOUR]
        assert await site.phase(second) == "EXPIRED"
        assert await site.phase(waiting) == "COMPLETED"

    told(tmp_path, story, offers={"limit": 1})


async def taken(desk: Desk, *several: Any) -> list[UUID]:
    """These, accepted, each at the first time there is."""
    return [desk.enter(await desk.books.direct(replace(one, limit=1)), "HELD")[0] for one in several]


async def slot_of(desk: Desk, uuid: UUID) -> Slot:
    row = await desk.ledger.session(uuid)
    assert row
    assert row.slot
    return row.slot


async def start_of(desk: Desk, uuid: UUID) -> int:
    """In seconds from now."""
    return (await slot_of(desk, uuid)).start - desk.clock.seconds


async def cancelled(desk: Desk, uuid: UUID) -> Callable[[], Awaitable[bool]]:
    """Cancel it, and give the step that then lets go of what it held."""
    await desk.books.cancel(uuid)
    row = await desk.ledger.session(uuid)
    assert isinstance(row, SessionRow)
    return lambda: desk.books.settle(replace(row, state=State()), desk.clock.seconds, ())


ONE = (Node("one", 4, 8),)


def test_more_than_can_be_tried_at_a_time_are_all_served_in_their_order() -> None:
    many = 2 * BUDGET + 7

    async def work(desk: Desk) -> None:
        await desk.learn(ONE)
        (blocker,) = await taken(desk, wanted(4, duration=1000))
        waiting = await taken(desk, *[wanted(4, duration=10, flexible=True)] * many)
        assert [await start_of(desk, one) for one in waiting] == [1000 + 10 * index for index in range(many)]
        settle = await cancelled(desk, blocker)
        assert await settle()
        await desk.books.close()
        assert [await start_of(desk, one) for one in waiting] == [10 * index for index in range(many)]

    opened(work)


def test_what_comes_free_while_others_are_still_tried_is_for_those_as_well_who_were_tried_before() -> None:
    many = 2 * BUDGET + 7

    async def work(desk: Desk) -> None:
        await desk.learn(ONE)
        small, large = await taken(desk, wanted(1, duration=1000, exactly=True), wanted(3, duration=1000, exactly=True))
        waiting = await taken(desk, *[wanted(4, duration=10, flexible=True)] * many)
        settles = [await cancelled(desk, small), await cancelled(desk, large)]
        first = asyncio.ensure_future(settles[0]())
        while not desk.books._pulling.unfinished:  # noqa: ASYNC110 -- the first transaction is under way
            await asyncio.sleep(0)
        assert await settles[1]()
        assert await first
        await desk.books.close()
        assert sorted([await start_of(desk, one) for one in waiting]) == [10 * index for index in range(many)]

    opened(work)


def test_the_rest_is_tried_after_a_commit_that_failed() -> None:
    many = BUDGET + 7

    async def work(desk: Desk) -> None:
        await desk.learn(ONE)
        (blocker,) = await taken(desk, wanted(4, duration=1000))
        waiting = await taken(desk, *[wanted(4, duration=10, flexible=True)] * many)
        settle = await cancelled(desk, blocker)
        with stores.refusing_offersets(desk.path):
            results = await asyncio.gather(settle(), desk.books.offer(wanted()), return_exceptions=True)
        assert all(isinstance(result, Exception) for result in results)
        assert [await start_of(desk, one) for one in waiting] == [1000 + 10 * index for index in range(many)]
        assert await settle()
        await desk.books.close()
        assert [await start_of(desk, one) for one in waiting] == [10 * index for index in range(many)]

    opened(work)


def test_what_was_not_committed_is_forgotten() -> None:
    """An extension, an acceptance and a cancellation that failed: pulled forward, each is as it was before."""

    async def work(desk: Desk) -> None:
        await desk.learn(ONE)
        (blocker,) = await taken(desk, wanted(4, duration=1000))
        longer, gone = await taken(desk, *[wanted(4, duration=10, flexible=True)] * 2)
        (offer,) = desk.enter(await desk.books.offer(wanted(4, duration=10, flexible=True, limit=1)))
        with stores.refusing_offersets(desk.path):
            work = desk.books.extend(longer, -5), desk.books.cancel(gone), desk.books.accept(offer)
            await asyncio.gather(*work, desk.books.offer(wanted()), return_exceptions=True)
        settle = await cancelled(desk, blocker)
        assert await settle()
        slots = [await slot_of(desk, uuid) for uuid in (longer, gone, offer)]
        assert [(slot.start - desk.clock.seconds, slot.end - slot.start) for slot in slots] == [(0, 10), (10, 10), (1020, 10)]

    opened(work)


def test_the_price_counts_the_data_that_is_staged() -> None:
    by_day = Tariff.model_validate({"from": "08:00", "until": "17:00", "core_hour": 2})
    prices = Prices(money=Money(core_hour=1, gb_staged=5, tariffs=(by_day,)))

    async def work(desk: Desk) -> None:
        await desk.learn(ONE)
        (blocker,) = await taken(desk, wanted(4, duration=11 * HOUR))
        (waiting,) = await taken(desk, wanted(4, 4, duration=HOUR, flexible=True, staged=10**9, prices=prices))
        assert await start_of(desk, waiting) == 11 * HOUR
        settle = await cancelled(desk, blocker)
        assert await settle()
        assert 8 * HOUR <= await start_of(desk, waiting) <= 11 * HOUR

    opened(work, prices)


def test_it_is_pulled_though_the_clock_was_ahead_for_a_while() -> None:
    async def work(desk: Desk) -> None:
        await desk.learn(ONE)
        (blocker,) = await taken(desk, wanted(4, duration=1000))
        (waiting,) = await taken(desk, wanted(4, duration=10, flexible=True))
        (other,) = desk.enter(await desk.books.offer(wanted(1, limit=1)))
        desk.clock.step(1010)
        await desk.books.expire()
        desk.clock.step(-1010)
        settle = await cancelled(desk, blocker)
        assert await settle()
        assert await start_of(desk, waiting) == 0
        assert (await desk.ledger.session(other)).phase == "EXPIRED"  # type: ignore[union-attr]

    opened(work)


def test_of_a_node_that_is_lost_the_flexible_go_elsewhere_and_only_who_is_left_there_is_told() -> None:
    two = (*ONE, Node("two", 4, 8))

    async def work(desk: Desk) -> None:
        await desk.learn(ONE)
        soon, later = desk.clock.seconds + 20, desk.clock.seconds + 1000
        half = {"cores": 2, "memory": 4, "duration": 50, "exactly": True}
        (fixed,) = await taken(desk, wanted(**half, earliest=soon))
        desk.clock.advance(1)
        (moving,) = await taken(desk, wanted(**half, earliest=soon, flexible=True))
        (unconcerned,) = await taken(desk, wanted(**half, earliest=later))
        await desk.learn(two)
        await desk.learn((Node("one", 2, 4), two[1]))
        assert [(await slot_of(desk, uuid)).node for uuid in (fixed, moving, unconcerned)] == ["one", "two", "one"]
        assert await desk.said(moving) == ["moved"]
        assert await desk.said(fixed) == await desk.said(unconcerned) == []
        await desk.learn((two[1],))
        assert [await desk.said(uuid) for uuid in (fixed, moving, unconcerned)] == [["node-shrunk"], ["moved"], ["node-shrunk"]]
        await desk.check()

    opened(work)
