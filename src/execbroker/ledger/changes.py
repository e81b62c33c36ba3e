import asyncio
from collections.abc import Collection
from uuid import UUID
from weakref import WeakValueDictionary

ANYTHING = UUID(int=0)
"""To be watched by who wants to know of every change."""


class Changes:
    """Tells those who wait that a session or offerset has changed, and the engine that something may be due."""

    def __init__(self) -> None:
        self._waiting: WeakValueDictionary[UUID, asyncio.Event] = WeakValueDictionary()
        self.due = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        """The broker stops: whoever waits is answered as things are."""
        self.closed = True
        for event in list(self._waiting.values()):
            event.set()

    def tell_all(self) -> None:
        """Anything may have changed."""
        self.tell(list(self._waiting), due=True)

    def tell(self, uuids: Collection[UUID], *, due: bool) -> None:
        for uuid in (*uuids, ANYTHING) if uuids else ():
            if event := self._waiting.pop(uuid, None):
                event.set()
        if due:
            self.due.set()

    def watch(self, uuid: UUID) -> asyncio.Event:
        """An event that is set at the next change. Take it before reading, so that no change falls in between."""
        return self._waiting.setdefault(uuid, asyncio.Event())
