import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import structlog

from execbroker.config import OfferSettings
from execbroker.model.identities import Identity
from execbroker.model.messages import MessageItem, reason
from execbroker.model.waist import Capacity
from execbroker.offers.asking import Plan
from execbroker.offers.wanting import Wanted, candidates_on
from execbroker.platforms.base import Platform
from execbroker.policies.rules import Policies, Rule
from execbroker.scheduling.asks import Candidate
from execbroker.staging.base import Estimate

log = structlog.get_logger()


class Weighing:
    """What a request comes to before there is a look for room: the platforms on which it could run, and all that stands against
    it on the others."""

    def __init__(
        self,
        platforms: Mapping[str, Platform],
        policies: Mapping[str, Policies],
        capacities: Mapping[str, Capacity],
        defaults: OfferSettings,
    ) -> None:
        self._platforms, self._policies, self._capacities, self._defaults = platforms, policies, capacities, defaults

    def rules(self, who: Identity) -> dict[str, Rule]:
        """What applies to somebody, on each platform that is for them."""
        found = ((name, self._policies[name].rule(who.groups)) for name in self._platforms)
        return {name: rule for name, rule in found if rule}

    async def wanted(self, plan: Plan, who: Identity) -> Wanted:
        """What the books are asked for. On platforms that the request leaves aside it is weighed, too, for the nearest yes."""
        chosen = plan.request.platforms or list(self._platforms)
        rules = self.rules(who)
        candidates: list[Candidate] = []
        said = [*_unknown_platforms(chosen, self._platforms)]
        said += [self._policies[name].not_for_you for name in self._platforms if name in chosen and name not in rules]
        against = {name: list(rule.reasons_against(plan)) for name, rule in rules.items()}
        said += [one for name, some in against.items() if name in chosen for one in some]
        names = [name for name in rules if plan.launch and not against[name]]
        for name, estimate in zip(names, await asyncio.gather(*(self._estimate(name, plan) for name in names)), strict=True):
            found = list(self._found(plan, who, rules[name], estimate))
            candidates += (one for one in found if isinstance(one, Candidate))
            if name in chosen:
                said += (one for one in found if isinstance(one, MessageItem))
        return Wanted(
            owner=who.owner,
            request=plan.request.model_dump_json(exclude_none=True),
            plan=plan,
            candidates=tuple(one for one in candidates if one.platform in chosen),
            elsewhere=tuple(one for one in candidates if one.platform not in chosen),
            platforms=tuple(name for name in rules if name in chosen),
            groups=tuple(sorted(who.groups)),
            warnings=_distinct([*plan.warnings, *(one for one in said if one.level == "WARN")]),
            reasons=_distinct([*plan.reasons, *(one for one in said if one.level != "WARN")]),
            expires=int(self._defaults.expires.total_seconds()),
            limit=self._defaults.limit,
            longest=int(self._defaults.longest.total_seconds()),
        )

    async def _estimate(self, name: str, plan: Plan) -> Estimate:
        """What a platform needs to prepare it, or every reason why it cannot run there."""
        assert plan.launch is not None
        against = self._platforms[name].reasons_against(plan.launch, plan.mounts)
        if against:
            return Estimate(reasons=tuple(against))
        try:
            return await self._platforms[name].estimate(plan.launch, plan.sources)
        except Exception:
            log.exception("platform.estimate_failed", platform=name)
            text = "{platform} cannot say how long its preparation would take"
            return Estimate(reasons=(reason("no-estimate", "executable", text, platform=name),))

    def _found(self, plan: Plan, who: Identity, rule: Rule, estimate: Estimate) -> Iterator[Candidate | MessageItem]:
        """The ways in which it could run on a platform where nothing forbids it, and what there is to say of that."""
        yield from estimate.reasons
        if plan.reasons or estimate.reasons:
            return
        yield from estimate.warnings
        quotas = rule.quotas(who.owner, who.groups)
        for one in self._candidates(rule.platform, plan, estimate):
            yield replace(one, most=rule.most, quotas=quotas) if isinstance(one, Candidate) else one
        yield from rule.warnings(plan)

    def _candidates(self, name: str, plan: Plan, estimate: Estimate) -> Iterable[Candidate | MessageItem]:
        platform, capacity = self._platforms[name], self._capacities.get(name, Capacity(()))
        if len(plan.nodes) > 1 and not platform.several_nodes:
            text = "{platform} gives a session one node; {path} asks for {nodes}"
            return [reason("several-nodes", "compute", text, platform=name, nodes=len(plan.nodes))]
        return candidates_on(plan, platform.settings, capacity, estimate.seconds, estimate.size)


def _unknown_platforms(chosen: Iterable[str], known: Iterable[str]) -> Iterator[MessageItem]:
    names = set(known)
    text = "There is no platform {name}, which {path} names; those there are: {known}"
    for name in chosen:
        if name not in names:
            yield reason("unknown-platform", "platforms", text, name=name, known=", ".join(sorted(names)))


def _distinct(messages: Iterable[MessageItem]) -> tuple[MessageItem, ...]:
    """Each once: several platforms may say the same."""
    return tuple({(item.kind, item.message): item for item in messages}.values())
