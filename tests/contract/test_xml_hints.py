"""What the published schema says of XML is what our own OpenAPI says, where it makes a difference (OpenAPI 3.1, XML Object)."""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from execbroker.web.openapi.schemas import REF, schemas
from published import OUR_NAMES, Place, Published, folder

Hints = dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def schema() -> Published:
    return Published.load(folder())


def hints(name: str, node: dict[str, Any], target: dict[str, Any], items: dict[str, Any]) -> dict[str, Any]:
    """Those of a property that change how it is written: of an array's own name only the wrapper's."""
    xml = target.get("xml", {}) | node.get("xml", {})
    array = "items" in target
    found = {"attribute": xml.get("attribute", False), "wrapped": xml.get("wrapped", False)}
    found["name"] = xml.get("name", name) if found["wrapped"] or not array else name
    if array:
        found["items"] = target["items"].get("xml", {}).get("name") or items.get("xml", {}).get("name") or name
    return found


def theirs(schema: Published) -> Hints:
    found: Hints = {}
    waiting = [*schema.roots().values()]
    while waiting:
        place = waiting.pop()
        if place.name and place.name in found:
            continue
        own = dict(_published(schema, place))
        if place.name:
            found[place.name] = {"": place.node.get("xml", {}).get("name"), **own}
        waiting += _below(schema, place)
    return found


def _published(schema: Published, place: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in place.node.get("allOf", []):
        yield from _published(schema, schema.child(place, part))
    for name, node in place.node.get("properties", {}).items():
        target = schema.child(place, node)
        items = schema.child(target, target.node["items"]).node if "items" in target.node else {}
        yield name, hints(name, node, target.node, items)


def _below(schema: Published, place: Place) -> Iterator[Place]:
    mapping = place.node.get("discriminator", {}).get("mapping", {}).values()
    yield from (schema.target(reference, place.home) for reference in mapping)
    for part in [place.node, *place.node.get("allOf", [])]:
        for node in [part, *part.get("properties", {}).values(), place.node.get("items", {})]:
            if "$ref" in node:
                yield schema.target(node["$ref"], place.home)
            elif "items" in node and "$ref" in node["items"]:
                yield schema.target(node["items"]["$ref"], place.home)


@cache
def ours() -> Hints:
    documents = schemas()
    return {
        title: {"": document.get("xml", {}).get("name"), **dict(_our_own(documents, document))}
        for title, document in documents.items()
    }


def _our_own(documents: dict[str, Any], document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in document.get("allOf", []):
        yield from _our_own(documents, _target(documents, part))
    for name, node in document.get("properties", {}).items():
        yield name, hints(name, node, _target(documents, node) | node, _target(documents, node.get("items", {})))


def _target(documents: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    return documents[node["$ref"].removeprefix(REF)] if "$ref" in node else node


def differences(published: Published) -> list[str]:
    mine = ours()
    return [
        f"{title}.{name}: {expected} published, {mine[title].get(name)} here"
        for title, properties in theirs(published).items()
        for name, expected in properties.items()
        if title in mine and mine[title].get(name, expected) != expected
    ]


def test_our_hints_are_the_published_ones(schema: Published) -> None:
    published, mine = theirs(schema), ours()
    assert differences(schema) == []
    compared = [name for title, properties in published.items() if title in mine for name in properties if name in mine[title]]
    assert len(compared) > 150
    roots = {title: published[title][""] for title in published if published[title][""] and title not in OUR_NAMES}
    assert {title: mine[title][""] for title in roots if title in mine} == {
        "ExecutionRequest": "offers-request",
        "OfferSetResponse": "offers-response",
        "MessageItem": "message",
        "SimpleExecutionSession": "execution",
    }


def test_every_other_hint_is_noticed(schema: Published) -> None:
    changed = Published(copy.deepcopy(schema.documents))
    noticed = 0
    for node in [node for node in changed.reachable() if "properties" in node]:
        for name, value in node["properties"].items():
            if "$ref" in value or value.get("type") == "array":
                continue
            before = dict(value)
            value["xml"] = {"attribute": not value.get("xml", {}).get("attribute", False)}
            assert any(f".{name}: " in found for found in differences(changed)), name
            value.clear()
            value.update(before)
            noticed += 1
    assert noticed > 60


def test_every_other_hint_of_a_list_is_noticed(schema: Published) -> None:
    changed = Published(copy.deepcopy(schema.documents))
    lists = [node for node in changed.reachable() if "items" in node]
    for node in lists:
        before = copy.deepcopy(node)
        for change in (
            {"items": {**node["items"], "xml": {"name": "colour"}}},
            {"xml": {"wrapped": "xml" not in node or len(node["xml"]) < 2}},
        ):
            node.update(change)
            assert differences(changed), before
            node.clear()
            node.update(copy.deepcopy(before))
    assert len(lists) >= 15
