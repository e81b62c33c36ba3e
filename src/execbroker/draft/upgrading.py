import math
from contextlib import suppress
from functools import partial
from typing import Any

from execbroker import dialect2024
from execbroker.documents import Block, folded, lifted, present, without
from execbroker.draft.components import data_of, executable_of, files_of, is_object_store, storage_of, volume_of
from execbroker.errors import Fault, Invalid
from execbroker.model.times import parse_duration

ROOMS = ("compute", "data", "storage")
REQUEST = "a request is needed here: executable, resources, datetime"
NOT_REQUESTS = {
    "offer": f"{REQUEST}; an offer's status is changed at POST /offers/{{ident}}",
    "update": f"{REQUEST}; a session is updated at POST /sessions/{{uuid}}",
    "response": REQUEST,
    "job": REQUEST,
}
STATUSES = ("ACCEPTED", "REJECTED", "CANCELLED")
UPDATE = 'v1.0 takes {{"kind": "uri:enum-value-update", "path": "phase", "value": "{}"}} at POST /sessions/{}'


def upgrade(document: Any) -> Any:
    """A request for offers as the draft writes it, as v1.0 says it; a v1.0 request stays what it is, blank parts excepted.

    Raises Invalid where it may mean several things, or what v1.0 cannot say: its faults name the paths of v1.0.
    """
    if not isinstance(document, dict):
        return document
    faults: list[Fault] = []
    request = _merged(document, "request", faults)
    faults += [Fault(name, "not-a-request", text) for name, text in NOT_REQUESTS.items() if name in request]
    request = _scheduled(_merged(request, "resources", faults), faults)
    request |= _rooms(request, faults)
    if "executable" in request:
        request["executable"] = executable_of(request["executable"], faults)
    if faults:
        raise Invalid(f"{len(faults)} fault{'s' * (len(faults) > 1)} in the document", tuple(faults))
    return dialect2024.upgrade_request(present(request))


def upgrade_offer(document: Any, uuid: str) -> Block:
    """`{offer: {ident, status}}` (5.2.3), sent to the offer `uuid`, as an update of v1.0. Raises Invalid."""
    offer = document.get("offer") if isinstance(document, dict) else None
    if not isinstance(offer, dict):
        text = f"{{ident, status}} is needed here; {UPDATE.format('ACCEPTED', uuid)}"
        raise Invalid(faults=(Fault("offer", "not-an-object", text, _brief(offer)),))
    faults = [
        Fault(f"offer.{name}", "not-changed", "only the status can be changed") for name in offer.keys() - {"ident", "status"}
    ]
    ident, status = offer.get("ident"), offer.get("status")
    if ident is not None and str(ident).casefold() != uuid.casefold():
        faults.append(Fault("offer.ident", "another-offer", f"the offer of this address is {uuid}", _brief(ident)))
    value = status.upper() if isinstance(status, str) else ""
    if value not in STATUSES:
        text = f"one of {', '.join(STATUSES)} is needed here; {UPDATE.format('ACCEPTED', uuid)}"
        faults.append(Fault("offer.status", "unknown-value", text, _brief(status)))
    if faults:
        raise Invalid(f"{len(faults)} fault{'s' * (len(faults) > 1)} in the document", tuple(faults))
    return {"kind": "uri:enum-value-update", "path": "phase", "value": value}


def _merged(document: Block, name: str, faults: list[Fault]) -> Block:
    """The document with the fields of the block `name` beside its own."""
    inner = document.get(name)
    if inner is None:
        return without(document, name)
    if not isinstance(inner, dict):
        faults.append(Fault(name, "not-an-object", "an object is needed here", _brief(inner)))
        return without(document, name)
    outer = without(document, name)
    twice = present(inner).keys() & present(outer).keys()
    faults += [
        Fault(part, "said-twice", f"one is needed; there is one in {name} and one beside it") for part in sorted(map(str, twice))
    ]
    return outer | inner


def _scheduled(request: Block, faults: list[Fault]) -> Block:
    slots, schedule = request.get("datetime"), folded(request.get("schedule"), "requested", "executing")
    slots = slots if isinstance(slots, list) else [slots]
    slots = [slot for slot in slots if slot is not None]
    if slots and schedule:
        faults.append(Fault("schedule", "said-twice", "one is needed; there is a datetime, too"))
    if len(slots) > 1:
        text = f"one interval is needed here; ask once for each of the {len(slots)} of datetime"
        faults.append(Fault("schedule.requested.start", "several", text))
    slot = slots[0] if slots else schedule
    if slots and not isinstance(slot, dict):
        faults.append(Fault("schedule.requested", "not-an-object", "{start, duration} is needed here", _brief(slot)))
    return without(request, "datetime") | {"schedule": {"requested": _slot(slot, faults)} if isinstance(slot, dict) else slot}


def _slot(slot: Block, faults: list[Fault]) -> Block:
    start, duration = slot.get("start"), slot.get("duration")
    if isinstance(start, list):
        if len(start) > 1:
            text = f"one interval is needed here; ask once for each of the {len(start)}"
            faults.append(Fault("schedule.requested.start", "several", text))
        start = next(iter(start), None)
    return slot | {"start": start, "duration": _least(duration, faults) if isinstance(duration, dict) else duration}


def _least(duration: Block, faults: list[Fault]) -> Any:
    """How long is asked for: offers are for just as long, and so within any maximum."""
    least, most = duration.get("min"), duration.get("max")
    path = "schedule.requested.duration"
    if least is None and most is not None:
        faults.append(
            Fault(path, "no-minimum", "how long is needed? A duration such as PT1H; a max alone does not say", _brief(most))
        )
    with suppress(ValueError, TypeError, AttributeError):  # what is no duration is reported by the models
        if most is not None and least is not None and parse_duration(most) < parse_duration(least):
            faults.append(Fault(path, "empty-range", f"a duration of at least {least} and at most {most}, there is none"))
    return least


def _rooms(request: Block, faults: list[Fault]) -> Block:
    """The resources, each kind of them in the terms of the 2024 dialect."""
    rooms = {name: request[name] for name in ROOMS if request.get(name) is not None}
    storage = rooms.get("storage")
    if isinstance(storage, list) and (stores := [one for one in storage if is_object_store(one)]):
        rooms["storage"] = [one for one in storage if not is_object_store(one)]
        found = [data_of(one, faults) for one in stores]
        data = rooms.get("data", [])
        rooms["data"] = [*data, *found] if isinstance(data, list) else data
    files = files_of(rooms.get("data"))
    for name, convert in (("compute", partial(_compute, files=files)), ("storage", _storage)):
        parts = rooms.get(name)
        if isinstance(parts, list):
            several = name == "storage" or len(parts) > 1
            rooms[name] = [convert(part, f"{name}[{at}]" if several else name, faults) for at, part in enumerate(parts)]
        elif parts is not None:
            rooms[name] = convert(parts, name, faults)
    return rooms


def _compute(compute: Any, path: str, faults: list[Fault], files: dict[str, str]) -> Any:
    if not isinstance(compute, dict):
        return compute
    compute = lifted(compute)
    if isinstance(volumes := compute.get("volumes"), list):
        compute["volumes"] = [volume_of(one, f"{path}.volumes[{at}]", faults, files) for at, one in enumerate(volumes)]
    return _with_amounts(compute, path, faults, "cores", "memory")


def _storage(storage: Any, path: str, faults: list[Fault]) -> Any:
    return (
        _with_amounts(storage_of(lifted(storage), path, faults), path, faults, "size") if isinstance(storage, dict) else storage
    )


def _with_amounts(component: Block, path: str, faults: list[Fault], *names: str) -> Block:
    return component | {name: _amount(component[name], f"{path}.{name}", faults) for name in names if name in component}


def _amount(amount: Any, path: str, faults: list[Fault]) -> Any:
    """`{requested: {min, max, units}}` or the same without; cores and GiB are whole in v1.0: what is no less, and no more."""
    if not isinstance(amount, dict):
        return amount
    requested = amount.get("requested")
    if requested is not None and not isinstance(requested, dict):
        faults.append(Fault(path, "not-an-object", "{min, max} is needed here", _brief(requested)))
    elif requested and (twice := present(requested).keys() & present(amount).keys()):
        faults.append(
            Fault(f"{path}.{min(map(str, twice))}", "said-twice", "one is needed; there is one in requested and one beside it")
        )
    found: Block = folded(amount, "requested")
    if "units" not in found:
        whole = {"min": math.ceil, "max": math.floor}
        found |= {name: round_(found[name]) for name, round_ in whole.items() if _is_fraction(found.get(name))}
    return found


def _is_fraction(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _brief(value: Any) -> Any:
    return value if isinstance(value, int | float | bool | None) else str(value)[:100]
