"""Documents of every model, as its fields' types say: one with every field, and strategies for all of them."""

import types
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from execbroker.codecs import Codec
from execbroker.model.components import AbstractComponent
from execbroker.model.phases import LifecyclePhase, Phase
from execbroker.model.registry import Family, short_name
from execbroker.model.sessions import ExecutionRequest, OfferSetResponse
from execbroker.web.negotiate import read_as
from execbroker.web.openapi.schemas import FAMILIES

TIMES = {
    "ISO8601Instant": "2026-11-20T09:00:00Z",
    "ISO8601Duration": "PT30M",
    "ISO8601Interval": "2026-11-20T09:00:00Z/P1D",
    "date-time": "2026-11-20T09:00:00Z",
}
UUID_TEXT = "6f6a3a4e-2f0b-4b3c-9d6e-1c2d3e4f5a6b"
characters = st.characters(
    exclude_categories=["Cs"], exclude_characters=[*map(chr, set(range(32)) - {9, 10, 13}), "\ufffe", "\uffff"]
)
"""All that XML 1.0 may carry."""
texts = st.sampled_from(["", " ", "NO", "true", "1", "1.0", "\r\n", "]]>", "&amp;", "<a/>", "\u2028", "\x85"]) | st.text(
    characters, max_size=8
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
"""Any JSON that XML may carry."""


def kinds() -> dict[str, tuple[Any, type[BaseModel]]]:
    """Every kind by its family and bare name: the type that reads it, and its class."""
    found: dict[str, tuple[Any, type[BaseModel]]] = {
        f"{family.name}-{short_name(kind)}": (Annotated[family.base, family], cls)
        for family in FAMILIES
        for kind, cls in family.members.items()
    }
    return found | {"request": (ExecutionRequest, ExecutionRequest), "offerset": (OfferSetResponse, OfferSetResponse)}


def read(target: Any, codec: Codec, body: bytes) -> Any:
    """As the routes do it."""
    return read_as(_adapter(target), codec.decode(body))


@cache
def _adapter(target: Any) -> TypeAdapter[Any]:
    return TypeAdapter(target)


def _core(annotation: Any, metadata: tuple[Any, ...] = ()) -> tuple[Any, tuple[Any, ...]]:
    """A type without what is around it, and that."""
    if get_origin(annotation) is Annotated:
        return _core(annotation.__origin__, (*annotation.__metadata__, *metadata))
    if get_origin(annotation) in (Union, types.UnionType):
        [annotation] = (choice for choice in get_args(annotation) if choice is not type(None))
        return _core(annotation, metadata)
    return annotation, metadata


@cache
def _written(annotation: Any, metadata: tuple[Any, ...]) -> str | None:
    """A text for what is written as a time."""
    schema = TypeAdapter(Annotated[annotation, *metadata] if metadata else annotation).json_schema()
    return TIMES.get(schema.get("title", "")) or TIMES.get(schema.get("format", ""))


def _family(metadata: tuple[Any, ...]) -> Family | None:
    return next((one for one in metadata if isinstance(one, Family)), None)


def _fields(cls: type[BaseModel]) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    for name, info in cls.model_fields.items():
        if name != "kind" or not hasattr(cls, "KIND"):
            yield name, *_core(info.annotation, tuple(info.metadata))


def full(cls: type[BaseModel]) -> dict[str, Any]:
    """A document with every field of a model, but not of the kinds within."""
    head = {"kind": cls.KIND} if hasattr(cls, "KIND") else {}  # type: ignore[attr-defined]
    return head | {name: _sample(name, annotation, metadata) for name, annotation, metadata in _fields(cls)}


def _least(cls: type[BaseModel]) -> dict[str, Any]:
    """A document with nothing but what a model has to have."""
    return {name: value for name, value in full(cls).items() if name == "kind" or cls.model_fields[name].is_required()}


def _sample(name: str, annotation: Any, metadata: tuple[Any, ...] = ()) -> Any:
    if family := _family(metadata):
        return _least(list(family.members.values())[-1])
    if get_origin(annotation) in (list, tuple):
        return [_sample(name, *_core(get_args(annotation)[0])) for _ in range(2)]
    if get_origin(annotation) is dict:
        return (
            {"a name": "text", "B": "2"}
            if get_args(annotation)[1] is str
            else {"n": 3, "deep": [{"NO": None}, 0.5, True, [], {}]}
        )
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return full(annotation)
    plain = {
        str: f"the {name} & more",
        int: 7,
        float: 0.25,
        bool: True,
        UUID: UUID_TEXT,
        Phase: "OFFERED",
        LifecyclePhase: "PREPARING",
    }
    return _written(annotation, metadata) or plain[annotation]


def documents(annotation: Any, metadata: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Documents of a type; lists have something in them, since an empty one is not there in XML."""
    annotation, metadata = _core(annotation, metadata)
    if family := _family(metadata):
        return st.one_of([_of(cls) for cls in family.members.values()])
    if get_origin(annotation) in (list, tuple):
        return st.lists(documents(get_args(annotation)[0]), min_size=1, max_size=2)
    if get_origin(annotation) is dict:
        return st.dictionaries(texts, texts if get_args(annotation)[1] is str else anything, max_size=3)
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _of(annotation)
    plain = {str: texts, int: st.integers(-(2**63), 2**63 - 1), float: st.floats(allow_nan=False, allow_infinity=False)}
    plain |= {
        bool: st.booleans(),
        UUID: st.uuids().map(str),
        Phase: st.sampled_from(Phase),
        LifecyclePhase: st.sampled_from(LifecyclePhase),
    }
    time = _written(annotation, metadata)
    return st.just(time) if time else plain[annotation]


def _of(cls: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    head = {"kind": st.just(cls.KIND)} if hasattr(cls, "KIND") else {}  # type: ignore[attr-defined]
    found = {name: st.deferred(lambda a=annotation, m=metadata: documents(a, m)) for name, annotation, metadata in _fields(cls)}
    required = {name: found.pop(name) for name, info in cls.model_fields.items() if info.is_required()}
    stranger = {"colour": texts} if issubclass(cls, AbstractComponent) else {}
    return st.fixed_dictionaries(head | required, optional=found | stranger)
