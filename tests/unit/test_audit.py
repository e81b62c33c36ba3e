"""The audit finds what it is told to look for, and nothing where nothing is."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

import stores
from brokersite import ManualClock, Site, asked, platform
from execbroker.ledger.audit import Findings, audit
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.tables import bookings, capacities, sessions

NOW = 1_000_000
AMOUNTS = {"cores": 0, "memory": 0, "storage": 0, "count": 0}
HOUR = 3600


def hold(
    start: int, end: int, node: str = "a", kind: str | None = None, platform: str = "site", **amounts: int
) -> dict[str, Any]:
    """A booking from `start` until `end` seconds from now, for nobody."""
    where = {"holder": "nobody", "platform": platform, "node": node, "kind": kind}
    return {**where, "start": NOW + start, "end": NOW + end, **AMOUNTS, **amounts}


def there(node: str = "a", kind: str = "", shrunk: int | None = None, **amounts: int) -> dict[str, Any]:
    return {"platform": "site", "node": node, "kind": kind, "shrunk": shrunk, **AMOUNTS, **amounts}


@asynccontextmanager
async def ledger_of(folder: Path, held: list[dict[str, Any]], places: list[dict[str, Any]]) -> AsyncIterator[Ledger]:
    ledger = Ledger(stores.prepared(folder))
    try:
        async with ledger.write() as transaction:
            transaction.insert(bookings, *held)
            transaction.insert(capacities, *places)
        yield ledger
    finally:
        await ledger.close()


def audited(folder: Path, held: list[dict[str, Any]], places: list[dict[str, Any]]) -> Findings:
    async def look() -> Findings:
        async with ledger_of(folder, held, places) as ledger:
            return await audit(ledger, NOW)

    return asyncio.run(look())


def overbooked(folder: Path, held: list[dict[str, Any]], places: list[dict[str, Any]]) -> list[str | None]:
    return [error.message for error in audited(folder, held, places).of("overbooked")]


FOUR = there(cores=4, memory=8, storage=100)


def test_as_much_as_there_is_is_not_too_much(tmp_path: Path) -> None:
    held = [hold(0, 60, cores=2), hold(0, 60, cores=2, memory=8), hold(60, 90, cores=4), hold(-90, 0, cores=9)]
    found = audited(tmp_path, held, [FOUR])
    assert (found.of("overbooked"), found.notes, found.holds) == ([], (), 3)


def test_an_overbooked_node_is_found_to_the_second(tmp_path: Path) -> None:
    held = [hold(-10, 60, cores=2), hold(20, 80, cores=2), hold(50, 70, cores=1), hold(60, 61, cores=3)]
    expected = "site, node a: 6 of 4 cores are held from 1970-01-12T13:47:30Z until 1970-01-12T13:47:41Z"
    assert overbooked(tmp_path, held, [FOUR]) == [expected]


def test_what_is_held_too_much_already_is_so_from_now_on(tmp_path: Path) -> None:
    assert overbooked(tmp_path, [hold(-500, 10, memory=9), hold(-20, 5, storage=101)], [FOUR]) == [
        "site, node a: 9 of 8 GiB of memory are held from 1970-01-12T13:46:40Z until 1970-01-12T13:46:50Z",
        "site, node a: 101 of 100 GiB of storage are held from 1970-01-12T13:46:40Z until 1970-01-12T13:46:45Z",
    ]


def test_accelerators_and_shared_pools_are_looked_at_each_by_itself(tmp_path: Path) -> None:
    held = [hold(0, 10, "a", "gpu", count=2), hold(5, 15, "a", "gpu", count=1), hold(0, 10, "b", "gpu", count=2)]
    held += [hold(0, 10, "", "licence", count=3), hold(0, 9, "", storage=501)]
    places = [FOUR, there("a", "gpu", count=2), there("b", "gpu", count=2), there("", "licence", count=2), there("", storage=500)]
    assert overbooked(tmp_path, held, places) == [
        "site, shared by its nodes: 501 of 500 GiB of storage are held from 1970-01-12T13:46:40Z until 1970-01-12T13:46:49Z",
        "site, shared by its nodes: 3 of 2 licence are held from 1970-01-12T13:46:40Z until 1970-01-12T13:46:50Z",
        "site, node a: 3 of 2 gpu are held from 1970-01-12T13:46:45Z until 1970-01-12T13:46:50Z",
    ]


def test_a_place_that_a_platform_does_not_have_has_nothing(tmp_path: Path) -> None:
    held = [hold(0, 10, "b", cores=1), hold(0, 10, "a", "gpu", count=1), hold(0, 10, "a", "batch cores", count=1)]
    assert overbooked(tmp_path, held, [FOUR]) == [
        "site, node a: 1 of 0 gpu are held from 1970-01-12T13:46:40Z until 1970-01-12T13:46:50Z",
        "site, node b: 1 of 0 cores are held from 1970-01-12T13:46:40Z until 1970-01-12T13:46:50Z",
    ]


def test_a_node_that_became_smaller_and_a_platform_that_is_gone_are_notes(tmp_path: Path) -> None:
    held = [hold(0, 10, cores=4), hold(0, 10, platform="gone", cores=9), hold(5, 10, platform="gone", cores=9)]
    found = audited(tmp_path, held, [there(cores=2, memory=1, shrunk=NOW - 60)])
    assert found.of("overbooked") == []
    has = "2 cores, 1 GiB of memory, 0 GiB of storage"
    assert [note.message for note in found.notes] == [
        f"site, node a: has {has} since 1970-01-12T13:45:40Z, which is less than was promised of it before",
        "gone: what it has is not known, so what is held of it (2) was not compared with it",
    ]


SPANS = st.tuples(st.integers(-5, 20), st.integers(0, 10)).map(lambda span: (span[0], span[0] + span[1]))
HOLDS = st.lists(
    st.tuples(SPANS, st.sampled_from("ab"), st.sampled_from(["cores", "storage", "gpu"]), st.integers(1, 3)), max_size=12
)


@settings(max_examples=60)
@given(HOLDS)
def test_the_audit_finds_exactly_the_seconds_that_are_overbooked(wanted: list[Any]) -> None:
    held, sums = [], defaultdict[tuple[str, str, int], int](int)
    for (start, end), node, what, amount in wanted:
        held.append(hold(start, end, node, **({"kind": "gpu", "count": amount} if what == "gpu" else {what: amount})))
        for second in range(max(start, 0), end):
            sums[node, what, NOW + second] += amount
    places = [one for node in "ab" for one in (there(node, cores=4, storage=4), there(node, "gpu", count=4))]
    with TemporaryDirectory() as folder:
        found = audited(Path(folder), held, places).of("overbooked")
    assert {at for error in found for at in seconds(error.values or {})} == {at for at, amount in sums.items() if amount > 4}


def seconds(values: dict[str, str]) -> set[tuple[str, str, int]]:
    resource = values["resource"].removeprefix("GiB of ")
    start, end = (ManualClock(values[name]).seconds for name in ("start", "end"))
    return {(values["place"].removeprefix("node "), resource, second) for second in range(start, end)}


STORAGE = {"kind": "simple-storage-resource", "meta": {"name": "kept"}, "size": {"min": 5, "max": 5}, "lifetime": "P1D"}
Tamper = Callable[[str], Any]
Before = Callable[[Site, str], Awaitable[Any]]


async def errors(site: Site) -> list[str]:
    """The short kinds of what is wrong."""
    return [(error.kind or "").rpartition(":")[2] for error in (await audit(site.ledger, site.clock.seconds)).errors]


def wrong_after(folder: Path, tamper: Tamper, before: Before | None = None, accept: bool = True) -> list[str]:
    """What is wrong once somebody has tampered with a ledger of one session, or of one offerset, in which nothing was."""

    async def look() -> list[str]:
        async with Site(folder) as site:
            offer = (await site.offers(**asked(2, 2, storage=[STORAGE])))[0]
            if accept:
                await site.accept(offer)
            if before:
                await before(site, offer["meta"]["uuid"])
            assert await errors(site) == []
            async with site.ledger.write() as transaction:
                assert await transaction.execute(tamper(offer["meta"]["uuid"])), "nothing was changed"
            return await errors(site)

    return asyncio.run(look())


def phase(name: str, **values: Any) -> Tamper:
    return lambda uuid: update(sessions).where(sessions.c.uuid == uuid).values(phase=name, **values)


async def complete(site: Site, uuid: str) -> None:
    """Let it run to its end: only its storage is held then."""
    await site.advance(HOUR)
    assert await site.phase(uuid) == "COMPLETED"


def test_a_hold_of_nobody_is_found(tmp_path: Path) -> None:
    assert wrong_after(tmp_path, lambda uuid: delete(sessions).where(sessions.c.uuid == uuid)) == ["stray-hold"]


def test_a_hold_of_a_session_that_holds_nothing_any_more_is_found(tmp_path: Path) -> None:
    assert wrong_after(tmp_path, phase("EXPIRED")) == ["stray-hold"]
    assert wrong_after(tmp_path / "cores", phase("COMPLETED")) == ["stray-hold"]


def test_kept_storage_is_held_for_somebody_who_will_delete_it(tmp_path: Path) -> None:
    assert wrong_after(tmp_path, phase("COMPLETED", due=None), complete) == ["stray-hold"]


def test_kept_storage_without_its_hold_is_found(tmp_path: Path) -> None:
    assert wrong_after(tmp_path, lambda _: delete(bookings), complete) == ["other-hold"]


def test_offers_that_hold_on_after_they_ended_are_found(tmp_path: Path) -> None:
    assert wrong_after(tmp_path, lambda _: update(sessions).values(phase="EXPIRED"), accept=False) == ["stray-hold"]


@pytest.mark.parametrize("accept", [True, False], ids=["session", "offers"])
def test_what_is_promised_but_not_held_is_found(tmp_path: Path, accept: bool) -> None:
    assert wrong_after(tmp_path, lambda _: delete(bookings), accept=accept) == ["no-hold"]


CHANGES = {
    "later": {"start": bookings.c.start + 1},
    "longer": {"end": bookings.c.end + 1},
    "more": {"cores": bookings.c.cores + 1},
    "less": {"memory": bookings.c.memory - 1},
    "elsewhere": {"node": "other"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("accept", [True, False], ids=["session", "offers"])
def test_what_is_held_otherwise_than_scheduled_is_found(tmp_path: Path, change: dict[str, Any], accept: bool) -> None:
    found = wrong_after(tmp_path, lambda _: update(bookings).values(**change), accept=accept)
    assert set(found) - {"overbooked"} == {"other-hold"}


def test_a_change_of_what_is_over_is_nothing(tmp_path: Path) -> None:
    async def run(site: Site, _: str) -> None:
        await site.advance(70)

    begun = update(bookings).where(bookings.c.cores > 0).values(start=bookings.c.start + 60)
    assert wrong_after(tmp_path, lambda _: begun, run) == []


def test_the_sentence_says_what_differs_first(tmp_path: Path) -> None:
    async def look() -> list[str | None]:
        async with Site(tmp_path) as site:
            await site.take(**asked(2, 2))
            async with site.ledger.write() as transaction:
                await transaction.execute(update(bookings).values(cores=3))
            return [error.message for error in (await audit(site.ledger, site.clock.seconds)).errors]

    (said,) = asyncio.run(look())
    assert said is not None
    assert said.endswith(": 3 cores are held of site, node site-1, at 2026-11-20T09:00:00Z, where its schedule says 2")


def test_a_whole_life_is_right_at_every_step(tmp_path: Path) -> None:
    """Offers, rejections, expiry, cancellation, a late release that overruns, storage that is kept and then deleted."""

    async def live() -> None:
        slow = platform(script={"release": {"does": "delay", "times": 300}})
        async with Site(tmp_path, platforms=[slow]) as site:
            first = await site.take(**asked(2, 2, storage=[STORAGE]))
            offers = await site.offers(**asked(2, 2, storage=[STORAGE]))
            assert await errors(site) == []
            await site.update(offers[0], "REJECTED")
            second = await site.take(**asked(2, 2, storage=[STORAGE]))
            assert await errors(site) == []
            await site.update(second, "CANCELLED")
            seen = {}
            for minutes in [*range(1, 20), *[120] * 14]:
                await site.advance(60 * minutes)
                assert await errors(site) == []
                seen[await site.phase(first)] = (await audit(site.ledger, site.clock.seconds)).holds
            assert seen.keys() == {"RUNNING", "RELEASING", "COMPLETED"}
            assert seen["RELEASING"] > seen["COMPLETED"] == 0

    asyncio.run(live())
