from collections.abc import Sequence

from execbroker.scheduling.intervals import common
from execbroker.scheduling.profile import Profile, Row

Piece = tuple[int, int, Row]
"""What is held from when to when, in seconds relative to the start."""


def groups(items: Sequence[object]) -> list[tuple[int, list[int]]]:
    """The first of each group of equal items, and all their indices."""
    found: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        found.setdefault(items.index(item), []).append(index)
    return list(found.items())


def fit(profile: Profile, pieces: list[Piece], start: int, last: int) -> int | None:
    """The first second within [start, last] at which every piece fits."""
    settled = 0
    while settled < len(pieces):
        settled = 0
        for begin, end, row in pieces:
            found = profile.earliest(start + begin, last + begin, end - begin, row)
            if found is None:
                return None
            settled = settled + 1 if found - begin == start else 0
            start = found - begin
        if len(pieces) == 1:
            break
    return start


def windows(profile: Profile, pieces: list[Piece], start: int, last: int) -> list[tuple[int, int]]:
    """Every stretch of starts within [start, last] at which every piece fits."""
    found = [(start, last)]
    for begin, end, row in pieces:
        fits = profile.windows(start + begin, last + begin, end - begin, row)
        found = common(found, [(first - begin, final - begin) for first, final in fits])
    return found


def matching(choices: list[list[int]]) -> list[int] | None:
    """A different node for each part, out of those it could have; None where there are too few."""
    taken: dict[int, int] = {}

    def place(part: int, seen: set[int]) -> bool:
        for node in choices[part]:
            if node not in seen:
                seen.add(node)
                if node not in taken or place(taken[node], seen):
                    taken[node] = part
                    return True
        return False

    if not all(place(part, set()) for part in range(len(choices))):
        return None
    return [node for node, _ in sorted(taken.items(), key=lambda pair: pair[1])]
