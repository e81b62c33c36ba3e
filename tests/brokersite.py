"""A broker in this process, on fake platforms, under a clock that stands still until it is told otherwise."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx

import judge
import stores
from execbroker.app import create_app
from execbroker.config import Config
from execbroker.ledger.audit import audit
from execbroker.model.times import Clock

NOTEBOOK = {"kind": "jupyter-notebook", "location": "https://example.org/a.ipynb", "mode": "batch"}
MORNING = "2026-11-20T09:00:00Z"


class ManualClock(Clock):
    """`now` stands still until `advance`; `step` sets it without any time going by."""

    def __init__(self, start: str = MORNING) -> None:
        self._now, self._gone = datetime.fromisoformat(start), 0.0

    def now(self) -> datetime:
        return self._now

    def agreed(self, _database: int | None) -> int:
        return self.seconds

    def monotonic(self) -> float:
        return self._gone

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._gone += seconds

    def step(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    @property
    def seconds(self) -> int:
        return int(self._now.timestamp())

    def at(self, seconds: float) -> str:
        """The instant so many seconds from now, as it is written."""
        return f"{self._now + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def platform(name: str = "site", **settings: Any) -> dict[str, Any]:
    """A fake platform of one node: 4 cores, 8 GiB, 100 GiB of storage."""
    return {"name": name, "type": "fake", "poll": "PT20S", "nodes": [{"cores": 4, "memory": 8, "storage": 100}], **settings}


class Site:
    """One broker on one data folder; `restart` closes it and opens it again."""

    def __init__(self, folder: Path, clock: ManualClock | None = None, **settings: Any) -> None:
        self.folder, self.clock = folder / "broker", clock or ManualClock()
        where = {"folder": self.folder, "database": stores.address(self.folder)}
        self.settings: dict[str, Any] = {"platforms": [platform()], "auth": {"mode": "none"}, **where, **settings}

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        self._stack = AsyncExitStack()
        self.app = create_app(Config(**self.settings), self.clock, engine=False)
        await self._stack.enter_async_context(self.app.router.lifespan_context(self.app))
        transport = httpx.ASGITransport(self.app)
        self.client = await self._stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", timeout=30, event_hooks=judge.HOOKS)
        )
        self.parts = parts = self.app.state.parts
        self.engine, self.books, self.ledger, self.store = parts.engine, parts.books, parts.ledger, parts.store

    async def restart(self, **settings: Any) -> None:
        await self._stack.aclose()
        self.settings |= settings
        await self._open()

    async def faults(self) -> list[str | None]:
        """What the audit finds wrong."""
        return [error.message for error in (await audit(self.ledger, self.clock.seconds)).errors]

    async def settle(self) -> None:
        await self.engine.settle()

    async def advance(self, seconds: int) -> None:
        """Let time go by from one thing that is due to the next."""
        end = self.clock.seconds + seconds
        await self.settle()
        while self.clock.seconds < end:
            now = self.clock.seconds
            events = (await self.ledger.next_due(), self.books.next_expiry)
            soonest = min((event for event in events if event is not None and event > now), default=end)
            self.clock.advance(max(min(soonest, end) - now, 1))
            await self.settle()

    async def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request, for a notebook unless it says otherwise."""
        answer = await self.client.post("/requests", json={"executable": NOTEBOOK, **request})
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def offers(self, **request: Any) -> list[dict[str, Any]]:
        """The offers of a request that is answered YES."""
        answer = await self.ask(**request)
        assert answer["result"] == "YES", answer
        return answer["offers"]  # type: ignore[no-any-return]

    async def update(self, session: Any, value: str) -> httpx.Response:
        document = {"kind": "uri:enum-value-update", "path": "phase", "value": value}
        return await self.client.post(f"/sessions/{uuid_of(session)}", json=document)

    async def accept(self, session: Any) -> dict[str, Any]:
        answer = await self.update(session, "ACCEPTED")
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def take(self, **request: Any) -> str:
        """Ask, accept the first offer, and give its uuid."""
        return uuid_of(await self.accept((await self.offers(**request))[0]))

    async def show(self, session: Any) -> dict[str, Any]:
        answer = await self.client.get(f"/sessions/{uuid_of(session)}")
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def phase(self, session: Any) -> str:
        return str((await self.show(session))["phase"])


def uuid_of(session: Any) -> str:
    return session if isinstance(session, str) else str(session["meta"]["uuid"])


def names(document: dict[str, Any]) -> list[str]:
    """The short names of a document's messages, in order."""
    return [item["kind"].rpartition(":")[2] for item in document["meta"].get("messages") or []]


def start_of(session: dict[str, Any]) -> int:
    """When a session is available, in seconds."""
    text = session["schedule"]["available"]["start"].partition("/")[0]
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp())


def asked(cores: int = 1, memory: int = 1, duration: str = "PT10M", start: str | None = None, **more: Any) -> dict[str, Any]:
    """A request for exactly so much."""
    schedule: dict[str, Any] = {"duration": duration, **({"start": start} if start else {})}
    return {
        "compute": {
            "kind": "simple-compute-resource",
            "cores": {"min": cores, "max": cores},
            "memory": {"min": memory, "max": memory},
        },
        "schedule": {"requested": schedule},
        **more,
    }
