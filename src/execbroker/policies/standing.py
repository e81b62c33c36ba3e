"""What applies to somebody now, and what is left to them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from execbroker.errors import Forbidden, NoRoom
from execbroker.model.identities import Identity
from execbroker.model.times import format_instant
from execbroker.model.waist import Slot
from execbroker.policies.rules import Policies, Rule
from execbroker.scheduling.accounts import Accounts
from execbroker.scheduling.months import following, month_of
from execbroker.scheduling.quotas import RESOURCES, Quota


def standing_of(who: Identity, rules: Iterable[Rule], accounts: Accounts, now: int) -> dict[str, Any]:
    """Who somebody is and, on each platform that is for them, what one session may have, what they may have in all, what of that
    they have now, and what is left of it: cores, sessions, GiB of memory, and core-hours."""
    return {
        "name": who.name,
        "groups": sorted(who.groups),
        "admin": who.admin,
        "platforms": [
            {
                "name": rule.platform,
                "limits": limits_of(rule),
                "quotas": [_account(quota, accounts, now) for quota in rule.quotas(who.owner, who.groups)],
            }
            for rule in rules
        ],
    }


def limits_of(rule: Rule) -> dict[str, Any]:
    return rule.policy.limits.model_dump(mode="json", exclude_none=True)


def _account(quota: Quota, accounts: Accounts, now: int) -> dict[str, Any]:
    account, month = quota.account, month_of(now)
    most = dict(zip(RESOURCES, quota.at_once, strict=True)) | {"held": _hours(quota.held), "monthly": _hours(quota.monthly)}
    used: dict[str, float] = dict(zip(RESOURCES, accounts.at(account, now), strict=True))
    used |= {"held": accounts.held(account) / 3600, "monthly": accounts.used(account, month) / 3600}
    limited = {name: value for name, value in most.items() if value is not None}
    renewed = {"renewed": format_instant(datetime.fromtimestamp(following(month), UTC))} if "monthly" in limited else {}
    return {
        "of": account.sort,
        "name": account.name,
        "quota": limited,
        "used": {name: used[name] for name in limited},
        "left": {name: max(value - used[name], 0) for name, value in limited.items()},
        **renewed,
    }


def _hours(seconds: int | None) -> float | None:
    return None if seconds is None else seconds / 3600


def quotas_for_longer(policies: Mapping[str, Policies], who: Identity, slot: Slot, seconds: int) -> tuple[Quota, ...]:
    """What somebody may hold where a session is made longer. Raises Forbidden where its platform is no longer for them, NoRoom
    where one session may not be so long."""
    here = policies.get(slot.platform)
    rule = here.rule(who.groups) if here else None
    if here and rule is None and seconds > 0:
        raise Forbidden(str(here.not_for_you.message))
    longest = rule.most.duration if rule and rule.most else None
    if longest is not None and seconds > 0 and (over := slot.end - slot.start + seconds - longest) > 0:
        text = f"A session may last {longest} s on {slot.platform}; it would be {over} s more"
        raise NoRoom(text, seconds=max(seconds - over, 0))
    return rule.quotas(who.owner, who.groups) if rule else ()


def longest_for(policies: Mapping[str, Policies], who: Identity, slot: Slot, most: int) -> tuple[int, tuple[Quota, ...]]:
    """By how many seconds somebody may make a session longer, as far as limits go; and the quotas that they are under."""
    try:
        return most, quotas_for_longer(policies, who, slot, most)
    except Forbidden:
        return 0, ()
    except NoRoom as less:
        return int(less.extra["seconds"]), quotas_for_longer(policies, who, slot, 0)
