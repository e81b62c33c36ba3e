import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from execbroker.ledger import figures
from execbroker.ledger.audit import CHECKS, Findings
from execbroker.ledger.checks import reading
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import read_slot
from execbroker.model.phases import Phase
from execbroker.model.times import Clock
from execbroker.offers.offering import Answer

LATENCY = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
WAIT = (1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 3 * 86400, 7 * 86400)
DELAY = (0, 1, 2, 5, 10, 30, 60, 300, 900, 3600)
SHARE = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1)
METHODS = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"}
FATES = (Phase.ACCEPTED, Phase.REJECTED, Phase.EXPIRED)
ENDS = (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED)
GIB = 1 << 30
disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, which nobody reads


class Metrics:
    """The figures of one broker, for Prometheus.

    What is now, is read from the ledger at every scrape. Of what has happened, counters begin at nothing with the process:
    those of offers and sessions count the events that the ledger got since then, those of requests and answers count here.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._of_requests(registry)
        self._of_offers(registry)
        self._of_sessions(registry)
        self._of_the_broker(registry)
        ProcessCollector(registry=registry)
        self._ledger: Ledger | None = None
        self._turn = asyncio.Lock()

    def _of_requests(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "execbroker_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        text = "Seconds until a request was answered; requests that were told to wait, and streams, are left out."
        self._latency = Histogram(
            "execbroker_http_request_duration_seconds", text, ["method", "route"], buckets=LATENCY, registry=registry
        )

    def _of_offers(self, registry: CollectorRegistry) -> None:
        self._answers = Counter("execbroker_offersets", "Answers to requests.", ["result"], registry=registry)
        self._refusals = Counter("execbroker_refusals", "Answers NO, by each of their reasons.", ["reason"], registry=registry)
        self._made = Counter("execbroker_offers_made", "Offers made.", registry=registry)
        self._fates = Counter("execbroker_offers", "Offers by what became of them.", ["outcome"], registry=registry)

    def _of_sessions(self, registry: CollectorRegistry) -> None:
        platform = ["platform"]
        self._phases = Gauge("execbroker_sessions", "Sessions and offers in the ledger.", ["phase"], registry=registry)
        self._ends = Counter("execbroker_sessions_ended", "Sessions that ended.", ["outcome"], registry=registry)
        self._wait = Histogram(
            "execbroker_session_wait_seconds",
            "Seconds from the request, or from the acceptance, until a session ran.",
            ["platform", "since"],
            buckets=WAIT,
            registry=registry,
        )
        text = "Seconds that a session began later than promised, or than it was accepted where that was later."
        self._delay = Histogram("execbroker_session_start_delay_seconds", text, platform, buckets=DELAY, registry=registry)
        text = "Seconds that sessions which ran and ended had been promised."
        self._quoted = Counter("execbroker_session_quoted_seconds", text, platform, registry=registry)
        text = "Seconds that sessions which ended had run."
        self._used = Counter("execbroker_session_used_seconds", text, platform, registry=registry)
        text = "What part of the promised time sessions ran."
        self._share = Histogram("execbroker_session_used_ratio", text, platform, buckets=SHARE, registry=registry)

    def _of_the_broker(self, registry: CollectorRegistry) -> None:
        labels = ["platform", "resource", "unit"]
        self._amounts = {
            "held": Gauge("execbroker_held", "What is held now, by offers and sessions.", labels, registry=registry),
            "capacity": Gauge("execbroker_capacity", "What there is now.", labels, registry=registry),
        }
        text = "How long the oldest thing that is due has been due, taken up or not."
        self._lag = Gauge("execbroker_engine_lag_seconds", text, registry=registry)
        self._queue = Gauge("execbroker_books_queue_length", "Operations that wait for the books.", registry=registry)
        text = "What the last audit found that should never be."
        self._findings = Gauge("execbroker_audit_findings", text, ["check"], registry=registry)
        self._audited = Gauge("execbroker_audit_timestamp_seconds", "When the last audit was.", registry=registry)

    async def watch(self, ledger: Ledger, clock: Clock, waiting: Callable[[], int]) -> None:
        """From now on, count what happens in this ledger; `waiting` is how many operations wait for the books."""
        self._ledger, self._clock = ledger, clock
        self._queue.set_function(waiting)
        async with reading(ledger) as connection:
            self._seen: int = (await connection.execute(figures.last_event())).scalar_one()
        for fate in FATES:
            self._fates.labels(fate.lower())
        for end in ENDS:
            self._ends.labels(end.lower())
        for result in ("YES", "NO"):
            self._answers.labels(result)

    def requested(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """A request was answered, within `seconds` unless it was told to wait, or is a stream."""
        self._requests.labels(method, route, status).inc()
        if seconds is not None:
            self._latency.labels(method, route).observe(seconds)

    def answered(self, answer: Answer) -> None:
        """An answer was committed."""
        self._answers.labels(answer.offerset.result).inc()
        if answer.offerset.result == "YES":
            self._made.inc(len(answer.offers))
        else:
            for kind in {one.kind or "" for one in answer.messages if one.level == "ERROR"}:
                self._refusals.labels(kind.rpartition(":")[2]).inc()

    def audited(self, findings: Findings) -> None:
        self._audited.set(findings.time)
        for check in CHECKS:
            self._findings.labels(check).set(len(findings.of(check)))

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """All figures as they are now, and their media type: the one of Prometheus' that `accept` names first."""
        async with self._turn:
            if self._ledger:
                async with reading(self._ledger) as connection:
                    await self._look(connection)
                    await self._catch_up(connection)
            encode, media_type = choose_encoder(accept)
            return encode(self.registry), media_type

    async def _look(self, connection: AsyncConnection) -> None:
        now = int(self._clock.now().timestamp())
        due = (await connection.execute(figures.oldest_due())).scalar_one()
        self._lag.set(max(now - due, 0) if due is not None else 0)
        counts = {row.phase: row.sessions for row in await connection.execute(figures.phases())}
        for phase in Phase:
            self._phases.labels(phase).set(counts.get(phase, 0))
        rows = (await connection.execute(figures.amounts(now))).all()
        for gauge in self._amounts.values():
            gauge.clear()
        for row in sorted(rows):  # what there is first: of what is held nothing is then 0
            for resource, unit, amount in _resources(row):
                self._amounts["held"].labels(row.platform, resource, unit)
                self._amounts[row.what].labels(row.platform, resource, unit).set(amount)

    async def _catch_up(self, connection: AsyncConnection) -> None:
        """Count what the ledger was told since the last time."""
        last = (await connection.execute(figures.last_event())).scalar_one()
        after = min(self._seen, last)
        for row in await connection.execute(figures.moves(after, last)):
            if row.phase in FATES:
                self._fates.labels(row.phase.lower()).inc(row.sessions)
            elif row.phase in ENDS:
                self._ends.labels(row.phase.lower()).inc(row.sessions)
        for row in await connection.execute(figures.runs(after, last)):
            self._started(row) if row.phase == Phase.RUNNING else self._ended(row)
        self._seen = last

    def _started(self, row: Any) -> None:
        slot = read_slot(row.slot)
        self._wait.labels(slot.platform, "request").observe(row.time - row.created)
        if row.accepted is not None:
            self._wait.labels(slot.platform, "acceptance").observe(row.time - row.accepted)
        self._delay.labels(slot.platform).observe(max(row.time - max(slot.start, row.accepted or 0), 0))

    def _ended(self, row: Any) -> None:
        slot, state = read_slot(row.slot), json.loads(row.state)
        if state.get("started") is None:
            return
        used = max(state.get("ended", row.time) - state["started"], 0)
        self._quoted.labels(slot.platform).inc(slot.end - slot.start)
        self._used.labels(slot.platform).inc(used)
        self._share.labels(slot.platform).observe(used / (slot.end - slot.start))


class Measured:
    """Counts and times every request, those that were turned away at the door included."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path_format", "none")
            waits = b"wait=" in scope["query_string"] or route.endswith("/events")
            seconds = None if waits else time.perf_counter() - began
            self._metrics.requested(method, route, status, seconds)


def _resources(row: Any) -> list[tuple[str, str, int]]:
    if row.kind:
        return [(row.kind, "integer", int(row.count))]
    return [
        ("cores", "core", int(row.cores)),
        ("memory", "byte", int(row.memory) * GIB),
        ("storage", "byte", int(row.storage) * GIB),
    ]
