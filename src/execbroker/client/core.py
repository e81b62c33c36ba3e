import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from execbroker.client.discovery import find_broker, trust
from execbroker.client.events import Event, stream
from execbroker.client.keeping import Kept
from execbroker.client.logins import Logins
from execbroker.client.problems import ClientError, NoAnswer
from execbroker.codecs import plain
from execbroker.model.options import AbstractUpdate, EnumValueUpdate, IntegerDeltaUpdate
from execbroker.model.phases import Phase
from execbroker.model.sessions import ExecutionRequest, OfferSetResponse, ScheduledExecutionSession
from execbroker.model.times import format_instant, parse_instant

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

PATIENCE = 30.0
LONG_POLL = 50.0
AGAIN = 1.0  # seconds
BLOCK = 1 << 20
DURATION = "schedule.available.duration"
_AGAIN = {502, 503, 504}


@dataclass(frozen=True, slots=True)
class File:
    """A file or folder that a session left: `path` below the session's files, `size` in bytes."""

    path: str
    folder: bool
    size: int
    modified: datetime


class AsyncClient:
    """A broker, from outside.

    Without arguments it is the one of this machine, found as `find_broker` says. Every method raises ClientError with
    the broker's problem document, and NoAnswer where there is no broker to ask.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, folder: Path | None = None, ca: Path | None = None
    ) -> None:
        """`ca` is a file of certificates to believe, besides the usual ones. Raises ValueError where it has none."""
        place = find_broker(url, token, folder)
        self.url = place.url
        headers = {"Accept": "application/json"}
        if place.token:
            headers["Authorization"] = f"Bearer {place.token}"
        self._http = httpx.AsyncClient(
            base_url=place.url,
            verify=trust(place, ca) if place.url.startswith("https:") else True,
            headers=headers,
            auth=Kept(place.url, place.login, Logins()) if place.login else None,
            timeout=PATIENCE,
            follow_redirects=True,
            trust_env=not place.is_here,  # no proxy leads to this machine
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, request: ExecutionRequest | dict[str, Any]) -> OfferSetResponse:
        """When, where and how can I run this? A document is sent as it is."""
        return _read(OfferSetResponse, await self._call("POST", "/requests", json=plain(request)))

    async def direct(self, request: ExecutionRequest | dict[str, Any]) -> ScheduledExecutionSession:
        """Run this as soon as possible; a FAILED session, with every reason, where it cannot be run."""
        response = await self._send("POST", "/direct", json=plain(request))
        if response.status_code != 400 or b'"phase"' not in response.content:
            _check(response)
        return _read(ScheduledExecutionSession, response)

    async def offerset(self, uuid: UUID | str, wait: float = 0) -> OfferSetResponse:
        """An earlier answer, its offers as they are now; after `wait` seconds (60 at most), or once it changes."""
        return _read(OfferSetResponse, await self._get(f"/offersets/{uuid}", wait, **_known(wait=wait or None)))

    async def session(self, uuid: UUID | str, wait: float = 0, phase: Phase | None = None) -> ScheduledExecutionSession:
        """One offer or session; after `wait` seconds (60 at most), or once it changes, or is no longer in `phase`."""
        query = _known(wait=wait or None, phase=phase)
        return _read(ScheduledExecutionSession, await self._get(f"/sessions/{uuid}", wait, **query))

    async def accept(self, uuid: UUID | str) -> ScheduledExecutionSession:
        """Take this offer; its siblings are released."""
        return await self._choose(uuid, Phase.ACCEPTED)

    async def reject(self, uuid: UUID | str) -> ScheduledExecutionSession:
        """Give this offer back."""
        return await self._choose(uuid, Phase.REJECTED)

    async def cancel(self, uuid: UUID | str) -> ScheduledExecutionSession:
        """Stop this session, or do not start it."""
        return await self._choose(uuid, Phase.CANCELLED)

    async def extend(self, uuid: UUID | str, seconds: int) -> ScheduledExecutionSession:
        """Make this accepted session so many seconds longer, or shorter where that is negative."""
        return await self._update(uuid, IntegerDeltaUpdate(path=DURATION, delta=seconds, units="seconds"))

    async def _choose(self, uuid: UUID | str, phase: Phase) -> ScheduledExecutionSession:
        return await self._update(uuid, EnumValueUpdate(path="phase", value=phase.value))

    async def _update(self, uuid: UUID | str, update: AbstractUpdate) -> ScheduledExecutionSession:
        return _read(ScheduledExecutionSession, await self._call("POST", f"/sessions/{uuid}", json=plain(update)))

    async def sessions(
        self, phases: Iterable[Phase] = (), after: datetime | None = None, limit: int = 100
    ) -> list[ScheduledExecutionSession]:
        """Offers and sessions, the newest first: those in one of `phases`, created after `after`."""
        query = _known(after=after and format_instant(after), limit=limit)
        response = await self._get("/sessions", phase=[phase.value for phase in phases], **query)
        return _list(ScheduledExecutionSession, response, "sessions")

    async def offersets(
        self, result: Literal["YES", "NO"] | None = None, after: datetime | None = None, limit: int = 100
    ) -> list[OfferSetResponse]:
        """The answers to earlier requests, the newest first."""
        query = _known(result=result, after=after and format_instant(after), limit=limit)
        return _list(OfferSetResponse, await self._get("/offersets", **query), "offersets")

    async def platforms(self) -> dict[str, Any]:
        """What may be asked here: `platforms` with their nodes, and the `kinds` by family."""
        return _document(await self._get("/platforms"))

    async def me(self) -> dict[str, Any]:
        """Who you are, and for each of the `platforms` its `limits` of one session, and your `quotas` with what is `left`."""
        return _document(await self._get("/me"))

    async def output(self, uuid: UUID | str, stream: Literal["stdout", "stderr"] = "stdout", offset: int = 0) -> bytes:
        """What a session wrote, from byte `offset` on."""
        return (await self._get(f"/sessions/{uuid}/{stream}", offset=offset)).content

    async def files(self, uuid: UUID | str, path: str = "", *, deep: bool = True) -> list[File]:
        """What a session left below `path`: every file, or with `deep` False the folder's own content."""
        response = await self._get(f"/sessions/{uuid}/files/{quote(path)}", deep=deep)
        try:
            return [_file(entry) for entry in _document(response)["files"]]
        except (KeyError, TypeError, ValueError) as error:
            raise _no_broker(response, error) from None

    async def download(self, uuid: UUID | str, path: str, target: Path) -> Path:
        """One file that a session left, to `target`: there in whole, or not at all."""
        part = target.with_name(f"{target.name}.part")
        try:
            await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
            async with self._http.stream("GET", f"/sessions/{uuid}/files/{quote(path)}") as response:
                if response.is_error:
                    raise ClientError.read(response.status_code, await response.aread())
                await _keep(response, part)
            await asyncio.to_thread(part.replace, target)
        except httpx.TransportError as error:
            raise self._no_answer(error) from error
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)
        return target

    async def follow(
        self, uuid: UUID | str, every: float | None = None, patience: float = 120
    ) -> AsyncGenerator[ScheduledExecutionSession, None]:
        """The session now, then whenever its phase changes, until the final one; with `every`, also after so many seconds.

        A broker that is away is waited for, `patience` seconds at most; then NoAnswer is raised.
        """
        known: Phase | None = None
        while True:
            wait = (every or LONG_POLL) if known else 0
            session = await _patiently(partial(self.session, uuid, wait, known), patience)
            if every or session.phase is not known:
                yield session
            if session.phase is None or session.phase.is_final:
                return
            known = session.phase

    async def events(
        self, uuid: UUID | str | None = None, after: int | None = None, patience: float = 120
    ) -> AsyncGenerator[Event, None]:
        """What happens: to one session, from its beginning to its end, or to all that is the caller's, from now on; with `after`
        what comes after the event of that number.

        A broker that is away is waited for, `patience` seconds at most, and nothing is lost or told twice.
        """
        path, silent = f"/sessions/{uuid}/events" if uuid else "/events", 0.0
        while True:
            try:
                async with aclosing(stream(self._http, path, after)) as events:
                    async for event in events:
                        after, silent = after if event.number is None else event.number, 0.0
                        if event.over:
                            return
                        if event.sort not in ("", "end"):
                            yield event
            except ValueError as error:
                raise NoAnswer(f"What answers at {self.url} tells no events: {error}") from None
            except (ClientError, httpx.TransportError) as error:
                problem = error if isinstance(error, ClientError) else self._no_answer(error)
                if not _passing(problem) or silent >= patience:
                    raise problem from error
            silent += AGAIN
            await asyncio.sleep(AGAIN)

    async def _get(self, path: str, patience: float = 0, **query: Any) -> httpx.Response:
        return await self._call("GET", path, params=query, timeout=PATIENCE + patience)

    async def _call(self, method: str, path: str, **details: Any) -> httpx.Response:
        response = await self._send(method, path, **details)
        _check(response)
        return response

    async def _send(self, method: str, path: str, **details: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **details)
        except httpx.TransportError as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> NoAnswer:
        return NoAnswer(f"The broker at {self.url} does not answer: {str(error) or type(error).__name__}")


async def _patiently(ask: Callable[[], Awaitable[T]], patience: float) -> T:
    deadline, delay = time.monotonic() + patience, 0.1
    while True:
        try:
            return await ask()
        except ClientError as error:
            if not _passing(error) or time.monotonic() + delay > deadline:
                raise
        await asyncio.sleep(delay)
        delay = min(2 * delay, 5)


def _passing(error: ClientError) -> bool:
    return isinstance(error, NoAnswer) or error.status in _AGAIN


def _known(**query: Any) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _check(response: httpx.Response) -> None:
    if response.is_error:
        raise ClientError.read(response.status_code, response.content)


def _no_broker(response: httpx.Response, error: Exception) -> NoAnswer:
    return NoAnswer(f"What answers at {response.url} is no ExecutionBroker: {' '.join(str(error).split())[:200]}")


def _read(model: type[M], response: httpx.Response) -> M:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise _no_broker(response, error) from None


def _list(model: type[M], response: httpx.Response, name: str) -> list[M]:
    try:
        return TypeAdapter(list[model]).validate_python(_document(response)[name])  # type: ignore[valid-type]
    except (KeyError, ValidationError) as error:
        raise _no_broker(response, error) from None


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        return dict(response.json())
    except (ValueError, TypeError) as error:
        raise _no_broker(response, error) from None


def _file(entry: dict[str, Any]) -> File:
    modified, _ = parse_instant(entry["modified"])
    return File(entry["path"].rstrip("/"), entry["type"] == "folder", entry["size"], modified)


async def _keep(response: httpx.Response, part: Path) -> None:
    with await asyncio.to_thread(part.open, "wb") as file:
        async for chunk in response.aiter_bytes(BLOCK):
            await asyncio.to_thread(file.write, chunk)
        await asyncio.to_thread(_settle, file)


def _settle(file: IO[bytes]) -> None:
    file.flush()
    with suppress(OSError):  # not every file system can
        os.fsync(file.fileno())
