"""By how much quotas, and limits of one session, stand against a request."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from execbroker.model.messages import MessageItem, reason
from execbroker.model.waist import Slot
from execbroker.offers.wanting import Wanted
from execbroker.scheduling.accounts import Accounts, Excess
from execbroker.scheduling.asks import Ask
from execbroker.scheduling.charges import charge_of, size_of
from execbroker.scheduling.objectives import first_of
from execbroker.scheduling.quotas import Account, Quota
from execbroker.scheduling.search import Search
from execbroker.scheduling.timeline import Timeline

_UNITS = {"memory": "GiB of memory", "storage": "GiB of storage", "duration": "s"}


def over_limits(timeline: Timeline, wanted: Wanted, platform: str) -> Iterator[MessageItem]:
    """What more is asked for than one session may have on a platform."""
    ask = wanted.ask
    ways = [Search(timeline, ask, candidate).over for candidate in ask.candidates if candidate.platform == platform]
    for what, asked, most in min(ways, key=len, default=()):
        text = "{asked} {what} asked for in {path}, {over} more than the {most} that a session may have on {platform}"
        values = {"asked": asked, "over": asked - most, "most": most, "what": _UNITS.get(what, what)}
        yield reason("over-limit", _paths(wanted)[what], text, platform=platform, **values)


def over_quotas(timeline: Timeline, wanted: Wanted, ask: Ask, now: int) -> list[MessageItem]:
    """By how much the first session that there is room for, on the one platform of the ask, would pass quotas; [] where no
    quota is the matter."""
    unlimited = replace(ask, limits=())
    if not any(one.quotas for one in ask.candidates) or first_of(timeline, unlimited, now):
        return []
    free = without_quotas(unlimited)
    searches = [Search(timeline, free, one, enlarge=False) for one in free.candidates]
    found = [search.first(max(ask.earliest, now + search.candidate.prepare), ask.latest) for search in searches]
    slot = min((slot for slot in found if slot), key=lambda slot: slot.start, default=None)
    if slot is None:
        return []
    excess = (one for quota in ask.candidates[0].quotas for one in excess_of(timeline.accounts, quota, slot))
    return [over_quota(one, _paths(wanted)[one.what]) for one in excess]


def without_quotas(ask: Ask) -> Ask:
    return replace(ask, candidates=tuple(replace(one, quotas=()) for one in ask.candidates))


def excess_of(accounts: Accounts, quota: Quota, slot: Slot) -> Iterator[Excess]:
    cores, memory, *_ = size_of(slot)
    return accounts.excess(quota, cores, memory, slot.prepare, slot.done)


def over_quota(excess: Excess, path: str) -> MessageItem:
    account, total, over = excess.quota.account, excess.total, excess.over
    said = {"whose": _whose(account), "platform": account.platform}
    if excess.what == "monthly":
        text = "With {path}, {whose} sessions on {platform} use {total} core-hours in {month}, {over} more than {quota}"
        month = f"{datetime.fromtimestamp(excess.since, UTC):%Y-%m}"
        hours = {"total": _hours(total), "over": _hours(over), "quota": _hours(total - over)}
        return reason("over-quota", path, text, month=month, **hours, **said)
    text = "With {path}, {whose} sessions on {platform} hold {total} {what} at a time, {over} more than the {quota} that they may"
    what = _UNITS.get(excess.what, excess.what)
    return reason("over-quota", path, text, what=what, total=total, over=over, quota=total - over, **said)


def over_held(accounts: Accounts, quota: Quota, slots: Iterable[Slot]) -> int:
    """By how many core-seconds too much would be held in offers with these; 0 where it would not."""
    more = charge_of(slots, offered=True).held
    return 0 if quota.held is None else max(accounts.held(quota.account) + more - quota.held, 0)


def too_much_held(accounts: Accounts, slot: Slot, quotas: Iterable[Quota]) -> Iterator[MessageItem]:
    """Why this may not be held as an offer, too."""
    for quota in quotas:
        if quota.held is not None and (over := over_held(accounts, quota, [slot])):
            text = (
                "With these, {whose} offers on {platform} would hold {total} core-hours, {over} more than the {quota} that "
                "may be held unaccepted: accept or reject some, or ask again when they have expired"
            )
            hours = {"total": _hours(quota.held + over), "over": _hours(over), "quota": _hours(quota.held)}
            whose, platform = _whose(quota.account), quota.account.platform
            yield reason("too-many-offers", "offers", text, whose=whose, platform=platform, **hours)


def _paths(wanted: Wanted) -> Mapping[str, str]:
    """The fields by which so much is asked for."""
    compute = wanted.plan.nodes[0].path
    return {
        "cores": f"{compute}.cores.min",
        "memory": f"{compute}.memory.min",
        "storage": "storage",
        "accelerators": f"{compute}.accelerators",
        "nodes": "compute",
        "duration": "schedule.requested.duration",
        "sessions": "schedule.requested.start",
        "monthly": "schedule.requested.duration",
    }


def _whose(account: Account) -> str:
    return "your" if account.sort == "owner" else f"the group {account.name}'s"


def _hours(seconds: int) -> str:
    return f"{seconds / 3600:.6g}"
