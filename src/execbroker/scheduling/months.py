"""Calendar months, UTC, each known by its first second."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache

REACH = 60
"""How many months ahead are looked at where every month has too little room for a whole session."""


@lru_cache(4096)
def month_of(time: int) -> int:
    first = datetime.fromtimestamp(time, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(first.timestamp())


def following(month: int) -> int:
    return month_of(month + 31 * 86400)


def month_before(month: int) -> int:
    """The month before one."""
    return month_of(month - 1)


def months(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Each month that [start, end) is in, and how many seconds of it."""
    month = month_of(start)
    while start < end:
        until = min(following(month), end)
        yield month, until - start
        start = month = until


def starts_within(first: int, last: int, length: int, cores: int, most: int, used: Mapping[int, int]) -> list[tuple[int, int]]:
    """The starts within [first, last], both included, from which on so many cores for `length` seconds add, in no month, to more
    than `most` core-seconds together with those that are `used`."""
    free = max(most, 0) // cores  # seconds that an unused month has
    if length > free:
        last = min(last, _beyond(first) - 1)
        looked_at: Iterable[int] = [month for month, _ in months(first, last + length)]
    else:
        looked_at = sorted(used)
    found, begin = [], first
    for month in looked_at:
        room = max(most - used.get(month, 0), 0) // cores
        opens, closes = month + room - length, following(month) - room
        if min(length, following(month) - month) <= room or closes <= begin:
            continue
        if opens >= begin:
            found.append((begin, min(opens, last)))
        begin = max(begin, closes)
    if begin <= last:
        found.append((begin, last))
    return [(start, end) for start, end in found if start <= end]


def _beyond(first: int) -> int:
    month = month_of(first)
    for _ in range(REACH):
        month = following(month)
    return month
