"""What may be asked for at a time, and what owners and groups may have in all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from execbroker.scheduling.profile import Row

TOP = 1 << 30
"""What is free of each resource in the profile of an account that holds nothing: more than any quota."""
RESOURCES = ("cores", "memory", "sessions")
_MOST = (1 << 31) - 1


class Account(NamedTuple):
    """That of an owner, or of all members of a group, on a platform."""

    platform: str
    sort: Literal["owner", "group"]
    name: str


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account may hold at the same time: cores, memory (GiB), sessions; and, in core-seconds, what it may hold in offers,
    and use in each month. None where there is no limit."""

    account: Account
    cores: int | None = None
    memory: int | None = None
    sessions: int | None = None
    held: int | None = None
    monthly: int | None = None

    @property
    def any(self) -> bool:
        return any(most is not None for most in (*self.at_once, self.held, self.monthly))

    @property
    def at_once(self) -> tuple[int | None, ...]:
        """Of each of RESOURCES."""
        return self.cores, self.memory, self.sessions

    def row(self, cores: int, memory: int) -> Row:
        """What has to be free in the account's profile, for one more session of this size."""
        wanted = zip((cores, memory, 1), self.at_once, strict=True)
        return np.array([0 if most is None else min(want + TOP - min(most, TOP), _MOST) for want, most in wanted], np.int32)


@dataclass(frozen=True, slots=True)
class Most:
    """What one session may have at most, all its nodes together: cores, memory and storage (GiB), accelerators of any kind,
    nodes, and how many seconds. None where there is no limit."""

    cores: int | None = None
    memory: int | None = None
    storage: int | None = None
    accelerators: int | None = None
    nodes: int | None = None
    duration: int | None = None

    def over(self, **wanted: int) -> Iterator[tuple[str, int, int]]:
        """Of what more is wanted than there may be: how much, and how much there may be."""
        for what, amount in wanted.items():
            if (most := getattr(self, what)) is not None and amount > most:
                yield what, amount, most
