import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from execbroker import dialect2024
from execbroker.documents import Block, each, lifted, present, renamed, without
from execbroker.draft.components import is_object_store
from execbroker.model.registry import short_name
from execbroker.model.times import format_duration, parse_duration

ROOMS = ("compute", "data", "storage")
BODY = ("executable", "resources", "datetime", "schedule")
OUTSIDE = {"name", "type", "uuid", "href", "description", "created", "modified", "messages", "options", "state", "schedule"}
OUTSIDE |= {"replicas", "costs", "metrics"}
"""What a component has beside its `spec`."""
STATUSES = {"INITIAL": "OFFERED"} | {status: status for status in ("OFFERED", "REJECTED", "EXPIRED")}
MODES = {"READONLY": "ro", "READWRITE": "rw"}
_KIND = re.compile(r"(^|\.)kind$")
_AMOUNT = re.compile(r"\.(cores|memory|size)\.(min|max)\b")


@dataclass(frozen=True, slots=True)
class Form:
    """How a request was written, and so how it is answered; without a request, as the draft's data model (6) has it.

    `enveloped`: in `request`. `datetime`: not `schedule`. `spec`: fields in `spec`. `pairs`: `requested` and `offered`.
    `single`: one compute resource without a list. `location`: what that of an executable is called. `least`: the duration as
    it was asked. `moved`: what stands elsewhere in v1.0, with where it stands in the request.
    """

    enveloped: bool = True
    datetime: bool = True
    spec: bool = True
    pairs: bool = False
    single: bool = False
    location: str = "notebook"
    least: str | None = None
    moved: tuple[tuple[str, str], ...] = ()


def form_of(document: Any) -> Form | None:
    """How a request for offers is written; None for the form of v1.0."""
    document = document if isinstance(document, dict) else {}
    inner = document.get("request")
    enveloped = "request" in document and isinstance(inner, dict | None)
    request: Block = inner if isinstance(inner, dict) else document
    resources, executable = _block(request, "resources"), _block(request, "executable")
    slots = request.get("datetime")
    if not (enveloped or resources or slots) and "kind" in executable and "type" not in executable:
        return None
    parts = [part for room in ROOMS for part in _listed(resources.get(room, request.get(room)))]
    inners = [lifted(part) for part in parts]
    return Form(
        enveloped=enveloped,
        datetime=bool(slots) or (enveloped and not request.get("schedule")),
        spec=any("spec" in part for part in (executable, *parts)),
        pairs=any("requested" in _block(part, name) for part in inners for name in ("cores", "memory", "size", "lifetime")),
        single=isinstance(resources.get("compute", request.get("compute")), dict),
        location=_location(lifted(executable)),
        least=_least(slots),
        moved=tuple(_moved(resources)),
    )


def downgrade(document: Any, form: Form) -> Any:
    """A v1.0 offerset as the draft writes it, in the form of the request; 2024's with what the draft has otherwise.

    The draft's `reasons` are the messages that say NO, their paths those of the request; all others stay `messages`.
    """
    older = dialect2024.downgrade(document)
    offers = {"offers": each(partial(_offer, form=form), older["offers"])} if "offers" in older else {}
    messages = [_placed(one, form) for one in older.get("messages", [])]
    if not form.enveloped:
        return older | ({"messages": messages} if messages else {}) | offers
    against = older["result"] == "NO"
    reasons = [_reason(one) for one in messages if against and _is_reason(one)]
    others = [one for one in messages if not (against and _is_reason(one))]
    more = {"reasons": reasons or None, "messages": others or None, "ident": older["uuid"]}
    return {
        "response": {"result": older["result"]} | present(more) | without(older, "result", "type", "uuid", "messages") | offers
    }


def downgrade_offer(session: Any) -> Block:
    """A v1.0 session as `{offer: {ident, status, expires, request}}`; once accepted, `job: {ident, phase, request}` beside it."""
    older, form = dialect2024.downgrade(session), Form()
    offer = _offer(older, form)
    if offer["status"] != "ACCEPTED":
        return {"offer": offer}
    return {"offer": offer, "job": {"ident": older["uuid"], "phase": older["state"], "request": _offer(older, form)["request"]}}


def _offer(session: Block, form: Form) -> Block:
    """One of the offers, from a session in the form of 2024."""
    session = session | {"resources": _resources(session, form)}
    if "executable" in session:
        session["executable"] = _executable(session, form)
    if form.datetime and "executing" in (schedule := session.get("schedule", {})):
        slot = schedule["executing"]
        duration = {"min": form.least or slot["duration"], "max": slot["duration"]}
        session = without(session, "schedule") | {"datetime": [{"start": slot["start"], "duration": duration}]}
    if not form.enveloped:
        return session
    about = {"ident": session["uuid"], "status": STATUSES.get(session["state"], "ACCEPTED"), "expires": session.get("expires")}
    rest = without(session, *BODY, *about, "uuid", "type", "state")
    rest |= {"href": _href(session["href"]), "options": [*map(_option, _choices(session))] or None}
    return present(about | rest) | {"request": {name: session[name] for name in BODY if name in session}}


def _choices(session: Block) -> list[Block]:
    return [option for option in session.get("options", ()) if option["path"] == "state"]


def _option(option: Block) -> Block:
    return option | {"path": "offer.status"}


def _resources(session: Block, form: Form) -> Block:
    resources = session.get("resources", {})
    parts = [part for room in ("storage", "data") for part in _listed(resources.get(room))]
    names = {part["uuid"]: part["name"] for part in parts if "name" in part}
    found: Block = {room: each(partial(_component, form=form, names=names), part) for room, part in resources.items()}
    if form.single and len(found.get("compute", ())) == 1:
        found["compute"] = found["compute"][0]
    return found


def _component(component: Block, form: Form, names: dict[str, str]) -> Block:
    if form.pairs:
        pairs = {name: _pair(component[name]) for name in ("cores", "memory", "size", "lifetime") if name in component}
        component = component | pairs
    if form.enveloped and "volumes" in component:
        component = component | {"volumes": each(partial(_volume, names=names), component["volumes"])}
    return _specified(component) if form.spec else component


def _pair(amount: Any) -> Block:
    """What is held is what there is to be had, neither less nor more."""
    if not isinstance(amount, dict):
        return {"requested": {"min": amount}, "offered": {"min": amount, "max": amount}}
    held = amount.get("max", amount.get("min"))
    return {"requested": {"min": amount.get("min", held)}, "offered": {"min": held, "max": held}}


def _volume(volume: Block, names: dict[str, str]) -> Block:
    """The draft links by name, and says `rw` and `ro`."""
    resource, mode = volume.get("resource"), volume.get("mode")
    return volume | present({"resource": names.get(str(resource), resource), "mode": MODES.get(str(mode), mode)})


def _executable(session: Block, form: Form) -> Block:
    executable = session["executable"]
    if "notebook" in executable:
        if form.location == "notebook.file":
            executable = executable | {"notebook": {"file": executable["notebook"]}}
        live = [one["location"] for one in session.get("connectors", ()) if one.get("type", "").endswith(":http")]
        executable = executable | ({"endpoint": live[0]} if live else {})
    if form.spec and short_name(executable.get("type", "")) == "docker-container":
        executable = renamed(executable, {"repository": "repo"})
        platform = executable.pop("platform", None)
        executable = executable | ({"platforms": [platform]} if platform else {})
    return _specified(executable) if form.spec else executable


def _specified(component: Block) -> Block:
    spec = without(component, *OUTSIDE)
    return {name: value for name, value in component.items() if name in OUTSIDE} | ({"spec": spec} if spec else {})


def _is_reason(message: Block) -> bool:
    return message.get("level") == "ERROR" and "path" in message.get("values", {})


def _reason(message: Block) -> Block:
    return {"path": message["values"]["path"], "text": message["message"]}


def _placed(message: Block, form: Form) -> Block:
    """A message about a field of the request as it was written."""
    values = message.get("values", {})
    if "path" not in values:
        return message
    values = values | {"path": _path(values["path"], form)}
    return message | {"values": values, "message": message["template"].format_map(values)}


def _path(path: str, form: Form) -> str:
    """Where in the request, in the envelope, what v1.0 has at `path` stands."""
    if path.startswith("schedule.requested."):
        field = path.rpartition(".")[2]
        return f"datetime[0].{'duration.min' if field == 'duration' else field}" if form.datetime else path
    room, dot, field = path.partition(".")
    room = dict(form.moved).get(room, room)
    family = room.partition("[")[0]
    if family not in ("executable", *ROOMS):
        return path
    if form.pairs:
        field = _AMOUNT.sub(r".\1.requested.\2", f".{field}").removeprefix(".")
    if (family, field) == ("executable", "location"):
        field = form.location
    field = _KIND.sub(r"\1type", field.replace("meta.", ""))
    spec = ".spec" if form.spec and dot and field.partition(".")[0] not in OUTSIDE else ""
    room = "compute[0]" if room == "compute" and not form.single else room
    return f"{'' if family == 'executable' else 'resources.'}{room}{spec}{dot}{field}"


def _href(url: str) -> str:
    base, _, uuid = url.rsplit("/", 2)
    return f"{base}/offers/{uuid}"


def _block(block: Block, name: str) -> Block:
    return found if isinstance(found := block.get(name), dict) else {}


def _listed(part: Any) -> list[Block]:
    return [one for one in (part if isinstance(part, list) else [part]) if isinstance(one, dict)]


def _location(executable: Block) -> str:
    if "notebook" not in executable:
        return "location"
    return "notebook.file" if isinstance(executable["notebook"], dict) else "notebook"


def _moved(resources: Block) -> Iterator[tuple[str, str]]:
    """Storage in S3 comes after the data, and what is left of the storage closes up."""
    storage, data = _all(resources.get("storage")), _all(resources.get("data"))
    stores = [at for at, one in enumerate(storage) if is_object_store(one)]
    yield from ((f"data[{len(data) + new}]", f"storage[{at}]") for new, at in enumerate(stores))
    kept = [at for at, one in enumerate(storage) if not is_object_store(one)]
    yield from ((f"storage[{new}]", f"storage[{at}]") for new, at in enumerate(kept) if new != at)


def _all(part: Any) -> list[Any]:
    return part if isinstance(part, list) else []


def _least(slots: Any) -> str | None:
    slot = next(iter(_listed(slots)), {})
    duration = slot.get("duration")
    least = duration.get("min") if isinstance(duration, dict) else duration
    with suppress(ValueError):
        return format_duration(parse_duration(least)) if isinstance(least, str) else None
    return None
