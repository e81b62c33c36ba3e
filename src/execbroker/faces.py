from collections.abc import Container, Iterator
from typing import Any

from pydantic import BaseModel

from execbroker.model.components import AbstractComponent, ComponentMetadata
from execbroker.model.options import EnumValueOption
from execbroker.model.sessions import AbstractExecutionSession, OfferSetResponse, ScheduledExecutionSession

_OF_META = {"uuid", "url", "created", "modified"}
_OF_SESSION = {"kind", "phase", "expires", "schedule", "costs", "metrics", "objective", "platform"}
_OF_PARTS = {"kind", "phase", "schedule", "costs", "metrics", "cores", "memory", "accelerators", "replicas", "flavour", "size"}
_PARTS = ("executable", "compute", "further_compute", "storage", "data")


def face_of_offerset(whole: OfferSetResponse, may: Container[str] = ()) -> OfferSetResponse:
    """What others may see of an answer: the faces of its offers, not why there are none."""
    offers: list[AbstractExecutionSession] = [
        face_of_session(offer, may) for offer in whole.offers or [] if isinstance(offer, ScheduledExecutionSession)
    ]
    return OfferSetResponse.model_construct(kind=whole.kind, meta=_meta(whole), result=whole.result, offers=offers)


def face_of_session(whole: ScheduledExecutionSession, may: Container[str] = ()) -> ScheduledExecutionSession:
    """What others may see of a session: what is held, when, and how it stands; not what runs, with which data, where it is
    reached, nor what it was told or has said. Whatever is not named here is not shown; of what can be done to
    it now, what the caller `may`."""
    parts: dict[str, Any] = {
        name: [_only(part) for part in found] if isinstance(found, list) else _only(found)
        for name in _PARTS
        if (found := getattr(whole, name))
    }
    meta = _meta(whole)
    if choices := [value for value in _choices(whole) if value in may]:
        meta.options = [EnumValueOption(path="phase", values=choices)]
    return ScheduledExecutionSession.model_construct(**_shown(whole, _OF_SESSION), meta=meta, **parts)


def _choices(whole: ScheduledExecutionSession) -> Iterator[str]:
    for option in (whole.meta and whole.meta.options) or []:
        if isinstance(option, EnumValueOption):
            yield from option.values


def _only(part: AbstractComponent) -> AbstractComponent:
    return type(part).model_construct(**_shown(part, _OF_PARTS), meta=_meta(part))


def _meta(part: AbstractComponent) -> ComponentMetadata:
    return ComponentMetadata.model_construct(**_shown(part.meta, _OF_META)) if part.meta else ComponentMetadata()


def _shown(part: BaseModel, names: set[str]) -> dict[str, Any]:
    return {name: getattr(part, name) for name in type(part).model_fields if name in names}
