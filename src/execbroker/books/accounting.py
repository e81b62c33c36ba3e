from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from uuid import UUID

from sqlalchemy import or_, select

from execbroker.books.holdings import Holdings
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import SessionRow, Usage, read_session, read_usage, usage_values
from execbroker.ledger.tables import sessions, usage
from execbroker.ledger.transaction import Transaction
from execbroker.model.messages import MessageItem
from execbroker.model.phases import FINAL, Phase
from execbroker.model.waist import Slot
from execbroker.offers.quotas import over_held, too_much_held
from execbroker.policies.rules import Policies
from execbroker.scheduling.accounts import Charge, Entries
from execbroker.scheduling.asks import Ask
from execbroker.scheduling.charges import charge_of, core_seconds_by_month
from execbroker.scheduling.months import month_before, month_of
from execbroker.scheduling.objectives import Choice, find
from execbroker.scheduling.quotas import Account, Quota

_OPEN = (Phase.INITIAL, Phase.OFFERED)
_AT_ONCE = 500


class Accounting:
    """Who takes what of the quotas there are: offers for as long as they are held, a session for its slot, what has ended by
    the month. It follows the holdings, in memory, and like them it can be undone.

    All that members of a group hold counts for the group, by the groups that they had when they asked.
    """

    def __init__(self, holdings: Holdings, policies: Mapping[str, Policies]) -> None:
        self._holdings, self._policies = holdings, policies
        self._tracked = {name: one.tracked for name, one in policies.items() if one.tracked}
        self._accounts = holdings.timeline.accounts

    def quotas(self, platform: str, row: SessionRow) -> tuple[Quota, ...]:
        """Those that the owner of a session is under."""
        policies = self._policies.get(platform)
        return policies.quotas(row.owner, row.groups) if policies else ()

    def offer(self, offerset: UUID, rows: Iterable[SessionRow]) -> None:
        """These are the open offers of this."""
        if self._tracked:
            self._charge(offerset, self._of_offers(list(rows)))

    def take(self, row: SessionRow) -> None:
        """A session holds its slot."""
        if self._tracked:
            self._charge(row.uuid, self._of_session(row))

    def end(self, transaction: Transaction, row: SessionRow, slot: Slot, now: int) -> None:
        """What it has used of its slot is written down."""
        whose = slot.platform, row.owner, row.groups
        used = [Usage(row.uuid, month, *whose, seconds) for month, seconds in _used(slot, now) if seconds]
        transaction.insert(usage, *map(usage_values, used))
        if self._tracked:
            self._charge(row.uuid, self._of_usage(used))

    def _charge(self, holder: UUID, entries: Entries) -> None:
        self._holdings.on_undo(partial(self._accounts.charge, holder, self._accounts.of(holder)))
        self._accounts.charge(holder, entries)

    @contextmanager
    def without(self, holder: UUID) -> Iterator[None]:
        """As if it took nothing."""
        entries = self._accounts.of(holder)
        self._accounts.charge(holder, ())
        try:
            yield
        finally:
            self._accounts.charge(holder, entries)

    def find(self, ask: Ask, now: int) -> tuple[list[Choice], list[MessageItem]]:
        """What can be offered; or why too much would be held in offers, on each platform that has room."""
        held: list[MessageItem] = []
        while choices := find(self._holdings.timeline, ask, now):
            quotas = {one.platform: [quota for quota in one.quotas if quota.held is not None] for one in ask.candidates}
            if kept := self._holdable(choices, quotas):
                return kept, []
            for platform, slot in {choice.slot.platform: choice.slot for choice in reversed(choices)}.items():
                held += too_much_held(self._accounts, slot, quotas.pop(platform))
            ask = replace(ask, candidates=tuple(one for one in ask.candidates if one.platform in quotas))
        return [], held

    def _holdable(self, choices: list[Choice], quotas: Mapping[str, list[Quota]]) -> list[Choice]:
        """Those that may be held together as offers, in their order."""
        kept: dict[str, list[Slot]] = defaultdict(list)
        found = []
        for choice in choices:
            here = [*kept[choice.slot.platform], choice.slot]
            if not any(over_held(self._accounts, quota, here) for quota in quotas[choice.slot.platform]):
                kept[choice.slot.platform] = here
                found.append(choice)
        return found

    async def reload(self, ledger: Ledger, now: int) -> None:
        """Read everything back."""
        if self._tracked:
            self._accounts.load(dict(self._entries(await ledger.holding(), await ledger.usage(month_before(month_of(now))))))

    async def follow(self, transaction: Transaction, holders: Collection[UUID]) -> None:
        """Other brokers have changed what these hold."""
        if not self._tracked:
            return
        names = [str(holder) for holder in holders]
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            query = select(sessions).where(or_(sessions.c.uuid.in_(some), sessions.c.offerset.in_(some)))
            rows = [read_session(row) for row in await transaction.fetch(query)]
            used = [read_usage(row) for row in await transaction.fetch(select(usage).where(usage.c.session.in_(some)))]
            entries = dict(self._entries(rows, used))
            for holder in map(UUID, some):
                self._accounts.charge(holder, entries.get(holder, ()))

    def _entries(self, rows: Iterable[SessionRow], used: Iterable[Usage]) -> Iterator[tuple[UUID, Entries]]:
        """What follows for every holder from sessions as they are now."""
        offers: dict[UUID, list[SessionRow]] = defaultdict(list)
        ended: dict[UUID, list[Usage]] = defaultdict(list)
        for row in rows:
            if row.phase in _OPEN:
                offers[row.offerset].append(row)
            elif row.phase not in FINAL:
                yield row.uuid, self._of_session(row)
        for one in used:
            ended[one.session].append(one)
        yield from ((offerset, self._of_offers(some)) for offerset, some in offers.items())
        yield from ((session, self._of_usage(some)) for session, some in ended.items())

    def _of_offers(self, rows: list[SessionRow]) -> Entries:
        slots: dict[str, list[Slot]] = defaultdict(list)
        for row in rows:
            if row.slot:
                slots[row.slot.platform].append(row.slot)
        found: list[tuple[Account, Charge]] = []
        for platform, some in slots.items():
            if accounts := self._accounts_of(platform, rows[0].owner, rows[0].groups):
                charge = charge_of(some, offered=True)
                found += [(account, charge) for account in accounts]
        return tuple(found)

    def _of_session(self, row: SessionRow) -> Entries:
        accounts = self._accounts_of(row.slot.platform, row.owner, row.groups) if row.slot else []
        return tuple((account, charge_of([row.slot])) for account in accounts if row.slot)

    def _of_usage(self, used: list[Usage]) -> Entries:
        if not used:
            return ()
        first, charge = used[0], Charge(months=tuple((one.month, one.core_seconds) for one in used))
        return tuple((account, charge) for account in self._accounts_of(first.platform, first.owner, first.groups))

    def _accounts_of(self, platform: str, owner: str, groups: Iterable[str]) -> list[Account]:
        tracked = self._tracked.get(platform, ())
        found = [Account(platform, "owner", owner)] if "owner" in tracked else []
        return found + [Account(platform, "group", group) for group in groups] if "group" in tracked else found


def _used(slot: Slot, now: int) -> list[tuple[int, int]]:
    """By month, what a session has used of its slot by now."""
    done = min(slot.done, now)
    return core_seconds_by_month(replace(slot, prepare=min(slot.prepare, done), done=done))
