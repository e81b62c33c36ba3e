import copy
from collections.abc import Iterator
from typing import Any

import pytest

from published import Comparison, Published, folder

Change = tuple[dict[str, Any], str, Any, str]


@pytest.fixture(scope="session")
def schema() -> Published:
    return Published.load(folder())


def test_our_models_are_the_published_schema(schema: Published) -> None:
    assert Comparison(schema).run() == []


def properties(nodes: list[dict[str, Any]]) -> Iterator[Change]:
    for node in nodes:
        yield node["properties"], "colour", {"type": "string"}, "colour"


def types(nodes: list[dict[str, Any]]) -> Iterator[Change]:
    for node in nodes:
        for name, value in node["properties"].items():
            yield node["properties"], name, {"type": "string" if value.get("type") == "boolean" else "boolean"}, name


def required(nodes: list[dict[str, Any]]) -> Iterator[Change]:
    already = {"kind", "path", "value", "values", "delta"}
    for node in nodes:
        for name in node["properties"].keys() - already:
            yield node, "required", [*node.get("required", []), name], f"{name}: required only published"


def enums(nodes: list[dict[str, Any]]) -> Iterator[Change]:
    for node in nodes:
        yield node, "enum", [*node["enum"], "PURPLE"], "PURPLE"
        yield node, "enum", node["enum"][1:], node["enum"][0]


def formats(nodes: list[dict[str, Any]]) -> Iterator[Change]:
    for node in nodes:
        yield node, "format", "colour", "colour"


def items(nodes: list[dict[str, Any]]) -> Iterator[Change]:
    for node in nodes:
        yield node, "items", {"type": "boolean"}, "boolean"


def kinds(nodes: list[dict[str, Any]]) -> Iterator[Change]:
    for node in nodes:
        mapping = node["discriminator"]["mapping"]
        yield mapping, "urn:new-kind", next(iter(mapping.values())), "urn:new-kind"


@pytest.mark.parametrize(
    ("changes", "having", "at_least"),
    [
        (properties, "properties", 50),
        (types, "properties", 150),
        (required, "properties", 120),
        (enums, "enum", 14),
        (formats, "format", 30),
        (items, "items", 15),
        (kinds, "discriminator", 10),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_change_of_the_published_schema_is_noticed(schema: Published, changes: Any, having: str, at_least: int) -> None:
    changed = Published(copy.deepcopy(schema.documents))
    noticed = 0
    for where, key, value, word in list(changes([node for node in changed.reachable() if having in node])):
        before = dict(where)
        where[key] = value
        assert any(word in difference for difference in Comparison(changed).run()), (key, value)
        where.clear()
        where.update(before)
        noticed += 1
    assert noticed >= at_least
    assert Comparison(changed).run() == []


def test_an_operation_with_a_body_of_its_own_is_noticed(schema: Published) -> None:
    changed = Published(copy.deepcopy(schema.documents))
    reference = "./utils.yaml#/components/schemas/MinMaxLong"
    changed.documents["execution-broker.yaml"]["paths"]["/new"] = {"post": {"requestBody": {"schema": {"$ref": reference}}}}
    assert Comparison(changed).run()[0] == "MinMaxLong.min: there is no such field"
