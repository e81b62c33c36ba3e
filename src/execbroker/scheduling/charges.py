"""What sessions and offers take of an account."""

from collections import Counter
from collections.abc import Iterable

from execbroker.model.waist import Slot
from execbroker.scheduling.accounts import Charge
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.months import months
from execbroker.scheduling.timeline import Booking, Place, combine, core_seconds, envelope


def charge_of(slots: Iterable[Slot], *, offered: bool = False) -> Charge:
    """What a session in this slot takes, or alternatives on one platform, only one of which will be. What is `offered` counts in
    core-seconds as it is held: all of it."""
    slots, used = list(slots), Counter[int]()
    for slot in slots:
        used |= Counter(dict(core_seconds_by_month(slot)))
    pieces = combine([Booking(Place("", ""), slot.prepare, slot.done, size_of(slot)) for slot in slots], Amounts.largest)
    return Charge(
        tuple((piece.start, piece.end, piece.amounts.cores, piece.amounts.memory) for piece in pieces),
        tuple(sorted(used.items())),
        core_seconds(envelope(slots)) if offered else 0,
    )


def size_of(slot: Slot) -> Amounts:
    """Cores and memory of all its nodes."""
    return Amounts(sum(share.cores for share in slot.shares), sum(share.memory for share in slot.shares))


def core_seconds_by_month(slot: Slot) -> list[tuple[int, int]]:
    """By the months in which it holds them, until it is released."""
    cores = size_of(slot).cores
    return [(month, cores * seconds) for month, seconds in months(slot.prepare, slot.done)]
