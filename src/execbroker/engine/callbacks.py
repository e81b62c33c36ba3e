import asyncio
import base64
import hashlib
import hmac
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import structlog

from execbroker import __version__
from execbroker.books.books import Books
from execbroker.config import CallbackSettings
from execbroker.errors import BrokerError
from execbroker.ledger import callbacks
from execbroker.ledger.events import Event, Events
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import CallbackRow
from execbroker.model.messages import MessageItem
from execbroker.model.sessions import Callback, RegisteredCallback
from execbroker.model.times import Clock
from execbroker.offers.calling import SECRET, reasons_against, registered
from execbroker.staging.base import Forbidden, Interrupted
from execbroker.staging.guard import Guard, read_url
from execbroker.staging.pinned import Pinned

EVENTS = 20
"""How many one of them is told in a row, when others may be waiting."""
FIRST_WAIT = 1  # seconds
PAUSE = 0.2  # seconds between two looks into the ledger
EVERY = 5  # seconds, for what another broker has left behind
STOPPING = 2  # seconds that the broker, when it stops, waits for answers
GONE = "410"
HEADERS = {"User-Agent": f"execbroker/{__version__}", "Content-Type": "application/json"}
log = structlog.get_logger()


class Callbacks:
    """Tells those whom requests have named of what happens: of each event by a POST that is signed (Standard Webhooks), in
    order, until it is answered with success.

    What is still to be told is in the ledger, so that it survives the broker. Of several brokers one at a time tells a callback.
    """

    def __init__(self, ledger: Ledger, books: Books, clock: Clock, settings: CallbackSettings) -> None:
        self._ledger, self._books, self._clock, self._settings = ledger, books, clock, settings
        self._store, self._events = callbacks.Callbacks(ledger), Events(ledger)
        self._guard = Guard(settings.allow_private, "callbacks.allow_private")
        self._http = Pinned(self._guard)
        self._lease = int(settings.timeout.total_seconds()) + 30
        self._looked: int | None = None
        """Up to which event it is known whom it concerns."""
        self._tasks: dict[asyncio.Task[None], UUID] = {}
        self._loop: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def reasons_against(self, wanted: list[Callback]) -> Iterator[MessageItem]:
        """All that forbids these, as far as can be said without asking anyone."""
        return reasons_against(wanted, self._settings, self._guard)

    async def registered(self, offerset: UUID) -> list[RegisteredCallback] | None:
        """Those of an offerset, as its owner sees them; None where there are none."""
        return registered(await self._store.of_offerset(offerset))

    def run(self) -> None:
        """Go on until `close`."""
        self._loop = asyncio.create_task(self._run(), name="callbacks")

    async def close(self) -> None:
        """What is under way may still be answered, for a moment; what is not will be told again."""
        self._stopping.set()
        await asyncio.gather(*filter(None, [self._loop]), return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOPPING)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            changed = self._ledger.changes.watch_all()
            due: int | None = None
            try:
                await self._turn()
                due = await self._store.next_due()  # of what is under way, when its lease ends
            except BrokerError as error:
                log.warning("callbacks.ledger", error=error.detail)
            except Exception:  # whatever it is, the others are still to be told
                log.exception("callbacks.turn_failed")
            await self._pause(changed, EVERY if due is None else min(max(due - self._now(), 1), EVERY))

    async def _pause(self, changed: asyncio.Event, seconds: float) -> None:
        """Until something happens, or somebody was told all, but a moment at least: many events are one look."""
        await asyncio.sleep(PAUSE)
        wakers = [asyncio.create_task(event.wait()) for event in (changed, self._stopping)]
        await asyncio.wait([*wakers, *self._tasks], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for waker in wakers:
            waker.cancel()

    async def _turn(self) -> None:
        """Find out whom new events concern, and begin to tell those for whom something is due."""
        last = await self._events.last()  # before all else: what comes later is for the next time
        if not await self._store.any_open():
            self._looked = last
            return
        if self._looked is None:
            self._looked = await self._store.first_position() or 0
        concerned = await self._store.concerned(self._looked, last) if last > self._looked else []
        room, due = self._settings.at_once - len(self._tasks), await self._store.next_due()
        if concerned or (room and due is not None and due <= self._now()):
            rows = await self._books.write(
                lambda transaction, now: self._store.take(transaction, concerned, now, self._lease, room, self._tasks.values())
            )
            for row in rows:
                task = asyncio.create_task(self._guarded(row))
                self._tasks[task] = row.uuid
                task.add_done_callback(self._tasks.pop)
        self._looked = last

    async def _guarded(self, row: CallbackRow) -> None:
        """Where the ledger cannot be written, or is a bug, the lease ends by itself, and it is told again."""
        try:
            await self._tell(row)
        except BrokerError as error:
            log.warning("callbacks.ledger", callback=str(row.uuid), error=error.detail)
        except Exception:
            log.exception("callbacks.failed", callback=str(row.uuid))

    async def _tell(self, row: CallbackRow) -> None:
        """Tell it what is new, a number of events at most."""
        page = await self._events.of_offerset(row.offerset, row.position, EVENTS)
        for event in page.events:
            if self._stopping.is_set():
                break
            if wants(row, event):
                failure = await self._post(row, event)
                if failure is not None:
                    await self._put_off(row, failure)
                    return
                row = replace(row, position=event.seq, tries=0, failure=None)
                if not await self._write(row, self._lease):
                    return
            row = replace(row, position=event.seq)
        done = await self._books.write(lambda transaction, _: self._store.settle(transaction, row))
        if not done:
            await self._write(replace(row, due=self._now()))

    async def _put_off(self, row: CallbackRow, failure: str) -> None:
        """Try again, later each time, and not all who failed together together."""
        if failure.startswith(GONE):
            await self._write(replace(row, ended="GONE", failure=failure, due=None))
            return
        if row.tries == 0:
            log.warning("callback.failed", callback=str(row.uuid), error=failure)
        longest = self._settings.longest_wait.total_seconds()
        wait = min(FIRST_WAIT * 2 ** min(row.tries, 30), longest) * random.uniform(0.5, 1)  # noqa: S311 -- it is no secret
        due = self._now() + max(round(wait), 1)
        await self._write(replace(row, tries=row.tries + 1, failure=failure, due=due))

    async def _write(self, row: CallbackRow, seconds: int | None = None) -> bool:
        """How it stands, and that it is ours for so many seconds more, or given back; False where it was no longer ours."""
        return await self._books.write(lambda transaction, _: self._store.write(transaction, row, seconds))

    async def _post(self, row: CallbackRow, event: Event) -> str | None:
        """Why it was not told; None where it was."""
        body, now = body_of(event), self._now()
        try:
            async with asyncio.timeout(self._settings.timeout.total_seconds()):
                url = read_url(row.url)
                if url.scheme != "https" and not self._settings.allow_http:
                    return "only https: is allowed here"
                reply = await self._http.send("POST", url, HEADERS | signed(row, event.seq, now, body), body)
                await reply.aclose()
        except TimeoutError:
            return f"no answer within {self._settings.timeout.total_seconds():g} s"
        except (Forbidden, Interrupted) as error:
            return str(error)
        return None if reply.is_success else f"{reply.status_code} {reply.reason_phrase}".rstrip()

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def wants(row: CallbackRow, event: Event) -> bool:
    """Whether this event is one of those that a callback names."""
    if row.events is None:
        return True
    sort = event.phase.value if event.sort == "phase" else event.sort
    return sort in row.events or (event.message is not None and "message" in row.events)


def body_of(event: Event) -> bytes:
    """What is posted, the same at every try."""
    head = json.dumps({"type": f"session.{event.sort}", "timestamp": event.instant, "id": event.seq})
    return f'{head[:-1]}, "data": {event.data}}}'.encode()


def signed(row: CallbackRow, number: int, now: int, body: bytes) -> dict[str, str]:
    """The headers of the Standard Webhooks specification: who is told knows by them that it was us, and what it knows already."""
    name = f"{row.uuid}-{number}"
    key = base64.b64decode(row.secret.removeprefix(SECRET))
    signature = hmac.digest(key, f"{name}.{now}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": name,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
