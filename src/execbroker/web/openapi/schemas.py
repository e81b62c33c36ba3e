"""Every model by its name, written so that generators of clients make class hierarchies of them."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from execbroker.model import components, options, sessions
from execbroker.model.base import Wire
from execbroker.model.registry import Family

REF = "#/components/schemas/"
FAMILIES: tuple[Family, ...] = (
    components.COSTS,
    components.METRICS,
    components.VOLUMES,
    components.COMPUTES,
    components.STORAGES,
    components.DATA,
    components.EXECUTABLES,
    sessions.SESSIONS,
    options.OPTIONS,
    options.UPDATES,
)


def schemas() -> dict[str, Any]:
    """Every model by its name, as the published schema writes them: subclasses `allOf` their parent, parents with a
    discriminator. That is what code generators make class hierarchies of."""
    members = [cls for family in FAMILIES for cls in (family.base, *family.members.values())]
    roots: list[type[BaseModel]] = [sessions.ExecutionRequest, sessions.OfferSetResponse, components.AbstractComponent, *members]
    _, generated = models_json_schema([(root, "serialization") for root in roots], ref_template=REF + "{model}")
    bases = {frozenset(family.members): family.base.__name__ for family in FAMILIES}
    found = {name: _plain(schema, bases) for name, schema in generated["$defs"].items()}
    for cls in _classes(Wire):
        if cls.__name__ in found and "properties" in found[cls.__name__]:
            found[cls.__name__] = _inherit(cls, found)
    for family in FAMILIES:
        mapping = {uri: REF + cls.__name__ for uri, cls in family.members.items()}
        found[family.base.__name__]["discriminator"] = {"propertyName": "kind", "mapping": mapping}
    return {name: schema for name, schema in found.items() if not name.startswith("Unknown")}


def _classes(cls: type[BaseModel]) -> list[type[BaseModel]]:
    """Every subclass, children before their parents, so that a parent is still whole when its children are written."""
    return [found for child in cls.__subclasses__() for found in (*_classes(child), child)]


def _inherit(cls: type[BaseModel], found: dict[str, Any]) -> dict[str, Any]:
    parent, schema = cls.__base__, found[cls.__name__]
    if parent is None or not issubclass(parent, BaseModel) or parent.__name__ not in found:
        return schema  # type: ignore[no-any-return]
    own = {name: value for name, value in schema["properties"].items() if name not in parent.model_fields}
    required = [name for name in schema.get("required", []) if name in own]
    body = {"type": "object", "properties": own} | ({"required": required} if required else {})
    head = {key: schema[key] for key in ("title", "description", "xml") if key in schema}
    return {**head, "allOf": [{"$ref": REF + parent.__name__}, body]}


def _plain(schema: Any, bases: dict[frozenset[str], str]) -> Any:
    """Without what only says that a field may be left out, and with a family's union written as its base class."""
    if isinstance(schema, list):
        return [_plain(item, bases) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "discriminator" in schema:
        hints = {"xml": schema["xml"]} if "xml" in schema else {}
        return {"$ref": REF + bases[frozenset(schema["discriminator"]["mapping"])]} | hints
    if options_ := [item for item in schema.get("anyOf", []) if item != {"type": "null"}]:
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default", "title")}
        return _plain({**options_[0], **rest} if len(options_) == 1 else {"anyOf": options_, **rest}, bases)
    return {key: _plain(value, bases) for key, value in schema.items() if not (key == "default" and value is None)}


def without_null(schema: Any) -> Any:
    """Without what only says that a field may be left out."""
    return _plain(schema, {})
