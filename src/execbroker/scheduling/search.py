from collections.abc import Iterator
from dataclasses import dataclass, replace

from execbroker.model.waist import Slot
from execbroker.scheduling.profile import Amounts, Profile
from execbroker.scheduling.timeline import Place, Timeline


@dataclass(frozen=True, slots=True)
class Range:
    """At least `min`, at most `max`."""

    min: int
    max: int


@dataclass(frozen=True, slots=True)
class StorageAsk:
    """GiB, and for how many seconds after the end they are kept."""

    size: Range
    lifetime: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A platform that could run it: how many seconds it takes to prepare and to release there."""

    platform: str
    prepare: int
    release: int


@dataclass(frozen=True, slots=True)
class Ask:
    """What is looked for: this much on one node for `duration` seconds, starting within [earliest, latest]."""

    cores: Range
    memory: Range
    storages: tuple[StorageAsk, ...]
    duration: int
    earliest: int
    latest: int
    candidates: tuple[Candidate, ...]
    limit: int

    @property
    def least(self) -> Amounts:
        return Amounts(self.cores.min, self.memory.min, sum(storage.size.min for storage in self.storages))


def find(timeline: Timeline, ask: Ask, now: int) -> list[Slot]:
    """Up to `limit` slots, consecutive: each starts when the one before it ends, or as soon after as there is room.

    They are alternatives, each checked against the timeline alone. At the same start the larger is preferred: more cores,
    then more memory; then the platform and node named first.
    """
    slots: list[Slot] = []
    earliest = ask.earliest
    while len(slots) < ask.limit and (slot := _first(timeline, replace(ask, earliest=earliest), now)):
        slots.append(slot)
        earliest = slot.end
    return slots


def _first(timeline: Timeline, ask: Ask, now: int) -> Slot | None:
    best: Slot | None = None
    for candidate in ask.candidates:
        start = max(ask.earliest, now + candidate.prepare)
        for place, profile in timeline.of(candidate.platform):
            latest = min(ask.latest, best.start) if best else ask.latest
            found = earliest_fit(profile, ask, candidate, start, latest)
            if found is None:
                continue
            slot = _enlarged(profile, ask, candidate, place, found)
            if best is None or _rank(slot) < _rank(best):
                best = slot
    return best


def _rank(slot: Slot) -> tuple[int, int, int]:
    return slot.start, -slot.cores, -slot.memory


def earliest_fit(profile: Profile, ask: Ask, candidate: Candidate, start: int, latest: int) -> int | None:
    """The first second within [start, latest] at which every piece of the smallest acceptable session fits."""
    if not ask.least.within(profile.capacity):
        return None
    pieces = list(_pieces(ask, candidate))
    moved = True
    while moved and start <= latest:
        moved = False
        for begin, end, amounts in pieces:
            blocked = profile.blocked_until(start + begin, start + end, amounts)
            if blocked is not None:
                start, moved = blocked - begin, True
                break
    return start if start <= latest else None


def _pieces(ask: Ask, candidate: Candidate) -> Iterator[tuple[int, int, Amounts]]:
    """What is held from when to when, relative to the start: for as long as the session has cores, and for each storage's
    lifetime after it; each piece counts all that is held at that time."""
    done = ask.duration + candidate.release
    yield -candidate.prepare, done, ask.least
    begin, held = done, sorted(ask.storages, key=lambda storage: storage.lifetime)
    while held:
        end = done + held[0].lifetime
        if end > begin:
            yield begin, end, Amounts(storage=sum(storage.size.min for storage in held))
            begin = end
        held = held[1:]


def _enlarged(profile: Profile, ask: Ask, candidate: Candidate, place: Place, start: int) -> Slot:
    """The slot at `start` with as much as was asked for at most and is free: cores, then memory, then each storage."""
    prepare, end = start - candidate.prepare, start + ask.duration
    done = end + candidate.release
    free = profile.least(prepare, done)
    storages: list[tuple[int, int]] = []
    for storage in ask.storages:
        kept = done + storage.lifetime
        # A larger storage must fit beside the others for as long as it is kept; the others count with their minimum until
        # they have been enlarged themselves.
        others = sum(other.size.min for other in ask.storages[len(storages) + 1 :]) + sum(size for size, _ in storages)
        room = profile.least(prepare, kept).storage - others
        storages.append((max(storage.size.min, min(storage.size.max, room)), kept))
    return Slot(
        platform=place.platform,
        node=place.node,
        prepare=prepare,
        start=start,
        end=end,
        done=done,
        cores=max(ask.cores.min, min(ask.cores.max, free.cores)),
        memory=max(ask.memory.min, min(ask.memory.max, free.memory)),
        storages=tuple(storages),
    )
