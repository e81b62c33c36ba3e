import asyncio
from collections.abc import Iterable, Mapping

from execbroker.model.times import Clock
from execbroker.staging.base import Fetcher, Forbidden, Found, Interrupted, Missing
from execbroker.staging.guard import scheme_of

Outcome = Found | Forbidden | Missing | Interrupted

SECONDS_FOR_ALL = 2
AT_ONCE = 16
REMEMBERED = 60
MOST = 10_000


class Probes:
    """What there is at URLs: looked up in parallel, within two seconds for all of them, and remembered for a minute."""

    def __init__(self, fetchers: Mapping[str, Fetcher], clock: Clock) -> None:
        self._fetchers, self._clock = fetchers, clock
        self._outcomes: dict[str, tuple[float, Outcome]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._late: set[asyncio.Task[None]] = set()

    async def look(self, urls: Iterable[str]) -> dict[str, Outcome]:
        """The outcome for every URL, all of known schemes; Interrupted for those that have not answered in time."""
        self._forget_old()
        wanted = set(urls)
        if tasks := {asyncio.create_task(self._probe(url)) for url in wanted - self._outcomes.keys()}:
            try:
                await asyncio.wait(tasks, timeout=SECONDS_FOR_ALL)
            finally:
                self._leave(tasks)
        for url in wanted - self._outcomes.keys():
            self._remember(url, Interrupted(f"no answer within {SECONDS_FOR_ALL} s"))
        return {url: self._outcomes[url][1] for url in wanted}

    async def close(self) -> None:
        await asyncio.gather(*self._late, return_exceptions=True)

    async def _probe(self, url: str) -> None:
        async with self._slots:
            try:
                self._remember(url, await self._fetchers[scheme_of(url)].probe(url))
            except (Forbidden, Missing, Interrupted) as outcome:
                self._remember(url, type(outcome)(str(outcome)))

    def _leave(self, tasks: set[asyncio.Task[None]]) -> None:
        """Cancel what has not answered, without waiting: closing a connection may take its time too."""
        for task in tasks:
            if not task.done():
                task.cancel()
                self._late.add(task)
                task.add_done_callback(self._ended)
            elif not task.cancelled():
                task.result()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()

    def _remember(self, url: str, outcome: Outcome) -> None:
        self._outcomes[url] = (self._clock.monotonic() + REMEMBERED, outcome)

    def _forget_old(self) -> None:
        now = self._clock.monotonic()
        if len(self._outcomes) > MOST:
            self._outcomes.clear()
        self._outcomes = {url: known for url, known in self._outcomes.items() if known[0] > now}
