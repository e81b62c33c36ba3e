from collections.abc import Awaitable, Callable

from execbroker.books.accounting import Accounting
from execbroker.books.holdings import Holdings
from execbroker.books.pulling import Pulling
from execbroker.ledger.journal import FIRST, Entry, News, publish, read_news, sessions_of
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.transaction import Transaction


class Following:
    """Where several brokers share a ledger, each begins its transactions by taking over what the others have written before,
    and ends them by telling what it has changed.

    `relearn` is told of platforms that have become another size.
    """

    def __init__(
        self,
        ledger: Ledger,
        holdings: Holdings,
        pulling: Pulling,
        accounting: Accounting,
        relearn: Callable[[Transaction, str], Awaitable[None]],
    ) -> None:
        self._ledger, self._holdings, self._pulling, self._accounting = ledger, holdings, pulling, accounting
        self._relearn = relearn
        self.entry = FIRST
        """The entry of the journal up to which memory is as the ledger is."""

    async def reload(self, now: int) -> None:
        """Read everything back. What is written meanwhile is followed afterwards."""
        last = await self._ledger.written()
        await self._holdings.reload(now)
        await self._accounting.reload(self._ledger, now)
        self._pulling.load(await self._ledger.waiting())
        self.entry = last  # only now: where it is interrupted, it is to be done again

    async def follow(self, transaction: Transaction, now: int) -> News:
        """What has been written since this was last done. Where it is not whole, all was undone that was not committed, and
        everything read anew."""
        news = read_news(transaction.news, self.entry)
        if not news.whole:
            self._holdings.undo()
            await self.reload(now)
            for platform in list(self._holdings.timeline.sites):
                await self._relearn(transaction, platform)
            return news
        waiting = await sessions_of(transaction, news.waiting) if news.waiting else {}
        for holder, pieces in news.held.items():
            self._holdings.follow(holder, pieces, news.offered.get(holder))
            self._pulling.follow(holder, waiting.get(holder))
        await self._accounting.follow(transaction, news.held)
        for platform in news.platforms:
            await self._relearn(transaction, platform)
        self.entry = news.last
        return news

    def publish(self, transaction: Transaction, name: str, now: int) -> None:
        """The next entry of the journal, under the name of this transaction."""
        waiting = [holder for holder in transaction.holders if self._pulling.waits(holder)]
        publish(transaction, self.entry.seq + 1, name, now, self._holdings.of, waiting)

    def published(self, name: str) -> None:
        """What was published is committed."""
        self.entry = Entry(self.entry.seq + 1, name)
