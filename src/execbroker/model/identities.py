from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: `owner` is what the ledger knows them by, `name` what people call them.

    `groups` are the local ones and those that a trusted issuer told of.
    """

    owner: str
    name: str
    groups: frozenset[str] = frozenset()
    admin: bool = False


HOLDER = Identity("owner", "owner", admin=True)
"""Whoever has the token of the data folder, or comes to a broker that asks nobody."""
ANYONE = Identity("", "")
"""Nobody in particular: who has not said who they are, where that is not needed."""
