"""What every platform must do, whatever it is."""

import asyncio
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sites import SITES, FakeSite, Site, ended, released, status, until, whole

from execbroker.model.waist import Launch, Mount

DIES = Path(__file__).parent / "dies.py"


def test_it_has_something_to_offer(site: Site) -> None:
    capacity = asyncio.run(site.platform().capacity())
    assert capacity.nodes
    assert all(node.cores >= 1 and node.memory >= 1 for node in capacity.nodes)
    assert all(note.strip() for note in capacity.notes)


def test_it_has_nothing_against_a_plain_program(site: Site) -> None:
    platform = site.platform()
    mounts = [Mount("data", "storage/data", readonly=True)]
    assert platform.reasons_against(Launch("process", ("true",)), mounts) == []


def test_nothing_has_to_be_prepared_twice(site: Site) -> None:
    async def go() -> None:
        platform, job = site.platform(), site.endless()
        for _ in range(2):
            done = await until(lambda: platform.prepare(job), lambda progress: progress.done)
            assert done.done
        await released(platform, job)

    asyncio.run(go())


def test_what_was_never_started_is_unknown(site: Site) -> None:
    async def go() -> None:
        platform, job = site.platform(), site.endless()
        assert (await status(platform, job)).state == "unknown"
        assert await platform.output(job, "stdout", 0) == b""

    asyncio.run(go())


def test_it_ends_with_its_exit_code(site: Site) -> None:
    async def go() -> None:
        job = site.brief()
        platform = site.platform()
        await platform.start(job)
        end = await ended(platform, job)
        assert (end.exit_code, end.complaint, end.on_time_limit) == (3, None, False)
        assert site.runs(job) == 1
        await released(platform, job)

    asyncio.run(go())


def test_started_twice_it_runs_once(site: Site) -> None:
    async def go() -> None:
        job = site.endless()
        platform = site.platform()
        await platform.start(job)
        await until(lambda: whole(platform, job), bool)
        await platform.start(job)
        await site.platform().start(job)
        assert (await status(platform, job)).state == "running"
        await released(platform, job)
        assert site.runs(job) <= 1 if isinstance(site, FakeSite) else site.runs(job) == 1

    asyncio.run(go())


def test_what_has_ended_is_not_started_again(site: Site) -> None:
    async def go() -> None:
        job = site.brief()
        await site.platform().start(job)
        await ended(site.platform(), job)
        await site.platform().start(job)
        assert (await ended(site.platform(), job)).exit_code == 3
        assert site.runs(job) == 1
        await released(site.platform(), job)

    asyncio.run(go())


def test_two_brokers_at_once_start_it_once(site: Site) -> None:
    async def go() -> None:
        job = site.brief()
        await asyncio.gather(*(site.platform().start(job) for _ in range(3)))
        assert (await ended(site.platform(), job)).exit_code == 3
        assert site.runs(job) == 1
        await released(site.platform(), job)

    asyncio.run(go())


def test_a_broker_started_anew_goes_on_with_it(site: Site) -> None:
    async def go() -> None:
        job = site.endless()
        await site.platform().start(job)
        assert (await status(site.platform(), job)).state == "running"
        assert await until(lambda: whole(site.platform(), job), bool)
        await released(site.platform(), job)
        assert (await status(site.platform(), job)).state == "unknown"

    asyncio.run(go())


def test_many_are_looked_at_in_one_call(site: Site) -> None:
    async def go() -> None:
        platform = site.platform()
        jobs = [site.endless() for _ in range(3)]
        stranger = site.endless()
        for job in jobs:
            await platform.start(job)
        found = await platform.poll([*jobs, stranger])
        assert {uuid: each.state for uuid, each in found.items()} == {
            **{job.uuid: "running" for job in jobs},
            stranger.uuid: "unknown",
        }
        assert await platform.poll([]) == {}
        for job in jobs:
            await released(platform, job)

    asyncio.run(go())


@pytest.mark.parametrize("times", [1, 2])
def test_release_before_the_start(site: Site, times: int) -> None:
    async def go() -> None:
        platform, job = site.platform(), site.endless()
        for _ in range(times):
            await released(platform, job)
        assert (await status(platform, job)).state == "unknown"
        assert site.runs(job) == 0

    asyncio.run(go())


def test_release_ends_what_runs(site: Site) -> None:
    async def go() -> None:
        platform, job = site.platform(), site.endless()
        await platform.start(job)
        await released(platform, job)
        await released(platform, job)
        await released(site.platform(), job)
        assert (await status(platform, job)).state == "unknown"

    asyncio.run(go())


def test_release_keeps_the_results(site: Site) -> None:
    async def go() -> None:
        job = site.brief()
        for folder in ("home", "storage/marks"):
            (job.folder / folder).mkdir(parents=True)
            (job.folder / folder / "result").write_text("42")
        platform = site.platform()
        await platform.start(job)
        await ended(platform, job)
        await released(platform, job)
        assert (job.folder / "home" / "result").read_text() == "42"
        assert (job.folder / "storage" / "marks" / "result").read_text() == "42"

    asyncio.run(go())


def test_output_is_read_from_any_offset_during_and_after(site: Site) -> None:
    async def go() -> None:
        platform, job = site.platform(), site.endless()
        await platform.start(job)
        during = await until(lambda: whole(platform, job), lambda text: b"hello" in text)
        assert b"hello" in during
        for offset in range(len(during)):
            assert await platform.output(job, "stdout", offset) == during[offset:]
        assert await platform.output(job, "stdout", len(during)) == b""
        assert await platform.output(job, "stdout", 10**9) == b""
        assert await platform.output(job, "stderr", 0) == b""
        await released(platform, job)

    asyncio.run(go())


def test_it_ends_when_its_time_is_over(site: Site) -> None:
    async def go() -> None:
        platform, job = site.platform(), site.endless(seconds=1)
        await platform.start(job)
        end = await ended(platform, job)
        assert end.on_time_limit
        assert end.complaint is None
        await released(platform, job)

    asyncio.run(go())


@pytest.mark.parametrize("name", SITES)
def test_a_broker_that_dies_within_start_starts_it_once(name: str, tmp_path: Path) -> None:
    """From before the first line of `start` to after its last, a death at every fourth millisecond or so."""
    deaths = [round(0.0035 * step, 4) for step in range(20)]
    uuids = [uuid4() for _ in deaths]
    words = [f"{uuid}={death}" for uuid, death in zip(uuids, deaths, strict=True)]
    subprocess.run([sys.executable, str(DIES), name, str(tmp_path), *words], check=True, timeout=60)
    asyncio.run(_goes_on_after(SITES[name](tmp_path), uuids))


async def _goes_on_after(site: Site, uuids: list[UUID]) -> None:
    jobs = [site.brief(uuid=uuid) for uuid in uuids]
    platform = site.platform()
    for job in jobs[:-4]:
        await platform.start(job)
        assert (await ended(platform, job)).exit_code == 3
        assert site.runs(job) == 1
        await released(platform, job)
    for job in jobs[-4:]:
        await released(platform, job)
        before = site.runs(job)
        await asyncio.sleep(0.1)
        assert site.runs(job) == before <= 1
