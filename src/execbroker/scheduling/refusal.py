from collections.abc import Iterable
from dataclasses import replace

from execbroker.model.messages import MessageItem, reason
from execbroker.scheduling.search import Ask, find
from execbroker.scheduling.timeline import Timeline

_FIELDS = (("cores", "compute.cores.min", ""), ("memory", "compute.memory.min", " GiB"), ("storage", "storage", " GiB"))


def why_not(timeline: Timeline, ask: Ask, platforms: Iterable[str]) -> list[MessageItem]:
    """Every reason for which `find` found nothing: on each of `platforms`, that it is too large for every node, and on
    those that could run it, that there is no room in time."""
    if ask.latest < ask.earliest:
        return [
            reason("start-is-past", "schedule.requested.start", "The latest start asked for in {path} is {late} s ago",
                   late=ask.earliest - ask.latest)
        ]  # fmt: skip
    able = {candidate.platform for candidate in ask.candidates}
    reasons: list[MessageItem] = []
    for platform in platforms:
        large = _too_large(timeline, ask, platform)
        reasons += large or (_no_room(timeline, ask, platform) if platform in able else [])
    return reasons


def _no_room(timeline: Timeline, ask: Ask, platform: str) -> list[MessageItem]:
    here = tuple(candidate for candidate in ask.candidates if candidate.platform == platform)
    if ask.storages and find(timeline, replace(ask, storages=(), candidates=here, limit=1), ask.earliest):
        text = "{platform} has no room for the storage of {path}, for as long as it is to be kept"
        return [reason("no-room", "storage", text, platform=platform)]
    text = "{platform} has no room that starts within {path}"
    return [reason("no-room", "schedule.requested.start", text, platform=platform)]


def _too_large(timeline: Timeline, ask: Ask, platform: str) -> list[MessageItem]:
    sizes = [profile.capacity for _, profile in timeline.of(platform)]
    if not sizes:
        return [reason("no-nodes", "compute", "{platform} has nothing to offer at the moment", platform=platform)]
    found = []
    for name, path, units in _FIELDS:
        most = max((getattr(size, name) for size in sizes), default=0)
        if (asked := getattr(ask.least, name)) > most:
            text = "{asked}{units} of {what} asked for in {path}, but {platform} has at most {most}{units} on a node"
            found.append(
                reason(f"too-much-{name}", path, text, what=name, asked=asked, most=most, units=units, platform=platform)
            )
    if not found and not any(ask.least.within(size) for size in sizes):
        found.append(reason("no-such-node", "compute", "No single node of {platform} has all of it together", platform=platform))
    return found
