"""What applies to somebody now, and what is left to them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from execbroker.errors import Forbidden
from execbroker.ledger.rows import SessionRow
from execbroker.model.identities import Identity
from execbroker.model.times import format_instant
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


def longest_for(policies: Mapping[str, Policies], who: Identity, row: SessionRow) -> tuple[int | None, tuple[Quota, ...]]:
    """How many seconds somebody's session may last at most, and the quotas under which it may become longer: on the accounts on
    which it counts, those of the groups that they had when they asked. Raises Forbidden where its platform is no longer for them.
    """
    assert row.slot is not None
    here = policies.get(row.slot.platform)
    if here is None:
        return None, ()
    rule = here.rule(who.groups)
    if rule is None:
        raise Forbidden(str(here.not_for_you.message))
    quotas = (*rule.quotas(row.owner, row.groups), *here.quotas(row.owner, row.groups))
    return rule.most.duration if rule.most else None, tuple(dict.fromkeys(quotas))
