import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from uuid import UUID

from execbroker.ledger.journal import Offered
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.transaction import Transaction
from execbroker.scheduling.timeline import Booking, Place, Timeline, core_seconds

PAST = 3600  # seconds of the past that are kept in memory, against a clock that steps back


class Holdings:
    """Who holds what: the timeline, and each holder's pieces of it, in memory as they are in the ledger.

    What changes within a transaction can be undone, where that is not committed.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.timeline = Timeline()
        self._held: dict[UUID, list[Booking]] = {}
        self._owners: dict[UUID, str] = {}
        self._expiries: list[tuple[int, UUID]] = []
        self._undo: list[Callable[[], None]] = []
        self._taken: list[Booking] = []
        self._known_from = 0
        self._given_up: list[UUID] = []
        self.freed: set[str] = set()
        """The platforms on which something has come free since this was last emptied."""
        self.offered: dict[str, int] = defaultdict(int)
        """Core-seconds in offers that may still be accepted, by owner."""

    async def reload(self, now: int) -> None:
        """Read everything back."""
        self._held.clear()
        self._owners.clear()
        self._expiries.clear()
        self.offered.clear()
        for holder, booking in await self._ledger.bookings():
            self._held.setdefault(holder, []).append(booking)
        for uuid, owner, expires in await self._ledger.open_offersets():
            self._expiries.append((expires, uuid))
            if uuid not in self._owners:
                self._owners[uuid] = owner
                self.offered[owner] += core_seconds(self._held.get(uuid, []))
        heapq.heapify(self._expiries)
        self._known_from = now - PAST
        self._take_anew()

    def of(self, holder: UUID) -> list[Booking]:
        return self._held.get(holder, [])

    def on(self, places: set[Place], since: int) -> list[UUID]:
        """Who holds something of these places after `since`."""
        return [holder for holder, pieces in self._held.items() if any(one.place in places and one.end > since for one in pieces)]

    def hold(self, transaction: Transaction, holder: UUID, pieces: list[Booking], owner: str | None = None) -> None:
        """Book in memory and in the transaction; for an offerset, with its `owner`."""
        if not pieces:
            return
        transaction.book(holder, pieces)
        before = self._held.get(holder, [])
        if owner is not None:
            self._owners[holder] = owner
        self._put(holder, [*before, *pieces], taken=pieces)
        self._taken += pieces
        self._undo.append(lambda: self._put(holder, before, given=pieces))

    def release(self, transaction: Transaction, holder: UUID) -> None:
        if pieces := self._held.get(holder):
            transaction.unbook(holder)
            self._put(holder, [], given=pieces)
            self._given_up.append(holder)
            self._undo.append(partial(self._put, holder, pieces, taken=pieces))

    def _put(self, holder: UUID, pieces: list[Booking], *, taken: Iterable[Booking] = (), given: Iterable[Booking] = ()) -> None:
        self.timeline.take(taken)
        self.timeline.give(given)
        if owner := self._owners.get(holder):
            self.offered[owner] += core_seconds(taken) - core_seconds(given)
        self.freed.update(piece.place.platform for piece in given)
        if pieces:
            self._held[holder] = pieces
        else:
            self._held.pop(holder, None)

    def follow(self, holder: UUID, pieces: list[Booking], offered: Offered | None) -> None:
        """Another broker has changed what this one holds; where its offers are news, they are `offered`."""
        if offered and pieces:
            self._owners[holder] = offered.owner
            for expires in offered.expiries:
                heapq.heappush(self._expiries, (expires, holder))
        freed = set(self.freed)
        self._put(holder, pieces, taken=pieces, given=self.of(holder))
        self.freed = freed  # who has freed it also sees to it who may have it
        self._given_up.append(holder)

    def expect(self, expires: int, offerset: UUID) -> None:
        """An offer of this offerset expires then."""
        entry = (expires, offerset)
        heapq.heappush(self._expiries, entry)
        self._undo.append(partial(self._expect_no_more, entry))

    def _expect_no_more(self, entry: tuple[int, UUID]) -> None:
        self._expiries.remove(entry)
        heapq.heapify(self._expiries)

    @property
    def next_expiry(self) -> int | None:
        return self._expiries[0][0] if self._expiries else None

    def is_due(self, now: int) -> bool:
        """Whether an offer has expired."""
        return bool(self._expiries) and self._expiries[0][0] <= now

    def expired(self, now: int) -> list[UUID]:
        """The offersets of which an offer has expired since this was last asked."""
        due: list[UUID] = []
        while self._expiries and self._expiries[0][0] <= now:
            entry = heapq.heappop(self._expiries)
            self._undo.append(partial(heapq.heappush, self._expiries, entry))
            due.append(entry[1])
        return due

    def on_undo(self, undo: Callable[[], None]) -> None:
        """To be done where what has changed is not committed."""
        self._undo.append(undo)

    def settle(self) -> None:
        """What has changed is committed."""
        self._undo.clear()
        self._taken.clear()
        for holder in self._given_up:
            if holder not in self._held and (owner := self._owners.pop(holder, None)) and not self.offered[owner]:
                del self.offered[owner]
        self._given_up.clear()

    def undo(self) -> None:
        """What has changed is not committed: put it back as it was."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        self._taken.clear()

    def overdrawn(self) -> bool:
        """Whether something that was taken since the last commit has been taken by somebody else as well."""
        return any(self.timeline.short(piece.place, piece.start, piece.end) for piece in self._taken)

    def forget_the_past(self, now: int) -> None:
        """Where the clock has gone back further than was kept, what was forgotten is to come again: take everything anew."""
        if now < self._known_from:
            self._known_from = now - PAST
            self._take_anew()
        self._known_from = max(self._known_from, now - PAST)
        self.timeline.forget(self._known_from)

    def _take_anew(self) -> None:
        self.timeline.rebuild((piece for pieces in self._held.values() for piece in pieces), self._known_from)
