"""The wire of the 2024 talks and their prototype, read into v1.0 and written from it: two pure functions on plain documents.

| the prototype | v1.0 |
|---|---|
| `type`, absent where the place says it | `kind` |
| `uuid`, `name`, `href`, … of the thing itself | the same in `meta`, `href` as `meta.url` |
| `state`, of which READY is one | `phase`, AVAILABLE |
| `resources: {compute: [..], data: [..], storage: [..]}` | `compute` (a list only of several), `data`, `storage` |
| `schedule.requested.executing: {start, duration}`, any level left out | `schedule.requested` |
| a notebook's `notebook`; a container's `repository`, `image`, `tag` | `location`; `image.locations` |
| `size: {requested: {min: 10}}`, `lifetime: {requested: {min: P1D}}` | `size: {min: 10}`, `lifetime: P1D` |
| `spec: {..}` or `content: {..}` around a component's fields | the fields themselves |
| `update: {..}` or `request: {..}` around the document | the document itself |

Costs and metrics, which the prototype did not have, are the published ones in both. Blank parts are absent. Neither
function raises: what is not understood is passed on, so that the models report it where it stands.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from execbroker.documents import Block, each, folded, lifted, present, renamed, without
from execbroker.model.registry import published, short_name

RESOURCES = ("compute", "data", "storage")
DEFAULT_KINDS = {
    "compute": published("compute", "simple-compute-resource"),
    "data": published("data", "simple-data-resource"),
    "storage": published("storage", "simple-storage-resource"),
    "volumes": published("volume", "simple-volume-mount"),
}
META = {"href": "url"} | {name: name for name in ("uuid", "name", "description", "created", "modified", "messages", "options")}
PATHS = {"state": "phase", "schedule.executing.duration": "schedule.available.duration"}
ROOMS = {"sessions": "execution", "offersets": "offerset"}


def upgrade(document: Any) -> Any:
    """What the prototype's clients send, as v1.0 says it: a request for offers, or an update of a session.

    `{state: ACCEPTED}` alone is an update too. A v1.0 document stays what it is, blank parts excepted.
    """
    if not isinstance(document, dict):
        return document
    document = folded(document, "request", "update")
    if "executable" in document or not document.keys() & {"path", "state"}:
        return upgrade_request(document)
    if "path" not in document:
        return {"kind": "uri:enum-value-update", "path": "phase", "value": document["state"]}
    path = document["path"]
    return _kinded(document) | ({"path": PATHS.get(path.lstrip("/"), path)} if isinstance(path, str) else {})


def is_update(document: Any) -> bool:
    """Whether it is an update of a session as the prototype's clients, and not those of v1.0, write it."""
    if not isinstance(document, dict) or "kind" in document:
        return False
    inner = folded(document, "update")
    return "path" in inner and bool(document.keys() & {"type", "update"})


def downgrade(document: Any) -> Any:
    """A v1.0 offerset or session as the prototype wrote it; any other document stays what it is.

    A session's schedule is `schedule.{preparing,executing,releasing}`, each with `start` and `duration`: the prototype's
    level `offered` is left out, since the state says it. A start with no room to move is written as the bare instant.
    """
    if isinstance(document, dict) and "result" in document:
        return _older(document) | ({"offers": each(_session, document["offers"])} if "offers" in document else {})
    return _session(document) if isinstance(document, dict) and "phase" in document else document


def upgrade_request(request: Block) -> Block:
    """A request for offers, out of any envelope."""
    if isinstance(resources := request.get("resources"), dict):
        lifted = {name: resources[name] for name in RESOURCES if name in resources}
        request = without(request, "resources") | lifted
        if left := without(resources, *RESOURCES):
            request["resources"] = left
    for name in request.keys() & {"executable", *RESOURCES}:
        request[name] = each(partial(_component, name), request[name])
    if isinstance(compute := request.get("compute"), list) and len(compute) < 2:
        request["compute"] = compute[0] if compute else None
    request["schedule"] = _schedule(request.get("schedule"))
    return present(request)


def _schedule(schedule: Any) -> Any:
    requested = folded(schedule, "requested", "executing")
    if not isinstance(requested, dict) or "requested" in requested:
        return requested
    return {"requested": requested} if requested else None


def _component(place: str, component: Any) -> Any:
    if not isinstance(component, dict):
        return component
    component = _kinded(lifted(present(component)), DEFAULT_KINDS.get(place))
    meta = {new: component.pop(old) for old, new in META.items() if old in component}
    if meta and isinstance(component.setdefault("meta", {}), dict):
        component["meta"] = component["meta"] | meta
    component |= {name: read(component[name]) for name, read in READERS.items() if name in component}
    return _executable(component) if place == "executable" else component


def _kinded(block: Block, default: str | None = None) -> Block:
    kind = block.get("kind") or block.get("type") or default
    return present({"kind": kind} | without(block, "kind", "type"))


def _executable(executable: Block) -> Block:
    if "notebook" in executable and "location" not in executable:
        executable["location"] = executable.pop("notebook")
    parts = [executable.get(name, "") for name in ("repository", "image", "tag")]
    if not any(parts) or not all(isinstance(part, str | int | float) for part in parts):
        return executable
    repository, image, tag = map(str, parts)
    location = "/".join(part for part in (repository.rpartition("://")[2].rstrip("/"), image) if part)
    details = {name: executable[name] for name in ("digest", "platform") if name in executable}
    spec = {"locations": [f"{location}:{tag}" if tag else location]} | details
    return without(executable, "repository", "tag", *details) | {"image": spec}


def _least(length: Any) -> Any:
    amount = folded(length, "requested")
    return amount.get("min", amount) if isinstance(amount, dict) else amount


def _session(session: Block) -> Block:
    resources = {name: session[name] for name in RESOURCES if name in session}
    if "compute" in resources:
        resources["compute"] = [resources["compute"], *session.get("further_compute", ())]
    older = without(_older(session), *RESOURCES, "further_compute")
    return older | {"resources": {name: each(_older, part) for name, part in resources.items()}}


def _older(component: Block) -> Block:
    """A component, session or offerset with its metadata unfolded, in the prototype's terms."""
    meta = renamed(component.get("meta", {}), {new: old for old, new in META.items()})
    older = _typed(component) | meta | without(_typed(component), "meta")
    older |= {name: write(older[name]) for name, write in WRITERS.items() if name in older}
    return without(older, "meta")


def _older_executable(executable: Block) -> Block:
    older = _older(executable)
    if (kind := short_name(older["type"])) == "jupyter-notebook":
        return renamed(older, {"location": "notebook"})
    image = older.get("image", {})
    if kind != "docker-container" or len(image.get("locations", ())) != 1:
        return older
    repository, _, name = image["locations"][0].rpartition("/")
    name, _, tag = (name, "", "") if "@" in name else name.partition(":")
    named = {"repository": repository or None, "image": name, "tag": tag or None}
    return present(without(older, "image") | without(image, "locations") | named)


def _older_schedule(schedule: Block) -> Block:
    steps = renamed(schedule, {"available": "executing"})
    return {step: {part: time.removesuffix("/PT0S") for part, time in times.items()} for step, times in steps.items()}


def _older_option(option: Block) -> Block:
    older = {new: old for old, new in PATHS.items()}
    return _typed(option) | {"path": older.get(option["path"], option["path"])}


def _href(url: str) -> str:
    base, room, uuid = ("", *url.rsplit("/", 2))[-3:]
    return "/".join((base, ROOMS.get(room, room), uuid))


def _typed(block: Block) -> Block:
    return renamed(block, {"kind": "type", "phase": "state"})


READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("cores", "memory", "size"), lambda amount: folded(amount, "requested")),
    "lifetime": _least,
    "volumes": partial(each, partial(_component, "volumes")),
}
WRITERS: dict[str, Callable[[Any], Any]] = {
    "href": _href,
    "state": lambda phase: "READY" if phase == "AVAILABLE" else phase,
    "executable": _older_executable,
    "schedule": _older_schedule,
    "volumes": partial(each, _older),
    "connectors": partial(each, _typed),
    "messages": partial(each, _typed),
    "options": partial(each, _older_option),
}
