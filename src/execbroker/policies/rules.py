from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from execbroker.errors import StartupError
from execbroker.kinds.volume import SimpleVolumeMount
from execbroker.model.components import AbstractDataResource, UnknownDataResource
from execbroker.model.messages import MessageItem, reason, warning
from execbroker.model.policies import Limits, Policy
from execbroker.model.policies import Quota as QuotaSettings
from execbroker.model.waist import Named
from execbroker.offers.asking import Plan
from execbroker.policies.locations import NO_HOSTS, Location
from execbroker.policies.patterns import READERS, Pattern, read_patterns
from execbroker.scheduling.asks import FOREVER
from execbroker.scheduling.quotas import Account, Most, Quota

ANYBODY = Policy()
WITH_HOSTS = ("images", "notebooks", "programs", "data", "endpoints")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a platform allows those whom one of its rules is for."""

    platform: str
    policy: Policy
    allow: Mapping[str, tuple[Pattern, ...]]
    deny: Mapping[str, tuple[Pattern, ...]]

    def admits(self, groups: Iterable[str]) -> bool:
        mine = self.policy.groups
        return mine is None or any(fnmatchcase(group, pattern) for group in groups for pattern in mine)

    @property
    def most(self) -> Most | None:
        limits = self.policy.limits
        duration = None if limits.duration is None else int(limits.duration.total_seconds())
        return None if limits == Limits() else Most(**{**limits.model_dump(), "duration": duration})

    def quotas(self, owner: str, groups: Iterable[str]) -> tuple[Quota, ...]:
        """Those that someone of these groups is under: their own, and that of each of their groups that the rule is for."""
        mine = self.policy.quotas
        found = [_quota(Account(self.platform, "owner", owner), mine.owner)]
        found += [_quota(Account(self.platform, "group", group), mine.group) for group in sorted(groups) if self.admits([group])]
        return tuple(quota for quota in found if quota.any)

    def reasons_against(self, plan: Plan) -> Iterator[MessageItem]:
        """Why what a request names may not be used here; whatever is not named by a rule may."""
        for named in named_in(plan) if self.allow or self.deny else ():
            if named.sort in self.allow or self.deny.get(named.sort):
                yield from self._against(named)

    def _against(self, named: Named) -> Iterator[MessageItem]:
        said = {"platform": self.platform, "sort": named.sort, "text": named.text}
        try:
            value = READERS[named.sort].read(named.text)
        except ValueError as error:
            text = "{text} in {path} cannot be compared with what {platform} allows: {why}"
            yield reason("unclear-name", named.path, text, why=error, **said)
            return
        if any(pattern.denies(value) for pattern in self.deny.get(named.sort, ())):
            yield reason("denied", named.path, "{platform} does not allow {text} in {path}", **said)
        elif named.sort in self.allow and not any(pattern.allows(value) for pattern in self.allow[named.sort]):
            allowed = ", ".join(self.policy.allow.of(named.sort) or []) or "none"
            text = "{platform} does not allow {text} in {path}; of {sort} it allows: {allowed}"
            yield reason("not-allowed", named.path, text, allowed=allowed, **said)

    def warnings(self, plan: Plan) -> Iterator[MessageItem]:
        """Where more is asked for at most than there may be."""
        most = self.most
        if most is None:
            return
        for path in dict.fromkeys(node.path for node in plan.nodes):
            nodes = [node for node in plan.nodes if node.path == path]
            yield from self._capped(f"{path}.cores.max", sum(node.cores.cap for node in nodes), most.cores, "cores")
            yield from self._capped(f"{path}.memory.max", sum(node.memory.cap for node in nodes), most.memory, "GiB of memory")
            for index, wish in enumerate(nodes[0].accelerators):
                asked = wish.count.cap * len(nodes)
                yield from self._capped(f"{path}.accelerators[{index}].count.max", asked, most.accelerators, "accelerators")
        for index, storage in enumerate(plan.storages):
            yield from self._capped(f"storage[{index}].size.max", storage.size.cap, most.storage, "GiB of storage")

    def _capped(self, path: str, asked: int, most: int | None, what: str) -> Iterator[MessageItem]:
        if most is not None and most < asked < FOREVER:
            text = "{platform} gives {most} {what} at most, {over} less than {path} asks for at most"
            yield warning("capped", path, text, platform=self.platform, most=most, what=what, over=asked - most)


class Policies:
    """The rules of one platform, in their order."""

    def __init__(self, platform: str, policies: Iterable[Policy]) -> None:
        """Raises StartupError where a pattern is none."""
        self.platform = platform
        self._rules = [_rule(platform, policy) for policy in policies]
        self._open = Rule(platform, ANYBODY, {}, {})
        quotas = [rule.policy.quotas for rule in self._rules]
        self.tracked = frozenset(
            sort for sort in ("owner", "group") if any(getattr(one, sort) != QuotaSettings() for one in quotas)
        )
        """Whose use of the platform has to be known, for some quota."""

    def rule(self, groups: Iterable[str]) -> Rule | None:
        """The first that is for someone of these groups; None where none is."""
        if not self._rules:
            return self._open
        return next((rule for rule in self._rules if rule.admits(groups)), None)

    def quotas(self, owner: str, groups: Iterable[str]) -> tuple[Quota, ...]:
        rule = self.rule(groups) if self.tracked else None
        return rule.quotas(owner, groups) if rule else ()

    @property
    def not_for_you(self) -> MessageItem:
        known = ", ".join(dict.fromkeys(group for rule in self._rules for group in rule.policy.groups or [])) or "nobody"
        text = "{platform} is not for you: it is for members of {groups}"
        return reason("not-for-you", "platforms", text, platform=self.platform, groups=known)


def named_in(plan: Plan) -> Iterator[Named]:
    """All that an understood request names, hosts included."""
    for named in _named(plan):
        yield named
        if named.sort in WITH_HOSTS and (host := _host_in(named)):
            yield Named("hosts", named.path, host)


def _named(plan: Plan) -> Iterator[Named]:
    request = plan.request
    if plan.launch and request.executable:
        yield from (Named(one.sort, f"executable.{one.path}", one.text) for one in request.executable.names())
    for index, data in enumerate(request.data or []):
        yield from (Named(one.sort, f"data[{index}].{one.path}", one.text) for one in _of_data(data))
    for index, volume in enumerate((request.compute and request.compute.volumes) or []):
        if isinstance(volume, SimpleVolumeMount) and volume.path:
            yield Named("paths", f"{request.computes[0][0]}.volumes[{index}].path", volume.path)


def _of_data(data: AbstractDataResource) -> list[Named]:
    """What there is nothing to fetch from is refused anyway."""
    try:
        return [] if isinstance(data, UnknownDataResource) else list(data.names())
    except ValueError:
        return []


def _host_in(named: Named) -> str:
    """The host of an address, as it is written; images of registries have rules of their own."""
    if named.sort == "images" and "://" not in named.text:
        return ""
    text = named.text if "://" in named.text or named.sort != "endpoints" or not named.text else f"https://{named.text}"
    try:
        location = Location.read(text)
    except ValueError:
        return text
    return "" if location.scheme in (*NO_HOSTS, "docker", "oras") else location.host


def _rule(platform: str, policy: Policy) -> Rule:
    try:
        return Rule(platform, policy, read_patterns(policy.allow), read_patterns(policy.deny))
    except ValueError as error:
        raise StartupError(f"The policies of the platform {platform} are wrong: {error}") from None


def _quota(account: Account, quota: QuotaSettings) -> Quota:
    held, monthly = (None if hours is None else round(hours * 3600) for hours in (quota.held, quota.monthly))
    return Quota(account, quota.cores, quota.memory, quota.sessions, held, monthly)
