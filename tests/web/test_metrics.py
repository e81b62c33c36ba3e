"""What Prometheus reads, as it reads it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from brokersite import Site, asked, platform
from execbroker.ledger.tables import bookings, capacities, sessions

DEADLINE = 10
GIB = 1 << 30
DOCS = (Path(__file__).parents[2] / "docs" / "watching.md").read_text()


class Figures:
    """One answer of /metrics: the value of a series, 0 where there is none."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.types = {family.name: family.type for family in families}
        self.samples = {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples.get((f"execbroker_{name}", frozenset(labels.items())), 0)


async def figures(site: Site) -> Figures:
    answer = await site.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Figures(answer.text)


def run(work: Callable[[Site], Awaitable[None]], folder: Path, **settings: Any) -> None:
    async def opened() -> None:
        async with Site(folder, **settings) as site:
            await work(site)

    asyncio.run(opened())


def test_requests_are_counted_by_route_and_not_by_path(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        for path in ("/platforms", "/sessions/abc", "/sessions/b7d7a1a2-0000-4000-8000-000000000000", "/nowhere", "/else"):
            await site.client.get(path)
        await site.client.request("BREW", "/platforms")
        await site.client.get("/platforms?wait=1")
        found = await figures(site)
        assert found("http_requests_total", method="GET", route="/platforms", status="200") == 2
        assert found("http_requests_total", method="GET", route="/sessions/{uuid}", status="404") == 2
        assert found("http_requests_total", method="GET", route="none", status="404") == 2
        assert (
            sum(found("http_requests_total", method="other", route=route, status="405") for route in ("none", "/platforms")) == 1
        )
        assert found("http_request_duration_seconds_count", method="GET", route="/platforms") == 1
        assert 0 < found("http_request_duration_seconds_sum", method="GET", route="/platforms") < DEADLINE

    run(work, tmp_path)


def test_who_has_no_token_gets_no_figures_and_is_counted(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        assert (await site.client.get("/metrics")).status_code == 401
        site.client.headers["Authorization"] = f"Bearer {(site.folder / 'token').read_text()}"
        assert (await figures(site))("http_requests_total", method="GET", route="none", status="401") == 1

    run(work, tmp_path, auth={"mode": "token"})


def test_answers_offers_and_what_became_of_them(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        await site.take(**asked(1))
        offers = await site.offers(**asked(1))
        await site.update(offers[0], "REJECTED")
        assert (await site.ask(**asked(99)))["result"] == "NO"
        await site.advance(600)
        found = await figures(site)
        assert (found("offersets_total", result="YES"), found("offersets_total", result="NO")) == (2, 1)
        assert found("refusals_total", reason="too-much-cores") == 1
        assert found("offers_made_total") == 8
        assert [found("offers_total", outcome=outcome) for outcome in ("accepted", "rejected", "expired")] == [1, 4, 3]
        assert (found("sessions", phase="EXPIRED"), found("sessions", phase="OFFERED")) == (3, 0)

    run(work, tmp_path)


def test_waits_and_what_was_used_of_what_was_promised(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        offers = await site.offers(**asked(4, duration="PT10M"))
        site.clock.advance(60)
        await site.accept(offers[1])
        await site.advance(3600)
        await figures(site)
        found = await figures(site)  # looking twice counts nothing twice
        assert found("session_wait_seconds_sum", platform="site", since="request") == 600
        assert found("session_wait_seconds_sum", platform="site", since="acceptance") == 540
        assert found("session_start_delay_seconds_count", platform="site") == 1
        assert found("session_start_delay_seconds_sum", platform="site") == 0
        assert found("session_quoted_seconds_total", platform="site") == 600
        assert found("session_used_seconds_total", platform="site") == 150
        assert found("session_used_ratio_sum", platform="site") == 0.25
        assert found("sessions_ended_total", outcome="completed") == 1

    run(work, tmp_path, platforms=[platform(lasts="PT150S", poll="PT1S")])


def test_a_late_start_is_a_delay_and_more_said_in_a_phase_is_no_second_move(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        await site.take(**asked(1))
        await site.advance(120)
        found = await figures(site)
        assert found("session_start_delay_seconds_count", platform="site") == 1
        assert 0 < found("session_start_delay_seconds_sum", platform="site") < 60

    run(work, tmp_path, platforms=[platform(script={"start": {"does": "unreachable", "times": 3}})])


def test_counters_begin_anew_with_the_process_and_what_is_now_does_not(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        await site.take(**asked(1))
        await site.advance(60)
        await site.restart()
        found = await figures(site)
        assert (
            found("offers_total", outcome="accepted")
            == found("session_wait_seconds_count", platform="site", since="request")
            == 0
        )
        assert found("sessions", phase="RUNNING") == 1
        await site.take(**asked(1))
        assert (await figures(site))("offers_total", outcome="accepted") == 1

    run(work, tmp_path)


def test_what_is_held_now_and_what_there_is(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        await site.take(**asked(3, 2))
        node = {"node": "n", "cores": 0, "memory": 0, "storage": 0, "count": 0}
        async with site.ledger.write() as transaction:
            for name in "ab":
                transaction.insert(capacities, {"platform": "farm", "kind": "", **node, "node": name, "cores": 64, "memory": 256})
                transaction.insert(capacities, {"platform": "farm", "kind": "gpu", **node, "node": name, "count": 2})
            moment = site.clock.seconds
            where = {"holder": "x", "platform": "farm", "start": moment - 1, **node}
            transaction.insert(bookings, {**where, "end": moment + 1, "kind": "gpu", "count": 3})
            transaction.insert(bookings, {**where, "end": moment, "kind": "gpu", "count": 4})
        found = await figures(site)
        assert found("held", platform="site", resource="cores", unit="core") == 3
        assert found("held", platform="site", resource="memory", unit="byte") == 2 * GIB
        assert found("capacity", platform="farm", resource="cores", unit="core") == 128
        assert found("capacity", platform="farm", resource="memory", unit="byte") == 512 * GIB
        assert found("capacity", platform="farm", resource="gpu", unit="integer") == 4
        assert found("held", platform="farm", resource="gpu", unit="integer") == 3
        assert ("execbroker_held", frozenset({"platform": "farm", "resource": "cores", "unit": "core"}.items())) in found.samples

    run(work, tmp_path)


def test_the_engine_lags_by_the_oldest_that_is_due(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        assert (await figures(site))("engine_lag_seconds") == 0
        await site.take(**asked(1))
        await site.settle()
        site.clock.advance(10_000)
        assert (await figures(site))("engine_lag_seconds") == pytest.approx(10_000, abs=700)
        await site.settle()
        assert (await figures(site))("engine_lag_seconds") == 0

    run(work, tmp_path)


async def audited(site: Site) -> Figures:
    """The figures once the audit of the start has been."""
    async with asyncio.timeout(DEADLINE):
        while not (found := await figures(site))("audit_timestamp_seconds"):  # noqa: ASYNC110 -- no event is set for a test
            await asyncio.sleep(0.01)
        return found


def test_the_audit_at_start_is_among_the_figures_and_stops_nobody(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked(1))
        found = await audited(site)
        assert found("audit_timestamp_seconds") == site.clock.seconds
        assert found("audit_findings", check="other-hold") == 0
        async with site.ledger.write() as transaction:
            await transaction.execute(update(bookings).values(cores=2))
            await transaction.execute(update(sessions).where(sessions.c.uuid != uuid).values(phase="OFFERED"))
        await site.restart()
        found = await audited(site)
        assert found("audit_findings", check="other-hold") == 1
        assert found("audit_findings", check="no-hold") == 1
        assert found("audit_findings", check="stray-hold") == 0

    run(work, tmp_path)


def test_every_figure_says_what_it_is_and_is_documented(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        text = (await site.client.get("/metrics")).text
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP execbroker_")]
        assert len(names) == len(set(names)) > 15
        assert [name for name in names if f"`{name}`" not in DOCS] == []
        assert [line for line in text.splitlines() if line.startswith("# TYPE") and line.endswith(" unknown")] == []
        openmetrics = await site.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert openmetrics.text.endswith("# EOF\n")

    run(work, tmp_path)


def test_several_brokers_in_one_process_count_each_for_itself(tmp_path: Path) -> None:
    @asynccontextmanager
    async def site(name: str) -> Any:
        async with Site(tmp_path / name) as opened:
            yield opened

    async def work() -> None:
        async with site("one") as one, site("other") as other:
            await one.take(**asked(1))
            assert (await figures(one))("offersets_total", result="YES") == 1
            assert (await figures(other))("offersets_total", result="YES") == 0

    asyncio.run(work())
