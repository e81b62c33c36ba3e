import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid4

import structlog

from execbroker.books.following import Following
from execbroker.books.holdings import Holdings
from execbroker.errors import BrokerError, Busy, IllegalMove, Interrupted, NoRoom, NotFound, Outdated
from execbroker.faults import reach
from execbroker.ledger.database import PATIENCE
from execbroker.ledger.journal import News
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.replies import Repeated, keyed, take
from execbroker.ledger.transaction import Transaction
from execbroker.model.times import Clock

T = TypeVar("T")
Operation = Callable[[Transaction, int], Awaitable[T]]

QUEUE = 1024
BATCH = 64
RETRY = 0.1  # seconds
GRACE = 0.5  # seconds
FRESH = 0.05  # seconds
log = structlog.get_logger()


class Waiting(NamedTuple):
    """`ahead`: an operation that only holds what it finds, and writes no more than new rows, so that it may be done before it is
    the turn of this broker. `session`: what it will look at. `since`: when it came, by a clock that only goes forward."""

    operation: Operation[Any]
    future: asyncio.Future[Any]
    ahead: bool = False
    session: UUID | None = None
    since: float = 0.0


@dataclass(slots=True)
class Attempt:
    """A transaction under a name of its own, by which it is known again where its commit was interrupted."""

    name: str = field(default_factory=lambda: str(uuid4()))
    transaction: Transaction | None = None
    answers: list[Any] = field(default_factory=list)
    again: bool = False
    done: bool = False
    """Whether what it answers is known to be committed."""

    @property
    def uncertain(self) -> bool:
        """Whether it may have been committed, after all."""
        return self.transaction is not None and self.transaction.ending


class Batches:
    """Operations queue up; one task takes all that wait, does them in memory and in one transaction, and answers after the
    commit. Where the commit fails, memory is put back as it was.

    `first` is done at the beginning of every transaction and `last` at its end, where that is True once more soon after.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        holdings: Holdings,
        following: Following,
        first: Operation[None],
        last: Operation[bool],
    ) -> None:
        self._ledger, self._clock, self._holdings = ledger, clock, holdings
        self._following, self._first, self._last = following, first, last
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue(QUEUE)
        self._worker: asyncio.Task[None] | None = None
        self._followed = 0.0
        self._doubtful: Attempt | None = None
        """The last attempt at what is being done, where nobody knows whether it was committed."""

    def open(self) -> None:
        self._worker = asyncio.create_task(self._work(), name="books")

    async def close(self) -> None:
        """Finish what waits, then stop."""
        await self._queue.join()
        if self._worker:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """How many operations wait for their turn."""
        return self._queue.qsize()

    async def do(self, operation: Operation[T], *, ahead: bool = False, session: UUID | None = None) -> T:
        """Do this in the next transaction, and once only where the request has a key. Raises Busy, Repeated, and whatever the
        operation or the commit raises."""
        if once := take():
            operation, ahead = keyed(operation, once), False
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(Waiting(operation, future, ahead, session, time.monotonic()))
        except asyncio.QueueFull:
            raise Busy(f"{QUEUE} requests are waiting already") from None
        return await future

    async def _work(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                await self._commit(batch)
            except Exception as error:  # a bug: those who wait are told, and the others have their turn
                log.exception("books.batch_failed")
                _answer(batch, [BrokerError(f"The books failed: {error}")] * len(batch))
            finally:
                for _ in batch:
                    self._queue.task_done()

    async def _commit(self, batch: list[Waiting]) -> None:
        """A transaction that was interrupted is made again, for a while, unless it turns out to be committed. Who has waited
        long already, behind others, does not wait as long again."""
        until = max(time.monotonic() + GRACE, max(one.since for one in batch) + PATIENCE)
        self._doubtful = None
        while True:
            attempt = Attempt()
            try:
                await self._transact(batch, attempt)
            except Exception as error:  # whatever it was, what is not known to be committed may not stay in memory
                self._holdings.undo()
                if isinstance(error, Interrupted):
                    self._doubtful = attempt if attempt.uncertain else self._doubtful
                    if time.monotonic() < until:
                        await asyncio.sleep(RETRY)
                        continue
                if not isinstance(error, BrokerError):
                    log.exception("books.commit_failed")
                attempt = Attempt(answers=[self._told(error)] * len(batch))
            break
        if attempt.again and self._queue.empty():
            self._queue.put_nowait(Waiting(nothing, _nobody()))
        self._holdings.settle()
        _answer(batch, attempt.answers)

    def _told(self, error: Exception) -> BrokerError:
        if self._doubtful:
            return Interrupted("The database went away while this was written down: look whether it was, before you ask again")
        if isinstance(error, BrokerError):
            return error
        return BrokerError("The ledger could not be written; nothing was changed")

    def _settled(self, news: News | None) -> Attempt | None:
        """The attempt before this one, where it was committed after all, as the news tell."""
        doubtful = self._doubtful
        if doubtful and not doubtful.done and not (news and doubtful.name in news.writers):
            self._doubtful = None
        return self._doubtful

    async def _transact(self, batch: list[Waiting], attempt: Attempt) -> None:
        """Make this attempt, or find that the one before it was committed."""
        now = int(self._clock.now().timestamp())
        self._holdings.forget_the_past(now)
        shared = self._ledger.database.shared
        transaction = attempt.transaction = Transaction(self._ledger.database)
        answers = await self._look_ahead(batch, transaction, now) if shared else {}
        wanted = {one.session for one in batch if one.session}
        async with self._ledger.write(self._following.entry.seq, transaction, wanted):
            transaction.time = self._clock.agreed(transaction.time)
            news = await self._following.follow(transaction, now) if shared else None
            self._followed = time.monotonic()
            done = self._settled(news)
            if answers and (done or not (news and news.whole) or self._holdings.overdrawn()):
                self._holdings.undo()
                transaction.start_over()
                answers.clear()
            if done:  # it is written once more that it was, so that a standby has it as well before anybody is told
                attempt.answers, attempt.again, attempt.done = done.answers, done.again, True
            else:
                await self._do(batch, answers, attempt, transaction, now)
            if shared and (done or transaction.writes):
                self._following.publish(transaction, attempt.name, now)
            reach("books.writing" if transaction.writes else "books.reading")
        reach("books.written" if transaction.changed else "books.read")
        if shared and transaction.changed:
            self._following.published(attempt.name)

    async def _do(
        self, batch: list[Waiting], answers: dict[int, Any], attempt: Attempt, transaction: Transaction, now: int
    ) -> None:
        """All that has no answer yet."""
        await self._first(transaction, now)
        for index, one in enumerate(batch):
            if index not in answers:
                answers[index] = await _attempt(one.operation, transaction, now)
        attempt.answers = [answers[index] for index in range(len(batch))]
        attempt.again = await self._last(transaction, now)

    async def _look_ahead(self, batch: list[Waiting], transaction: Transaction, now: int) -> dict[int, Any]:
        """While others have their turn, find and hold what the last that is known of the timeline has room for. When it is the
        turn of this broker, and others have taken some of it meanwhile, all of this is done again."""
        fresh = time.monotonic() - self._followed < FRESH
        if not fresh or self._holdings.is_due(now):
            return {}
        return {index: await _attempt(one.operation, transaction, now) for index, one in enumerate(batch) if one.ahead}


async def nothing(transaction: Transaction, now: int) -> None:
    """What is due is done with every transaction."""


def _nobody() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


async def _attempt(operation: Operation[T], transaction: Transaction, now: int) -> T | BrokerError:
    """The operation's result; a refusal is its own, and leaves the others of the batch alone."""
    try:
        return await operation(transaction, now)
    except (IllegalMove, NoRoom, NotFound, Outdated, Repeated) as refusal:
        return refusal


def _answer(batch: Iterable[Waiting], answers: Iterable[Any]) -> None:
    for (_, future, *_), answer in zip(batch, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
