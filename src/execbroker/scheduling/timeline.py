from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from execbroker.model.waist import Node, Slot
from execbroker.scheduling.profile import NOTHING, Amounts, Profile


class Place(NamedTuple):
    platform: str
    node: str


class Booking(NamedTuple):
    """`amounts` of one node during [start, end)."""

    place: Place
    start: int
    end: int
    amounts: Amounts


class Timeline:
    """The profiles of every node of every platform."""

    def __init__(self) -> None:
        self.profiles: dict[Place, Profile] = {}

    def set_capacity(self, platform: str, nodes: Iterable[Node]) -> None:
        """What the nodes of a platform can give from now on; what is booked stays booked, even on a node that is gone."""
        sizes = {Place(platform, node.name): Amounts(node.cores, node.memory, node.storage) for node in nodes}
        for place in [place for place in self.profiles if place.platform == platform and place not in sizes]:
            sizes[place] = NOTHING
        for place, size in sizes.items():
            profile = self.profiles.setdefault(place, Profile(NOTHING))
            change = size.minus(profile.capacity)
            if change != NOTHING:
                profile.capacity = size
                profile.free = [free.plus(change) for free in profile.free]

    def of(self, platform: str) -> Iterator[tuple[Place, Profile]]:
        return ((place, profile) for place, profile in self.profiles.items() if place.platform == platform)

    def take(self, bookings: Iterable[Booking]) -> None:
        for place, start, end, amounts in bookings:
            self.profiles.setdefault(place, Profile(NOTHING)).take(start, end, amounts)

    def give(self, bookings: Iterable[Booking]) -> None:
        for place, start, end, amounts in bookings:
            self.profiles[place].give(start, end, amounts)

    def rebuild(self, bookings: Iterable[Booking]) -> None:
        """Begin again with these bookings and no others."""
        self.profiles = {place: Profile(profile.capacity) for place, profile in self.profiles.items()}
        self.take(bookings)

    def forget(self, before: int) -> None:
        for profile in self.profiles.values():
            profile.forget(before)


def bookings_of(slot: Slot) -> list[Booking]:
    """What a session in this slot holds, as disjoint pieces: cores and memory until released, storage until it expires."""
    place = Place(slot.platform, slot.node)
    pieces = [Booking(place, slot.prepare, slot.done, Amounts(slot.cores, slot.memory))]
    pieces += [Booking(place, slot.prepare, until, Amounts(storage=size)) for size, until in slot.storages if size]
    return combine(pieces, Amounts.plus)


def envelope(slots: Iterable[Slot]) -> list[Booking]:
    """What alternatives hold together, only one of which will be: the pointwise maximum, as disjoint pieces."""
    members = [bookings_of(slot) for slot in slots]
    return combine([piece for pieces in members for piece in pieces], Amounts.largest)


def combine(pieces: list[Booking], how: Callable[[Amounts, Amounts], Amounts]) -> list[Booking]:
    """Disjoint pieces, each the combination by `how` of those it was covered by."""
    combined: list[Booking] = []
    for place in dict.fromkeys(piece.place for piece in pieces):
        here = [piece for piece in pieces if piece.place == place]
        edges = sorted({edge for piece in here for edge in (piece.start, piece.end)})
        for start, end in pairwise(edges):
            amounts = NOTHING
            for piece in here:
                if piece.start <= start and end <= piece.end:
                    amounts = how(amounts, piece.amounts)
            if amounts == NOTHING:
                continue
            if combined and combined[-1].place == place and combined[-1].end == start and combined[-1].amounts == amounts:
                combined[-1] = combined[-1]._replace(end=end)
            else:
                combined.append(Booking(place, start, end, amounts))
    return combined
