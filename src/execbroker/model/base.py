from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from execbroker.model.hints import Xml


def _whole(value: object) -> object:
    if isinstance(value, bool | str) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("a whole number is needed here")
    return int(value) if isinstance(value, float) else value


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("a number is needed here")
    return value


Integer = Annotated[int, BeforeValidator(_whole), WithJsonSchema({"type": "integer", "format": "int64"})]
Integer32 = Annotated[int, BeforeValidator(_whole), WithJsonSchema({"type": "integer", "format": "int32"})]
Float = Annotated[float, BeforeValidator(_number), WithJsonSchema({"type": "number", "format": "float"})]


def _open(schema: dict[str, Any], cls: type["Wire"]) -> None:
    schema.pop("additionalProperties", None)
    if name := cls.__dict__.get("ELEMENT"):
        schema["xml"] = {"name": name}


class Wire(BaseModel):
    """Whatever travels. Liberal in: an unknown field is kept aside until `take_unknown` reports and drops it."""

    model_config = ConfigDict(extra="allow", defer_build=True, json_schema_extra=_open)

    ELEMENT: ClassVar[str]
    """Its name in XML, where that is not the name of the class."""


def take_unknown(model: BaseModel, path: str = "") -> list[str]:
    """Drop every field that no class declares, and name them all by path."""
    found = []
    for at, part in _parts(model, path):
        if part.__pydantic_extra__:
            found += [f"{at}.{name}".lstrip(".") for name in part.__pydantic_extra__]
            part.__pydantic_extra__.clear()
    return found


def _parts(value: Any, path: str) -> Iterator[tuple[str, BaseModel]]:
    if isinstance(value, BaseModel):
        yield path, value
        for name in value.__pydantic_fields_set__:
            child = getattr(value, name, None)
            if isinstance(child, BaseModel | list):
                yield from _parts(child, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _parts(child, f"{path}[{index}]")


Uri = Annotated[str, WithJsonSchema({"type": "string", "format": "uri"})]


def _kind_is_required(schema: dict[str, Any], cls: type[Wire]) -> None:
    _open(schema, cls)
    schema["properties"]["kind"].pop("default", None)
    schema["required"] = ["kind", *schema.get("required", [])]


class Kinded(Wire):
    """Whatever has a `kind`: replies carry the URI of the class, however the request spelled it."""

    model_config = ConfigDict(json_schema_extra=_kind_is_required)

    KIND: ClassVar[str]
    kind: Annotated[Uri, Xml(attribute=True)] = ""

    def model_post_init(self, context: Any) -> None:
        self.kind = type(self).__dict__.get("KIND", self.kind)
