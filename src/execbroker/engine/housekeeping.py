import asyncio
from collections.abc import Iterator, Mapping
from zoneinfo import ZoneInfo

import structlog

from execbroker.books.books import Books
from execbroker.config import RetentionSettings
from execbroker.errors import BrokerError, Unreachable
from execbroker.ledger import replies
from execbroker.ledger.ledger import Ledger
from execbroker.model.prices import Calendar, Tariff
from execbroker.platforms.base import Platform, PlatformSettings
from execbroker.scheduling.timeline import Kept
from execbroker.store import Store

PATIENCE = 60
log = structlog.get_logger()


class Housekeeping:
    """What has to be done from time to time, whatever the sessions do."""

    def __init__(
        self, ledger: Ledger, books: Books, platforms: Mapping[str, Platform], store: Store, retention: RetentionSettings
    ) -> None:
        self._ledger, self._books, self._platforms = ledger, books, platforms
        self._store, self._retention = store, retention
        self._kept = {name: tuple(kept_of(platform.settings)) for name, platform in platforms.items()}

    async def refresh(self) -> None:
        """Ask every platform what it has now; one that does not answer keeps what it had."""
        await asyncio.to_thread(self._ledger.database.set_room_aside)
        await asyncio.gather(*(self._look_at(platform) for platform in self._platforms.values()))

    async def _look_at(self, platform: Platform) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                capacity = await platform.capacity()
        except (Unreachable, TimeoutError) as error:
            log.warning("platform.unreachable", platform=platform.name, error=str(error))
            return
        except Exception:
            log.exception("platform.capacity_failed", platform=platform.name)
            return
        try:
            await self._books.learn(platform.name, capacity, self._kept[platform.name])
        except BrokerError as error:
            log.error("books.capacity_not_written", platform=platform.name, error=error.detail)

    async def clean(self, now: int) -> None:
        """Delete what the retention settings say is old: files first, so that none is left without its row."""
        before = now - int(self._retention.sessions.total_seconds())
        while old := await self._ledger.old_sessions(before):
            for uuid in old:
                await asyncio.to_thread(self._store.remove, uuid)
            await self._ledger.forget(old)
        await self._ledger.purge(before, now - int(self._retention.offersets.total_seconds()))
        await replies.forget(self._ledger, now - int(self._retention.replies.total_seconds()))


def kept_of(settings: PlatformSettings) -> Iterator[Kept]:
    """What a platform keeps for interactive work, as the timeline takes it."""
    for one in settings.kept:
        hours = Tariff.model_construct(from_=one.from_, until=one.until, days=one.days, factor=0)
        yield Kept(one.share, Calendar(ZoneInfo(one.zone), (hours,)))
