from collections.abc import Iterator
from dataclasses import replace

from execbroker.model.messages import MessageItem, reason
from execbroker.offers.countering import counter_offers, without_limit
from execbroker.offers.limiting import PERFORMANCE
from execbroker.offers.quotas import over_limits, over_quotas, without_quotas
from execbroker.offers.wanting import Wanted
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.asks import Ask, Part
from execbroker.scheduling.flavours import flavour_amounts, smallest_flavour
from execbroker.scheduling.objectives import first_of, least_cost
from execbroker.scheduling.quotes import fits
from execbroker.scheduling.timeline import SHARED, Place, Site, Timeline

_NAMED = ("cores", "memory", "storage")


def why_not(timeline: Timeline, wanted: Wanted, now: int) -> list[MessageItem]:
    """Every reason for which there is no offer, on each platform, and what would have to change for a YES."""
    ask = wanted.ask
    if ask.latest < ask.earliest:
        text = "The latest start asked for in {path} is {late} s ago"
        return [reason("start-is-past", "schedule.requested.start", text, late=ask.earliest - ask.latest)]
    able = {candidate.platform for candidate in wanted.candidates}
    reasons: list[MessageItem] = []
    for platform in wanted.platforms:
        large = [*over_limits(timeline, wanted, platform), *_too_large(timeline, wanted, platform)]
        reasons += large or (_no_room(timeline, wanted, ask, platform, now) if platform in able else [])
    return [*reasons, *(counter_offers(timeline, wanted, now) if not wanted.plan.reasons else [])]


def _no_room(timeline: Timeline, wanted: Wanted, ask: Ask, platform: str, now: int) -> list[MessageItem]:
    here = replace(ask, candidates=tuple(candidate for candidate in ask.candidates if candidate.platform == platform))
    over = over_quotas(timeline, wanted, here, now)
    here = without_quotas(here) if over else here
    dear = list(_too_dear(timeline, wanted, here, platform, now))
    if over or dear:
        return [*over, *dear]
    for name, path, without in (
        ("storage", "storage", replace(here, storages=())),
        ("licences", "compute.licences", replace(here, licences=())),
    ):
        if without != here and first_of(timeline, without, now):
            text = "{platform} has no room for the {what} of {path}, for as long as it is wanted"
            return [reason("no-room", path, text, platform=platform, what=name)]
    return [reason("no-room", "schedule.requested.start", "{platform} has no room that starts within {path}", platform=platform)]


def _too_dear(timeline: Timeline, wanted: Wanted, ask: Ask, platform: str, now: int) -> Iterator[MessageItem]:
    """By how much each limit is too low."""
    if not ask.limits or not first_of(timeline, replace(ask, limits=()), now):
        return
    prices, free = ask.candidates[0].prices, replace(ask, limits=())
    over = [(limit, least_cost(timeline, free, now, limit.currency)) for limit in wanted.plan.limits]
    if all(due is None or fits(due, limit.most) for limit, due in over):  # each can be kept, but not all at the same time
        over = [(limit, least_cost(timeline, without_limit(ask, limit.currency), now, limit.currency)) for limit, _ in over]
    for (path, currency, most), due in over:
        if due is not None and not fits(due, most):
            text = "{platform} would cost {due} {units} at least, {missing} more than {path} allows"
            values = {"due": f"{due:.6g}", "missing": f"{due - most:.6g}", "limit": f"{most:.6g}"}
            units = prices.of(currency).units if prices else ""
            yield reason("too-dear", path, text, platform=platform, units=units, **values)


def _too_large(timeline: Timeline, wanted: Wanted, platform: str) -> Iterator[MessageItem]:
    """What no node, flavour or pool of a platform has as much of."""
    site = timeline.site(platform)
    sizes = [size for node in site.nodes if (size := timeline.capacity(Place(platform, node))).cores]
    if not sizes:
        yield reason("no-nodes", "compute", "{platform} has nothing to offer at the moment", platform=platform)
        return
    yield from _more_than_pools(timeline, wanted, platform, site)
    ways = [candidate.parts for candidate in wanted.candidates if candidate.platform == platform] or [wanted.ask.parts]
    yield from min((list(_more_than_nodes(wanted, platform, site, sizes, parts)) for parts in ways), key=len)
    if len(wanted.plan.nodes) > len(sizes):
        text = "{asked} nodes are asked for in {path}, but {platform} has {most}"
        yield reason("too-many-nodes", "compute", text, asked=len(wanted.plan.nodes), most=len(sizes), platform=platform)


def _more_than_nodes(
    wanted: Wanted, platform: str, site: Site, sizes: list[Amounts], parts: tuple[Part, ...]
) -> Iterator[MessageItem]:
    limits = [flavour_amounts(one)._replace(storage=1 << 40) for one in site.flavours] or sizes
    where = "in a flavour" if site.flavours else "on a node"
    asked = _asked_of_nodes(wanted, parts, pooled="storage" in site.pools)
    large = [
        _too_much(kind, _path(wanted, path, kind, count), count, most, platform, where)
        for path, least in asked.items()
        for kind, count in least.items()
        if count > (most := max(one.of(kind) for one in limits))
    ]
    yield from large
    if large:
        return
    if not all(any(least.within(one) for one in limits) for least in asked.values()):
        text = f"No single {'flavour' if site.flavours else 'node'} of {{platform}} has all of it together"
        yield reason("no-such-node", "compute", text, platform=platform)
    elif site.flavours and not all(smallest_flavour(site.flavours, part) for part in parts):
        text = "Every flavour of {platform} that is enough is more than {path} asks for at most"
        yield reason("no-such-flavour", "compute", text, platform=platform)


def _more_than_pools(timeline: Timeline, wanted: Wanted, platform: str, site: Site) -> Iterator[MessageItem]:
    pool = timeline.capacity(Place(platform, SHARED))
    storage = sum(one.size.min for one in wanted.plan.storages)
    if "storage" in site.pools and storage > pool.storage:
        yield _too_much("storage", "storage", storage, pool.storage, platform, "in all")
    for name, count in wanted.plan.licences.items():
        if count > (has := pool.of(name) if name in site.pools else 0):
            yield _too_much(f"{name} licences", "compute.licences", count, has, platform, "in all")


def _asked_of_nodes(wanted: Wanted, parts: tuple[Part, ...], *, pooled: bool) -> dict[str, Amounts]:
    """What each compute resource of the request asks of a node; the first with the storage, where that is on nodes."""
    storage = 0 if pooled else sum(one.size.min for one in wanted.plan.storages)
    asked: dict[str, Amounts] = {}
    for node, part in zip(wanted.plan.nodes, parts, strict=True):
        asked.setdefault(node.path, part.least._replace(storage=0 if asked else storage))
    return asked


def _path(wanted: Wanted, compute: str, kind: str, count: int) -> str:
    """The field that asks for so much."""
    if kind == "storage":
        return "storage"
    powerful = [path for path, uri, _ in wanted.plan.metrics if uri == PERFORMANCE]
    if kind == "cores" and powerful and all(node.cores.min < count for node in wanted.plan.nodes if node.path == compute):
        return powerful[0]
    return f"{compute}.{kind}.min" if kind in ("cores", "memory") else f"{compute}.accelerators"


def _too_much(kind: str, path: str, asked: int, most: int, platform: str, where: str) -> MessageItem:
    text = "{asked} {what} asked for in {path}, but {platform} has at most {most} {where}"
    what = f"GiB of {kind}" if kind in ("memory", "storage") else kind
    name = f"too-much-{kind if kind in _NAMED else 'of-a-kind'}"
    return reason(name, path, text, what=what, asked=asked, most=most, platform=platform, where=where)
