"""What owners and groups hold of a platform over time, for the quotas that they have there."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias
from uuid import UUID

import numpy as np

from execbroker.scheduling.asks import FOREVER
from execbroker.scheduling.months import month_before, month_of, months, starts_within
from execbroker.scheduling.profile import Profile
from execbroker.scheduling.quotas import RESOURCES, TOP, Account, Quota


class Charge(NamedTuple):
    """What one holder takes of an account: cores and memory of one session, from when to when; core-seconds, by month; and
    those that it holds in offers. Of alternatives, the most that any of them takes."""

    pieces: tuple[tuple[int, int, int, int], ...] = ()
    """From when, until when, cores, memory."""
    months: tuple[tuple[int, int], ...] = ()
    held: int = 0


class Excess(NamedTuple):
    """So much of one of RESOURCES, or of `monthly`, would be held with what is wanted, `over` the quota, some time from `since`
    on."""

    quota: Quota
    what: str
    total: int
    over: int
    since: int


Entries: TypeAlias = tuple[tuple[Account, Charge], ...]


class Accounts:
    """What is held, by account, as exact profiles over time; and which of it each holder takes."""

    def __init__(self) -> None:
        self._profiles: dict[Account, Profile] = {}
        self._months: defaultdict[Account, Counter[int]] = defaultdict(Counter)
        self._held: Counter[Account] = Counter()
        self._entries: dict[UUID, Entries] = {}
        self._forgotten = 0

    def of(self, holder: UUID) -> Entries:
        return self._entries.get(holder, ())

    def charge(self, holder: UUID, entries: Entries) -> None:
        """A holder takes this from now on, and no more what it took before."""
        for account, charge in self._entries.pop(holder, ()):
            self._change(account, charge, -1)
        for account, charge in entries:
            self._change(account, charge, 1)
        if entries:
            self._entries[holder] = entries

    def _change(self, account: Account, charge: Charge, sign: int) -> None:
        profile = self._profiles.get(account) or self._profiles.setdefault(account, _unused())
        for start, end, cores, memory in charge.pieces:
            profile.change(start, end, np.array([cores, memory, 1], np.int32) * -sign)
        used = self._months[account]
        for month, seconds in charge.months:
            used[month] += sign * seconds
        self._held[account] += sign * charge.held

    def profile(self, account: Account) -> Profile:
        """What is free of TOP of each of RESOURCES."""
        return self._profiles.get(account, _NOTHING_HELD)

    def at(self, account: Account, time: int) -> tuple[int, ...]:
        """How much of each of RESOURCES is held then."""
        return tuple(TOP - free for free in self.profile(account).least(time, time + 1).tolist())

    def used(self, account: Account, month: int) -> int:
        """Core-seconds in a month, with those that are to come."""
        return self._months[account][month] if account in self._months else 0

    def held(self, account: Account) -> int:
        """Core-seconds in offers that are not accepted."""
        return self._held[account]

    def starts(self, quota: Quota, first: int, last: int, length: int, cores: int) -> list[tuple[int, int]]:
        """When so many cores may be begun to be held for so long, as far as the month's quota goes."""
        if quota.monthly is None or not cores or length <= 0:
            return [(first, last)]
        return starts_within(first, last, length, cores, quota.monthly, self._months.get(quota.account, {}))

    def room(self, quota: Quota, begin: int, end: int) -> tuple[int, int]:
        """How many cores, and how much memory, could be held all the time."""
        free = self.profile(quota.account).least(begin, end).tolist()
        cores, memory, _ = (
            FOREVER if most is None else most - TOP + left for most, left in zip(quota.at_once, free, strict=True)
        )
        if quota.monthly is not None:
            left = ((quota.monthly - self.used(quota.account, month)) // seconds for month, seconds in months(begin, end))
            cores = min(cores, *left)
        return cores, memory

    def excess(self, quota: Quota, cores: int, memory: int, begin: int, end: int) -> Iterator[Excess]:
        """By how much one more session of this size would be too much."""
        held = self.profile(quota.account).least(begin, end).tolist()
        for what, want, most, free in zip(RESOURCES, (cores, memory, 1), quota.at_once, held, strict=True):
            if most is not None and (over := TOP - free + want - most) > 0:
                yield Excess(quota, what, most + over, over, begin)
        for month, seconds in months(begin, end) if quota.monthly is not None else ():
            assert quota.monthly is not None
            if (over := self.used(quota.account, month) + cores * seconds - quota.monthly) > 0:
                yield Excess(quota, "monthly", quota.monthly + over, over, month)
                return

    def load(self, taken: Mapping[UUID, Entries]) -> None:
        """Begin again with what these holders take and nothing else."""
        self._profiles, self._entries = {}, dict(taken)
        self._months.clear()
        self._held.clear()
        pieces: defaultdict[Account, list[tuple[int, int, int, int]]] = defaultdict(list)
        for entries in taken.values():
            for account, charge in entries:
                pieces[account] += charge.pieces
                self._change(account, charge._replace(pieces=()), 1)
        for account, some in pieces.items():
            start, end, cores, memory = np.array(some, np.int64).reshape(-1, 4).T
            rows = np.array([cores, memory, np.ones(len(some))], np.int32)
            self._profiles[account].load(start, end, rows)

    def rebuild(self, since: int) -> None:
        """Begin again with what is held, as what was forgotten is to come again."""
        self._forgotten = since
        self.load(self._entries)

    def forget(self, before: int) -> None:
        """Drop what ended before `before`, and the months before the last one: the clock may go back into that."""
        for profile in self._profiles.values():
            profile.forget(before)
        if month_of(before) > month_of(max(self._forgotten, 0)):
            self._forget_months(month_before(month_of(before)))
        self._forgotten = before

    def _forget_months(self, first: int) -> None:
        for used in self._months.values():
            for month in [month for month in used if month < first]:
                del used[month]
        over = [holder for holder, entries in self._entries.items() if all(_is_over(one, first) for _, one in entries)]
        for holder in over:
            del self._entries[holder]
        for holder, entries in self._entries.items():
            self._entries[holder] = tuple((account, _since(charge, first)) for account, charge in entries)


def _is_over(charge: Charge, month: int) -> bool:
    return not charge.held and all(end <= month for _, end, *_ in charge.pieces) and all(one < month for one, _ in charge.months)


def _since(charge: Charge, first: int) -> Charge:
    return charge._replace(months=tuple((month, seconds) for month, seconds in charge.months if month >= first))


def _unused() -> Profile:
    return Profile(np.full(len(RESOURCES), TOP, np.int32))


_NOTHING_HELD = _unused()
