"""Several people of several groups at one broker, and what its quotas should come to by the test's own slow account."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from sqlalchemy import select

from brokersite import NOTEBOOK, Site, uuid_of
from execbroker.errors import Unauthorized
from execbroker.ledger.rows import SessionRow, read_session
from execbroker.ledger.tables import sessions
from execbroker.model.identities import Identity
from execbroker.model.waist import Slot

ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class Claims:
    """Believes what people say of themselves: `Bearer name:group,group`."""

    challenges = ('Bearer realm="test"',)

    async def recognise(self, scheme: str, credentials: str) -> Identity:
        name, colon, groups = credentials.partition(":")
        if scheme != "bearer" or not colon:
            raise Unauthorized("Bearer name:group,group")
        return Identity(name, name, frozenset(filter(None, groups.split(","))))


class PeopleSite(Site):
    """A broker at which people are who they say that they are."""

    async def _open(self) -> None:
        await super()._open()
        self.app.state.guard = Claims()

    def person(self, name: str, *groups: str) -> "Person":
        return Person(self, name, groups)


@dataclass(frozen=True)
class Person:
    site: PeopleSite
    name: str
    groups: tuple[str, ...] = ()

    async def call(self, method: str, path: str, **what: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.name}:{','.join(self.groups)}"}
        return await self.site.client.request(method, path, headers=headers, **what)

    async def ask(self, **request: Any) -> dict[str, Any]:
        answer = await self.call("POST", "/requests", json={"executable": NOTEBOOK, **request})
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def offers(self, **request: Any) -> list[dict[str, Any]]:
        answer = await self.ask(**request)
        assert answer["result"] == "YES", answer
        return answer["offers"]  # type: ignore[no-any-return]

    async def refused(self, **request: Any) -> dict[str, dict[str, str]]:
        """The values of the reasons, by their short names."""
        answer = await self.ask(**request)
        assert answer["result"] == "NO", answer
        return {item["kind"].rpartition(":")[2]: item["values"] for item in answer["meta"]["messages"]}

    async def update(self, session: Any, value: str) -> httpx.Response:
        document = {"kind": "uri:enum-value-update", "path": "phase", "value": value}
        return await self.call("POST", f"/sessions/{uuid_of(session)}", json=document)

    async def accept(self, session: Any) -> dict[str, Any]:
        answer = await self.update(session, "ACCEPTED")
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def take(self, **request: Any) -> dict[str, Any]:
        return await self.accept((await self.offers(**request))[0])

    async def extend(self, session: Any, minutes: int) -> httpx.Response:
        document = {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": minutes}
        return await self.call("POST", f"/sessions/{uuid_of(session)}", json=document)

    async def show(self, session: Any) -> dict[str, Any]:
        return (await self.call("GET", f"/sessions/{uuid_of(session)}")).json()  # type: ignore[no-any-return]

    async def me(self) -> dict[str, Any]:
        answer = await self.call("GET", "/me")
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]


def month_of(time: int) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m}"


def month_ends(start: int, end: int) -> Iterator[int]:
    """The first second of every month within (start, end)."""
    year, month = datetime.fromtimestamp(start, UTC).year, datetime.fromtimestamp(start, UTC).month
    while True:
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        first = int(datetime(year, month, 1, tzinfo=UTC).timestamp())
        if first >= end:
            return
        yield first


def by_month(slot: Slot) -> Counter[str]:
    edges = [slot.prepare, *month_ends(slot.prepare, slot.done), slot.done]
    cores = sum(share.cores for share in slot.shares)
    return Counter({month_of(a): cores * (b - a) for a, b in itertools.pairwise(edges) if b > a})


@dataclass(frozen=True)
class Held:
    """What somebody holds: alternatives, only one of which will be; or one session, which may have `ended`."""

    owner: str
    groups: tuple[str, ...]
    slots: tuple[Slot, ...]
    offered: bool = False
    ended: bool = False

    def at(self, time: int) -> tuple[int, int, int]:
        """Cores, memory, sessions."""
        here = [slot.shares for slot in self.slots if slot.prepare <= time < slot.done and not self.ended]
        cores = max((sum(share.cores for share in shares) for shares in here), default=0)
        return cores, max((sum(share.memory for share in shares) for shares in here), default=0), bool(here)

    @property
    def months(self) -> Counter[str]:
        used: Counter[str] = Counter()
        for slot in self.slots:
            used |= by_month(slot)
        return used

    @property
    def held(self) -> int:
        """Core-seconds that are held in offers: on each node, the most that any of them has."""
        found = 0
        nodes = {share.node for slot in self.slots for share in slot.shares} if self.offered else set()
        edges = sorted({edge for slot in self.slots for edge in (slot.prepare, slot.done)})
        for node in nodes:
            for start, end in itertools.pairwise(edges):
                here = (slot for slot in self.slots if slot.prepare <= start < slot.done)
                found += (end - start) * max(
                    (share.cores for slot in here for share in slot.shares if share.node == node), default=0
                )
        return found


@dataclass
class Account:
    """All that somebody, or the members of a group, hold on the one platform."""

    holders: list[Held]

    @property
    def edges(self) -> set[int]:
        return {edge for held in self.holders for slot in held.slots for edge in (slot.prepare, slot.done)}

    def at(self, time: int) -> tuple[int, int, int]:
        held = [one.at(time) for one in self.holders]
        return sum(one[0] for one in held), sum(one[1] for one in held), sum(one[2] for one in held)

    def most(self) -> tuple[int, int, int]:
        """Of each, the most at any instant."""
        found = [self.at(edge) for edge in self.edges] or [(0, 0, 0)]
        return max(one[0] for one in found), max(one[1] for one in found), max(one[2] for one in found)

    @property
    def months(self) -> Counter[str]:
        return sum((one.months for one in self.holders), Counter())

    @property
    def held(self) -> int:
        return sum(one.held for one in self.holders)


async def all_held(site: Site) -> list[Held]:
    """From the sessions' own schedules."""
    async with site.ledger.read() as connection:
        rows = [read_session(row) for row in (await connection.execute(select(sessions))).all()]
    open_: dict[Any, list[SessionRow]] = {}
    found = []
    for row in rows:
        if row.phase == "OFFERED":
            open_.setdefault(row.offerset, []).append(row)
        elif row.slot and row.phase not in ("REJECTED", "EXPIRED"):
            found.append(Held(row.owner, row.groups, (row.slot,), ended=row.phase in ENDED))
    for some in open_.values():
        slots = tuple(row.slot for row in some if row.slot)
        found.append(Held(some[0].owner, some[0].groups, slots, offered=True))
    return found


def account_of(held: Iterable[Held], owner: str | None = None, group: str | None = None) -> Account:
    return Account([one for one in held if one.owner == owner or group in one.groups])
