import re
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

PUBLISHED = "https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds"
OWN = "urn:execbroker:kind"
TAG = "kind="

_HOMES = re.compile(r"(?:https?://www\.purl\.org/ivoa\.net/.*/|(?:urn|uri|purl):(?:.*:)?)?(?P<name>[^/:]+)", re.IGNORECASE)
_DRESS = re.compile(r"(\.yaml)?(-\d+(\.\d+)*)?$", re.IGNORECASE)


def published(family: str, name: str) -> str:
    """The URI that v1.0 gives a kind."""
    return f"{PUBLISHED}/{family}/{name}.yaml"


def own(family: str, name: str) -> str:
    """The URI of a kind that v1.0 does not have."""
    return f"{OWN}:{family}:{name}"


def short_name(kind: str) -> str | None:
    """The bare name in any older URI of a kind (`urn:jupyter-notebook-0.1` → `jupyter-notebook`), None for a stranger's URI."""
    match = _HOMES.fullmatch(kind)
    return _DRESS.sub("", match["name"]).casefold() if match else None


@cache
def load_kinds() -> None:
    """Import every kind that any installed package brings, our own included."""
    for point in entry_points(group="execbroker.kinds"):
        point.load()


class Family:
    """An open set of classes told apart by `kind`: the discriminator of the published schema, which anyone may extend.

    Used as the annotation of a field, it reads a document into the class its kind names, by the published URI, an older
    one or the bare name; a kind nobody knows becomes `unknown`, so that it can be answered NO with a reason.
    """

    def __init__(self, name: str, base: type, unknown: type) -> None:
        self.name, self.base, self.unknown = name, base, unknown
        self._by_uri: dict[str, type] = {}
        self._by_name: dict[str, type] = {}

    def register(self, kind: str, *aliases: str) -> Any:
        """Class decorator: this class is `kind`, and the bare names `aliases` mean it too."""

        def enter(cls: Any) -> Any:
            cls.KIND = kind
            self._by_uri[kind] = cls
            for name in (short_name(kind), *aliases):
                if name:
                    self._by_name[name.casefold()] = cls
            return cls

        return enter

    @property
    def members(self) -> dict[str, type]:
        load_kinds()
        return dict(self._by_uri)

    @property
    def names(self) -> list[str]:
        """The bare names of its members."""
        return sorted(short_name(kind) or kind for kind in self.members)

    def resolve(self, kind: str) -> type:
        return self._by_uri.get(kind) or self._by_name.get(short_name(kind) or "") or self.unknown

    def _tag(self, value: Any) -> str | None:
        if isinstance(value, self.base):
            return _tag_of(type(value))
        kind = value.get("kind") if isinstance(value, dict) else None
        return _tag_of(self.resolve(kind)) if isinstance(kind, str) else None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {_tag_of(cls): handler.generate_schema(cls) for cls in (*self.members.values(), self.unknown)}
        return core_schema.tagged_union_schema(choices, self._tag)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        known = _choices(schema)
        refs = handler(core_schema.tagged_union_schema(known, self._tag))["oneOf"]
        mapping = {tag.removeprefix(TAG): ref["$ref"] for tag, ref in zip(known, refs, strict=True)}
        return {"oneOf": refs, "discriminator": {"propertyName": "kind", "mapping": mapping}}


def _tag_of(cls: type) -> str:
    """Where in the union `cls` stands; a class of no registered kind (its parent's does not count) is the unknown one."""
    return f"{TAG}{cls.__dict__.get('KIND', '')}"


def _choices(schema: Any) -> dict[str, CoreSchema]:
    return {tag: choice for tag, choice in schema["choices"].items() if tag != TAG}
