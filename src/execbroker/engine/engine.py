import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog

from execbroker.books.books import Books
from execbroker.config import RetentionSettings
from execbroker.engine.housekeeping import Housekeeping
from execbroker.engine.steps import Steps
from execbroker.engine.writing import LEASE, Writer
from execbroker.errors import BrokerError
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import SessionRow
from execbroker.model.phases import Phase
from execbroker.model.times import Clock
from execbroker.platforms.base import Platform
from execbroker.store import Store

AT_ONCE = 64
REFRESH = 60  # seconds between two looks at what the platforms have
HOUSEKEEPING = 3600
PRESENCE = 5  # seconds between two looks for brokers that are no more
AT_START = 5  # seconds that the start waits for the platforms; who answers later is heard later
log = structlog.get_logger()


class Engine:
    """Leases the sessions that are due, takes the next step of each, writes it down, and gives the lease back.

    A restart is nothing special: whatever was under way is due, and every verb may be called again.
    """

    def __init__(
        self,
        ledger: Ledger,
        books: Books,
        platforms: Mapping[str, Platform],
        clock: Clock,
        store: Store,
        retention: RetentionSettings,
    ) -> None:
        self._ledger, self._books = ledger, books
        self._writer = Writer(ledger, books, clock)
        self._steps = Steps(ledger, books, platforms, store, self._writer)
        self._housekeeping = Housekeeping(ledger, books, platforms, store, retention)
        self._tasks: dict[asyncio.Task[None], tuple[UUID, ...]] = {}
        self._refreshed = self._cleaned = self._turned = self._checked = 0
        self._stopping = False
        self._loop: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._ledger.break_leases()
        self._refreshed = self._writer.now()
        self._begin(self._housekeeping.refresh())
        await asyncio.wait(self._tasks, timeout=AT_START)

    def run(self) -> None:
        """Go on until `close`."""
        self._loop = asyncio.create_task(self._run(), name="engine")

    async def close(self) -> None:
        """Take no new step and finish those under way; sessions go on without the broker."""
        self._stopping = True
        self._ledger.changes.due.set()
        await asyncio.gather(*filter(None, [self._loop]), return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Do all that is due now, until nothing is: the loop without the waiting, for a clock that stands still."""
        while await self.turn() or self._tasks:
            await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        while not self._stopping:
            self._ledger.changes.due.clear()
            try:
                busy = await self.turn()
            except BrokerError as error:
                log.error("engine.ledger", error=error.detail)
                busy = False
            except Exception:  # whatever it is, the engine goes on: without it nothing would ever run again
                log.exception("engine.turn_failed")
                busy = False
            if not busy:
                await self._pause()

    async def _pause(self) -> None:
        """Until something becomes due or finishes; a second at most, so that a stepped clock is noticed."""
        waker = asyncio.create_task(self._ledger.changes.due.wait())
        await asyncio.wait({waker, *self._tasks}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        waker.cancel()

    async def turn(self) -> bool:
        """Begin whatever is due; False where nothing was."""
        now = self._writer.now()
        if (expiry := self._books.next_expiry) is not None and expiry <= now:
            await self._books.expire()
        if abs(now - self._refreshed) >= REFRESH:
            self._refreshed = now
            self._begin(self._housekeeping.refresh())
        if abs(now - self._cleaned) >= HOUSEKEEPING:
            self._cleaned = now
            self._begin(self._guarded(self._housekeeping.clean(now)))
        if now < self._turned:
            await self._ledger.recall(now)
        self._turned = now
        if self._ledger.database.shared and abs(now - self._checked) >= PRESENCE:
            self._checked = now
            await self._ledger.break_leases()
            await self._books.expire()  # and so follow the others, lest there be too much to take over at once
        room = AT_ONCE - len(self._tasks)
        due = await self._ledger.next_due() if room > 0 else None
        if due is None or due > now:
            return False
        under_way = {uuid for uuids in self._tasks.values() for uuid in uuids}  # a clock that jumps must not end their lease
        rows = await self._books.write(lambda transaction, _: self._ledger.lease(transaction, now, LEASE, room, under_way))
        running = [row for row in rows if row.phase is Phase.RUNNING]
        for platform in {row.slot.platform for row in running if row.slot}:
            here = [row for row in running if row.slot and row.slot.platform == platform]
            self._begin(self._guarded(self._steps.poll(platform, here), *here), *here)
        for row in rows:
            if row.phase is not Phase.RUNNING:
                self._begin(self._guarded(self._steps.advance(row), row), row)
        return bool(rows)

    def _begin(self, work: Any, *rows: SessionRow) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = tuple(row.uuid for row in rows)
        task.add_done_callback(self._tasks.pop)

    async def _guarded(self, work: Awaitable[None], *rows: SessionRow) -> None:
        """A ledger that cannot be written, or a bug, costs this step, never the engine."""
        try:
            await work
            return
        except BrokerError as error:
            log.error("engine.step", sessions=[str(row.uuid) for row in rows], error=error.detail)
        except Exception:
            log.exception("engine.step_failed", sessions=[str(row.uuid) for row in rows])
        await asyncio.gather(*(self._leave_off(row) for row in rows))

    async def _leave_off(self, row: SessionRow) -> None:
        """Give the lease back, as soon as the ledger can be written again; it would end by itself, but not soon."""
        while not self._stopping:
            await asyncio.sleep(1)
            with suppress(BrokerError):
                await self._writer.leave_off(row)
                return
