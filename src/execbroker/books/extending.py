from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from execbroker.books.accounting import Accounting
from execbroker.books.holdings import Holdings
from execbroker.books.pulling import UNLEASED, Pulling
from execbroker.engine.lifecycle import CHOICES, EXTENDABLE
from execbroker.errors import IllegalMove, NoRoom, NotFound
from execbroker.ledger.rows import SessionRow
from execbroker.ledger.transaction import Transaction
from execbroker.model.messages import message
from execbroker.model.phases import Phase
from execbroker.model.prices import Prices
from execbroker.model.waist import Slot
from execbroker.offers.quotas import over_quota
from execbroker.offers.quoting import most_of, requoted
from execbroker.scheduling.moving import Limits, excess, longer, room_after, room_within
from execbroker.scheduling.quotas import Quota
from execbroker.scheduling.timeline import bookings_of


class Extending:
    """Moves the end of accepted sessions."""

    def __init__(self, holdings: Holdings, prices: Mapping[str, Prices], accounting: Accounting, pulling: Pulling) -> None:
        self._holdings, self._prices, self._accounting, self._pulling = holdings, prices, accounting, pulling

    async def extend(
        self,
        transaction: Transaction,
        uuid: UUID,
        now: int,
        seconds: int,
        limits: Limits,
        quotas: tuple[Quota, ...],
        longest: int | None,
    ) -> SessionRow:
        """Raises NotFound, IllegalMove, NoRoom."""
        row = await _find_live(transaction, uuid, now)
        assert row.slot is not None
        slot = longer(row.slot, seconds)
        if (room := room_within(longest, row.slot)) < seconds:
            text = f"A session may last {longest} s on {slot.platform}; it would be {seconds - room} s more"
            raise NoRoom(text, seconds=room)
        self._check_longer(row.slot, seconds, now, quotas)
        quote = requoted(row.quote, self._prices.get(slot.platform), slot)
        _check_cost(quote, limits)
        how = "longer" if seconds > 0 else "shorter"
        said = [message("INFO", "extended", "Its owner made it {seconds} s {how}", seconds=abs(seconds), how=how)]
        due = now if row.phase is Phase.RUNNING else row.due
        await transaction.move(row, row.phase, now, said, slot=slot, quote=quote, due=due, **UNLEASED)
        self._holdings.release(transaction, uuid)
        self._holdings.hold(transaction, uuid, bookings_of(slot))
        extended = replace(row, slot=slot, quote=quote, modified=now)
        self._accounting.take(extended)
        if row.phase in (Phase.ACCEPTED, Phase.WAITING):
            self._pulling.add(extended)
        return extended

    def _check_longer(self, slot: Slot, seconds: int, now: int, quotas: tuple[Quota, ...]) -> None:
        least = slot.end - max(now, slot.start) - 1
        if -seconds > least:
            raise NoRoom(f"It would be over already: it can be made {max(least, 0)} s shorter at most")
        if seconds > 0 and (room := room_after(self._holdings.timeline, slot, seconds)) < seconds:
            raise NoRoom(f"After it, {room} s are free, not {seconds} s", seconds=room)
        if over := list(excess(self._holdings.timeline, slot, seconds, quotas)) if seconds > 0 else []:
            room = room_after(self._holdings.timeline, slot, seconds, quotas)
            raise NoRoom("; ".join(str(over_quota(one, "it").message) for one in over), seconds=room)


async def _find_live(transaction: Transaction, uuid: UUID, now: int) -> SessionRow:
    """A session whose end can be moved. Raises NotFound, IllegalMove."""
    row = await transaction.session(uuid)
    if row is None:
        raise NotFound(f"There is no session {uuid}")
    if row.phase not in EXTENDABLE or row.slot is None or now >= row.slot.end:
        text = f"The session is {row.phase}, and its end cannot be moved"
        raise IllegalMove(text, phase=row.phase.value, allowed=[*map(str, CHOICES.get(row.phase, ()))])
    return row


def _check_cost(quote: str | None, limits: Limits) -> None:
    """Raises NoRoom where a session would cost more than its request allows."""
    for currency, due in most_of(quote):
        for limited, limit in limits:
            if limited == currency and due > limit:
                raise NoRoom(f"It would cost {due:.6g}, {due - limit:.6g} more than its request allows")
