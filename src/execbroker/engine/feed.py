import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

import structlog

from execbroker.errors import BrokerError
from execbroker.ledger.events import Event, Events, Page
from execbroker.ledger.ledger import Ledger

MOST_KEPT = 500
"""Events that are kept for one follower; who has more to read reads them from the ledger."""
READERS = 2
"""How many of the connections to the ledger are for followers, however many come at once: each waits for its turn."""
log = structlog.get_logger()

End = Literal["final", "renew", "stopping"]


class News(NamedTuple):
    """What a follower is told: `events`, none where there is nothing new; with them it knows all until the number `position`.

    With a `gap` some of what it asked for, until that number, is not there. With an `end` it was the last: the session is over,
    it has followed for long enough, or the broker stops.
    """

    events: Sequence[Event]
    position: int
    gap: int | None = None
    end: End | None = None


class Followed(NamedTuple):
    """What somebody follows: all that is an owner's, or one session of theirs."""

    owner: str
    session: str | None = None


class Follower:
    """What is there for one who follows, until they take it."""

    def __init__(self, followed: Followed) -> None:
        self.followed = followed
        self.fresh: deque[Event] = deque()
        self.behind = True
        """Whether there is more in the ledger than is `fresh`."""
        self.woken = asyncio.Event()

    def tell(self, event: Event) -> None:
        if len(self.fresh) >= MOST_KEPT:
            self.behind = True
            self.fresh.clear()
        elif not self.behind:
            self.fresh.append(event)
        self.woken.set()


class Feed:
    """Tells any number of followers what happens, when it is committed: the ledger is read once for all of them. Each may begin
    anywhere and read as slowly as it likes: what it cannot take is read from the ledger when it comes to it.

    `heartbeat` is after how many seconds a follower is told that there is nothing new, `lasts` how long it may follow; `pause`
    lies between two looks into the ledger.
    """

    def __init__(self, ledger: Ledger, *, heartbeat: float = 15, lasts: float = 3600, pause: float = 0.05) -> None:
        self.events = Events(ledger)
        self._changes = ledger.changes
        self._heartbeat, self._lasts, self._pause = heartbeat, lasts, pause
        self._followers: dict[Followed, set[Follower]] = {}
        self._position: int | None = None
        """All until there was passed on; None where nobody follows."""
        self.readers = asyncio.Semaphore(READERS)
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._run(), name="feed")

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            changed = self._changes.watch_all()
            try:
                more = await self._pass_on()
            except BrokerError as error:
                log.warning("feed.ledger", error=error.detail)
                more = False
            except Exception:  # whatever it is, it goes on: without it nobody would be told anything
                log.exception("feed.failed")
                more = False
            if self._changes.closed:
                for follower in self._all():
                    follower.woken.set()
                return
            if not more:
                await _happens(changed, self._heartbeat)
            await asyncio.sleep(self._pause)

    def _all(self) -> list[Follower]:
        return [follower for followers in self._followers.values() for follower in followers]

    async def _pass_on(self) -> bool:
        """Whether there may be more."""
        if not self._followers:
            self._position = None
        if self._position is None:
            return False
        page = await self.events.page(self._position)
        for event in page.events:
            for followed in (Followed(event.owner), Followed(event.owner, event.session)):
                for follower in self._followers.get(followed, ()):
                    follower.tell(event)
        self._position = page.position
        return page.more

    async def knows_all(self, session: str, after: int) -> bool:
        """Whether nothing comes after this number in a session that is over."""
        return after <= await self.events.last() and not (await self.events.of_session(session, after)).events

    async def follow(self, followed: Followed, after: int | None, *, over: bool = False) -> AsyncGenerator[News, None]:
        """All that comes after the number `after`, or from now on; first where that is. It ends with the session, which is `over`
        where nothing more will happen to it. Raises BrokerError where the ledger cannot be read."""
        follower = Follower(followed)
        self._followers.setdefault(followed, set()).add(follower)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._lasts
        try:
            async with self.readers:
                news = await self._begin(followed, after)
            yield news
            after = news.position
            while not self._changes.closed and loop.time() < until:
                follower.woken.clear()
                news = await self._next(follower, after)
                after = news.position
                if news.events:
                    yield news
                    if followed.session and news.events[-1].phase.is_final:  # the rest was committed with it
                        over = follower.behind = True
                elif over and not follower.behind:
                    yield News((), after, end="final")
                    return
                elif not follower.behind and not await _happens(follower.woken, self._heartbeat):
                    after = max(after, self._position or 0)
                    yield News((), after)
            yield News((), after, end="stopping" if self._changes.closed else "renew")
        finally:
            self._leave(follower)

    async def _begin(self, followed: Followed, after: int | None) -> News:
        if self._position is None or after is None or after > self._position:
            last = await self.events.last()
            if self._position is None:  # what comes now is passed on
                self._position = last
            if after is None:
                return News((), last)
            if after > last:  # it is of a ledger that is no more: one from a backup took its place
                return News((), last, gap=last)
        until = 0 if followed.session else await self.events.forgotten(followed.owner)
        return News((), after, gap=until if until > after else None)

    def _leave(self, follower: Follower) -> None:
        others = self._followers[follower.followed]
        others.remove(follower)
        if not others:
            del self._followers[follower.followed]

    async def _next(self, follower: Follower, after: int) -> News:
        """What is there to be taken now."""
        if not follower.behind:
            fresh = [event for event in follower.fresh if event.seq > after]
            follower.fresh.clear()
            return News(fresh, fresh[-1].seq if fresh else after)
        follower.behind = False
        follower.fresh.clear()
        async with self.readers:
            page = await self._read(follower.followed, after)
        follower.behind |= page.more
        return News(page.events, page.position)

    async def _read(self, followed: Followed, after: int) -> Page:
        if followed.session:
            return await self.events.of_session(followed.session, after)
        return await self.events.of_owner(followed.owner, after)


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether it has, also just after the time was over: who is told that nothing is new must have nothing waiting."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
