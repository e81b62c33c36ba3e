from typing import Any, TypeVar

from pydantic import BaseModel

from execbroker.model.components import AbstractComponent, ComponentMetadata
from execbroker.model.sessions import OfferSetResponse, ScheduledExecutionSession

C = TypeVar("C", bound=BaseModel)

_OF_META = {"uuid", "url", "created", "modified"}
_OF_SESSION = {"kind", "phase", "expires", "schedule", "costs", "metrics", "objective", "platform"}
_OF_PARTS = {"kind", "phase", "schedule", "costs", "metrics", "cores", "memory", "accelerators", "replicas", "flavour", "size"}
_PARTS = ("executable", "compute", "further_compute", "storage", "data")


def face(whole: C) -> C:
    """What others may see of an offerset or a session: what is held, when, and how it stands; not what runs, with which data,
    where it is reached, nor what it was told or has said. Whatever is not named here is not shown."""
    if isinstance(whole, OfferSetResponse):
        offers = [face(offer) for offer in whole.offers or []]
        return type(whole).model_construct(kind=whole.kind, meta=_meta(whole), result=whole.result, offers=offers)
    assert isinstance(whole, ScheduledExecutionSession)
    parts = {name: [_only(part) for part in found] if isinstance(found, list) else _only(found)
             for name in _PARTS if (found := getattr(whole, name))}  # fmt: skip
    return type(whole).model_construct(**_shown(whole, _OF_SESSION), meta=_meta(whole), **parts)


def _only(part: AbstractComponent) -> AbstractComponent:
    return type(part).model_construct(**_shown(part, _OF_PARTS), meta=_meta(part))


def _meta(part: AbstractComponent) -> ComponentMetadata:
    return ComponentMetadata.model_construct(**_shown(part.meta, _OF_META)) if part.meta else ComponentMetadata()


def _shown(part: BaseModel, names: set[str]) -> dict[str, Any]:
    return {name: getattr(part, name) for name in type(part).model_fields if name in names}
