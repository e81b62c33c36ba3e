"""The published schema: its files, what its references mean, and where our models differ from it."""

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from execbroker.model import options, sessions

ROOT = "execution-broker.yaml"
OUR_NAMES = {
    "AbstractExecutionSession": "Session",  # a family is read by its annotation, not by its base class
    "AbstractUpdate": "Update",
    "SimpleExecutionSessionPhase": "Phase",  # one enumeration for simple and scheduled sessions
}
ALLOWED = {"OfferSetResponse.kind: required only here"}  # v1.0 has no kinds of offersets; ours carry one, as the peer's do
SCALARS = ("type", "format", "default")
STRICTER = ("pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")


def location() -> Path:
    """Where the published schema is, if anywhere."""
    return Path(os.environ.get("EXECBROKER_SCHEMA") or Path(__file__).parents[2] / "shared" / "schema" / "v1.0")


def folder() -> Path:
    """Where the published schema is. Skips the test where it is not, fails it in CI."""
    path = location()
    if not (path / ROOT).exists():
        lacking(f"{path} has no {ROOT}: point EXECBROKER_SCHEMA to schema/v1.0 of a checkout of uksrc/Calycopis-openapi")
    return path


def lacking(what: str) -> None:
    """Skip for want of `what`, but never in CI."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@dataclass(frozen=True)
class Place:
    """A node of the schema, the file it stands in, and its name where it has one."""

    home: str
    node: dict[str, Any]
    name: str | None = None


@dataclass
class Flat:
    """A schema with everything that `allOf` brings."""

    name: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Place] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    kinds: dict[str, Place] = field(default_factory=dict)


class Published:
    """The files of the schema by their paths."""

    def __init__(self, documents: dict[str, Any]) -> None:
        self.documents = documents

    @classmethod
    def load(cls, root: Path) -> "Published":
        files = sorted(root.rglob("*.yaml"))
        return cls({path.relative_to(root).as_posix(): yaml.safe_load(path.read_text()) for path in files})

    def target(self, reference: str, home: str) -> Place:
        path, _, pointer = reference.partition("#")
        at = posixpath.normpath(posixpath.join(posixpath.dirname(home), path)) if path else home
        node = self.documents[at]
        steps = pointer.strip("/").split("/")
        for step in steps:
            node = node[step]
        return Place(at, node, steps[-1])

    def child(self, parent: Place, node: dict[str, Any]) -> Place:
        return self.target(node["$ref"], parent.home) if "$ref" in node else Place(parent.home, node)

    def roots(self) -> dict[str, Place]:
        """What the operations receive and answer with."""
        found = {}
        for node in nodes(self.documents[ROOT]["paths"]):
            if "$ref" in node:
                place = self.target(node["$ref"], ROOT)
                found[place.name or ""] = place
        return found

    def flat(self, place: Place) -> Flat:
        node = place.node
        flat = Flat(place.name)
        for part in node.get("allOf", []):
            inherited = self.flat(self.child(place, part))
            flat.facts |= inherited.facts
            flat.properties |= inherited.properties
            flat.required |= inherited.required
        flat.facts |= {key: value for key, value in node.items() if key not in ("allOf", "properties", "required")}
        flat.properties |= {name: self.child(place, value) for name, value in node.get("properties", {}).items()}
        flat.required |= set(node.get("required", []))
        mapping = node.get("discriminator", {}).get("mapping", {})
        flat.kinds = {uri: self.target(reference, place.home) for uri, reference in mapping.items()}
        return flat

    def reachable(self) -> Iterator[dict[str, Any]]:
        """Every node that the operations' documents lead to, by references and by kinds."""
        waiting = list(self.roots().values())
        seen = set()
        while waiting:
            place = waiting.pop()
            if id(place.node) in seen:
                continue
            seen.add(id(place.node))
            for node in nodes(place.node):
                yield node
                references = [node[key] for key in ("$ref",) if key in node]
                references += node.get("discriminator", {}).get("mapping", {}).values()
                waiting += [self.target(reference, place.home) for reference in references]


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside `node`, itself included."""
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from nodes(child)


@cache
def our_schema(name: str) -> dict[str, Any]:
    """The JSON schema of our class of that name, the empty one where there is none."""
    ours = getattr(sessions, name, None) or getattr(options, name, None)
    return TypeAdapter(ours).json_schema() if ours else {}


class Comparison:
    """Walks the published schema and our models' JSON schema side by side; `found` lists where ours differs."""

    def __init__(self, published: Published) -> None:
        self.published = published
        self.found: list[str] = []
        self.seen: set[str] = set()
        self.definitions: dict[str, Any] = {}

    def run(self) -> list[str]:
        for name, place in self.published.roots().items():
            schema = our_schema(OUR_NAMES.get(name, name))
            self.definitions = schema.get("$defs", {})
            self.compare(place, {"title": name, **schema}, name)
        return [difference for difference in dict.fromkeys(self.found) if difference not in ALLOWED]

    def compare(self, place: Place, node: dict[str, Any], at: str) -> None:
        theirs = self.published.flat(place)
        ours, our_name = self.resolved(node)
        if theirs.kinds:
            self.compare_kinds(theirs, ours, at)
        elif theirs.properties:
            self.compare_object(theirs, ours, our_name, at)
        else:
            self.compare_value(place, theirs, ours, at)

    def compare_kinds(self, theirs: Flat, ours: dict[str, Any], at: str) -> None:
        mapping = ours.get("discriminator", {}).get("mapping", {})
        for uri, place in theirs.kinds.items():
            if uri in mapping:
                self.compare_object(self.published.flat(place), *self.resolved({"$ref": mapping[uri]}), uri)
            else:
                self.found.append(f"{at}: kind {uri} ({place.name}) is not known")

    def compare_object(self, theirs: Flat, ours: dict[str, Any], our_name: str | None, at: str) -> None:
        name = theirs.name or at
        if our_name != OUR_NAMES.get(name, name):
            self.found.append(f"{at}: {name} published, {our_name} here")
        if name in self.seen:
            return
        self.seen.add(name)
        for difference in sorted(theirs.required ^ set(ours.get("required", []))):
            whose = "published" if difference in theirs.required else "here"
            self.found.append(f"{name}.{difference}: required only {whose}")
        for field_name, place in theirs.properties.items():
            if field_name in ours.get("properties", {}):
                self.compare(place, ours["properties"][field_name], f"{name}.{field_name}")
            else:
                self.found.append(f"{name}.{field_name}: there is no such field")

    def compare_value(self, place: Place, theirs: Flat, ours: dict[str, Any], at: str) -> None:
        for fact in SCALARS:
            if theirs.facts.get(fact) != ours.get(fact):
                self.found.append(f"{at}: {fact} {theirs.facts.get(fact)} published, {ours.get(fact)} here")
        for fact in STRICTER:
            if fact in ours and fact not in theirs.facts:
                self.found.append(f"{at}: {fact} {ours[fact]} only here")
        if set(theirs.facts.get("enum", [])) != set(ours.get("enum", [])):
            self.found.append(f"{at}: enum {theirs.facts.get('enum')} published, {ours.get('enum')} here")
        for part in ("items", "additionalProperties"):
            if isinstance(theirs.facts.get(part), dict):
                self.compare(self.published.child(place, theirs.facts[part]), ours.get(part, {}), f"{at}[]")

    def resolved(self, node: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Our node without references and without its `null`, and the name of the class it came from."""
        default = {"default": node["default"]} if node.get("default") is not None else {}
        if "anyOf" in node:
            (node,) = (choice for choice in node["anyOf"] if choice != {"type": "null"})
        name = node.get("title")
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            node = self.definitions[name]
        return node | default, name
