import asyncio
from collections.abc import Mapping

import structlog

from execbroker.books import Books
from execbroker.config import RetentionSettings
from execbroker.errors import Unreachable
from execbroker.ledger.ledger import Ledger
from execbroker.platforms.base import Platform
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

    async def refresh(self) -> None:
        """Ask every platform what it has now; one that does not answer keeps what it had."""
        await asyncio.to_thread(self._ledger.reserve.restore)
        await asyncio.gather(*(self._look_at(platform) for platform in self._platforms.values()))

    async def _look_at(self, platform: Platform) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                self._books.set_capacity(platform.name, await platform.capacity())
        except (Unreachable, TimeoutError) as error:
            log.warning("platform.unreachable", platform=platform.name, error=str(error))
        except Exception:
            log.exception("platform.capacity_failed", platform=platform.name)

    async def clean(self, now: int) -> None:
        """Delete what the retention settings say is old: files first, so that none is left without its row."""
        before = now - int(self._retention.sessions.total_seconds())
        while old := await self._ledger.old_sessions(before):
            for uuid in old:
                await asyncio.to_thread(self._store.remove, uuid)
            await self._ledger.forget(old)
        await self._ledger.purge(before, now - int(self._retention.offersets.total_seconds()))
