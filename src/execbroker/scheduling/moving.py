"""What becomes of slots that are held already: pulled forward, moved to another node, made longer."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from execbroker.model.prices import Currency, Prices
from execbroker.model.waist import Slot
from execbroker.scheduling.accounts import Excess
from execbroker.scheduling.amounts import NOTHING, Amounts
from execbroker.scheduling.asks import FOREVER, Ask, Candidate, Part, Range, StorageAsk
from execbroker.scheduling.charges import size_of
from execbroker.scheduling.quotas import Quota
from execbroker.scheduling.search import Search
from execbroker.scheduling.timeline import Booking, Timeline, bookings_of, combine

Limits = tuple[tuple[Currency, float], ...]


def replaced(
    timeline: Timeline,
    slot: Slot,
    now: int,
    last: int,
    prices: Prices | None = None,
    limits: Limits = (),
    staged: int = 0,
    quotas: tuple[Quota, ...] = (),
) -> Slot | None:
    """The earliest place for the same session on its platform that starts by `last` and not before its floor; None where
    there is none. What it holds now must have been given back before. `limits` are what it may cost, with `staged` bytes;
    `quotas` what its owner may hold."""
    assert slot.floor is not None
    prepare = slot.start - slot.prepare
    candidate = Candidate(slot.platform, prepare, slot.done - slot.end, slot.staging, staged, prices, quotas=quotas)
    ask = Ask(
        parts=tuple(
            Part(_exactly(share.cores), _exactly(share.memory), tuple((kind, _exactly(n)) for kind, n in share.accelerators))
            for share in slot.shares
        ),
        storages=tuple(StorageAsk(_exactly(size), until - slot.done) for size, until in slot.storages),
        duration=slot.end - slot.start,
        earliest=slot.floor,
        latest=last,
        candidates=(candidate,),
        limit=1,
        licences=slot.licences,
        batch=slot.batch,
        limits=limits,
    )
    found = Search(timeline, ask, candidate, enlarge=False).first(max(slot.floor, now + prepare), last)
    return found and replace(found, floor=slot.floor, priority=slot.priority)


def _exactly(amount: int) -> Range:
    return Range(amount, amount)


def longer(slot: Slot, seconds: int) -> Slot:
    """The same slot, over so much later, or sooner where `seconds` is negative."""
    storages = tuple((size, until + seconds) for size, until in slot.storages)
    return replace(slot, end=slot.end + seconds, done=slot.done + seconds, storages=storages)


def added(slot: Slot, seconds: int) -> list[Booking]:
    """What a slot that is made so much longer holds besides what it held."""
    before = (piece._replace(amounts=NOTHING.minus(piece.amounts)) for piece in bookings_of(slot))
    return combine([*bookings_of(longer(slot, seconds)), *before], Amounts.plus)


def fits(timeline: Timeline, pieces: Iterable[Booking]) -> bool:
    """Whether all of this is free."""
    return all(
        timeline.has(piece.place) and piece.amounts.within(timeline.least(piece.place, piece.start, piece.end))
        for piece in pieces
    )


def excess(timeline: Timeline, slot: Slot, seconds: int, quotas: Iterable[Quota]) -> Iterator[Excess]:
    """By how much quotas would be passed if a slot were so much longer."""
    cores, memory, *_ = size_of(slot)
    for quota in quotas:
        yield from timeline.accounts.excess(quota, cores, memory, slot.done, slot.done + seconds)


def room_within(longest: int | None, slot: Slot) -> int:
    """By how many seconds it could be made longer where it may last `longest` at most."""
    return FOREVER if longest is None else max(longest - (slot.end - slot.start), 0)


def room_after(timeline: Timeline, slot: Slot, most: int, quotas: Collection[Quota] = ()) -> int:
    """By how many seconds it could be made longer, `most` at most."""
    room, beyond, trial = 0, most + 1, most
    while beyond - room > 1:
        if fits(timeline, added(slot, trial)) and not any(excess(timeline, slot, trial, quotas)):
            room = trial
        else:
            beyond = trial
        trial = (room + beyond) // 2
    return room
