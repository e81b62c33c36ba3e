import asyncio
from collections.abc import Collection
from uuid import UUID
from weakref import WeakValueDictionary


class Changes:
    """Tells those who wait that a session or offerset has changed, and the engine that something may be due."""

    def __init__(self) -> None:
        self._waiting: WeakValueDictionary[UUID, asyncio.Event] = WeakValueDictionary()
        self._anything = asyncio.Event()
        self.due = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        """The broker stops: whoever waits is answered as things are."""
        self.closed = True
        for event in [*self._waiting.values(), self._anything]:
            event.set()

    def tell_all(self) -> None:
        """Anything may have changed."""
        self.tell(list(self._waiting), due=True)
        self._tell_of_anything()

    def tell(self, uuids: Collection[UUID], *, due: bool) -> None:
        for uuid in uuids:
            if event := self._waiting.pop(uuid, None):
                event.set()
        if uuids:
            self._tell_of_anything()
        if due:
            self.due.set()

    def _tell_of_anything(self) -> None:
        self._anything.set()
        self._anything = asyncio.Event()

    def watch_all(self) -> asyncio.Event:
        """An event that is set at the next change, whatever it is. Take it before reading, too."""
        return self._anything

    def watch(self, uuid: UUID) -> asyncio.Event:
        """An event that is set at the next change. Take it before reading, so that no change falls in between."""
        return self._waiting.setdefault(uuid, asyncio.Event())
