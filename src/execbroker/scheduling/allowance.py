from collections.abc import Iterator
from typing import NamedTuple

from execbroker.scheduling.accounts import Accounts
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.asks import FOREVER, Ask, Candidate
from execbroker.scheduling.intervals import common
from execbroker.scheduling.profile import Profile, Row


class Spare(NamedTuple):
    """What each part, and all storage together, may have besides the least that is asked for."""

    cores: int = FOREVER
    memory: int = FOREVER
    accelerators: int = FOREVER
    storage: int = FOREVER


ANY = Spare()


class Allowance:
    """What limits and quotas leave of a platform to one session, whose smallest acceptable size is `size`, of all `parts`."""

    def __init__(self, accounts: Accounts, ask: Ask, candidate: Candidate, size: Amounts, parts: int) -> None:
        self._accounts, self._ask, self._candidate = accounts, ask, candidate
        self._size, self._parts = size, parts

    @property
    def over(self) -> Iterator[tuple[str, int, int]]:
        """Of what more is asked for than one session may have: how much, and how much it may."""
        if self._candidate.most:
            yield from self._candidate.most.over(
                cores=self._size.cores,
                memory=self._size.memory,
                storage=sum(storage.size.min for storage in self._ask.storages),
                accelerators=sum(count for _, count in self._size.counts),
                nodes=self._parts,
                duration=self._ask.duration,
            )

    def pools(self) -> Iterator[tuple[Profile, Row]]:
        """The accounts with quotas, and what has to be free of them."""
        for quota in self._candidate.quotas:
            if any(most is not None for most in quota.at_once):
                yield self._accounts.profile(quota.account), quota.row(self._size.cores, self._size.memory)

    def starts(self, start: int, last: int, length: int) -> list[tuple[int, int]]:
        """The starts within [start, last] from which on it may be held for so long, as far as months go."""
        found = [(start, last)]
        for quota in self._candidate.quotas:
            found = common(found, self._accounts.starts(quota, start, last, length, self._size.cores))
        return found

    def spare(self, begin: int, end: int) -> Spare:
        """What is left from `begin` until `end`, divided equally."""
        most = self._candidate.most
        cores, memory, accelerators, storage = (
            FOREVER if most is None or (limit := getattr(most, name)) is None else limit for name in Spare._fields
        )
        for quota in self._candidate.quotas:
            room = self._accounts.room(quota, begin, end)
            cores, memory = min(cores, room[0]), min(memory, room[1])
        kinds = max(1, sum(len(part.accelerators) for part in self._candidate.parts))
        fewer, parts, size = sum(count for _, count in self._size.counts), self._parts, self._size
        return Spare((cores - size.cores) // parts, (memory - size.memory) // parts, (accelerators - fewer) // kinds, storage)
