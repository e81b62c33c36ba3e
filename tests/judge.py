"""Judges the replies that brokers give in tests: by the published schema, and by our own description."""

import copy
import json
import re
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from jsonschema_rs import Draft202012Validator, Registry

from execbroker.app import create_app
from execbroker.codecs import CODECS
from execbroker.config import Config
from execbroker.dialect2024 import is_update
from execbroker.errors import Unreadable
from execbroker.model.registry import OWN
from execbroker.web.openapi import describe
from published import ROOT, Place, Published, location, nodes

OF_ANY_KIND = "OfAnyKind"
HOME = "https://published.invalid/"
OURS = "openapi.json"


class Judge:
    """An API, described by the files of `described`, of which `root` has the paths."""

    def __init__(self, described: Published, root: str) -> None:
        self.root = root
        self.documents = with_kinds(described)
        self.paths = [(_pattern(path), path) for path in self.documents[root]["paths"]]
        self.registry = Registry([(HOME + path, document) for path, document in self.documents.items()])
        self._validators: dict[tuple[str, ...], Draft202012Validator] = {}

    def validator(self, reference: str, home: str | None = None) -> Draft202012Validator:
        """Of what `reference` points to, discriminators included, which JSON schema itself does not know."""
        key = (reference, home or self.root)
        if key not in self._validators:
            whole = f"{HOME}{key[1]}{reference}" if reference.startswith("#") else HOME + reference.removeprefix("./")
            self._validators[key] = Draft202012Validator({"$ref": whole}, registry=self.registry, validate_formats=True)
        return self._validators[key]

    def operation(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        """The path and description of the operation that a request is for; a path without variables comes before one with."""
        found = sorted((known.count("{"), known) for pattern, known in self.paths if pattern.fullmatch(path))
        for _, known in found:
            if operation := self.documents[self.root]["paths"][known].get(method.lower()):
                return known, operation
        return None

    def faults(self, operation: tuple[str, dict[str, Any]], reply: httpx.Response) -> Iterator[str]:
        """What is wrong with a reply."""
        path, described = operation
        status, media_type = str(reply.status_code), reply.headers.get("content-type", "").partition(";")[0]
        response = described["responses"].get(status)
        if response is None:
            yield f"{status} is not among the statuses of {path}: {reply.text[:300]}"
            return
        for name, header in response.get("headers", {}).items():
            if header.get("required") and name not in reply.headers:
                yield f"{status} of {path} has no header {name}"
        content = response.get("content", {})
        if media_type not in content and (content or reply.content):
            yield f"{status} of {path} is {media_type}, not one of {list(content)}"
        elif media_type.endswith("json"):
            at = ("paths", path, reply.request.method.lower(), "responses", status, "content", media_type, "schema")
            for fault in faults_of(self, at, reply.json()):
                yield f"{status} of {path}: {fault}"


def _is_refused_kind(document: Any, path: list[str | int]) -> bool:
    """Whether it is a kind within a session that failed: it is shown as it came, for nobody knows what it is."""
    failed = False
    for step in path:
        failed = failed or (isinstance(document, dict) and document.get("phase") == "FAILED")
        document = document[step]
    return failed and path[-1] == "kind"


def _is_extension(document: Any, path: list[str | int]) -> bool:
    """Whether it is a kind of ours, which a client has asked for that knows it."""
    for step in path:
        document = document[step]
    return isinstance(document, str) and document.startswith(OWN)


def with_kinds(published: Published) -> dict[str, Any]:
    """The documents with every reference to a family leading to the member that its `kind` says."""
    changed = Published(copy.deepcopy(published.documents))
    kinds = [(place, changed.flat(place).kinds) for place in discriminated(changed)]
    names = {place.name for place, _ in kinds}
    everything = [node for document in changed.documents.values() for node in nodes(document)]
    inheriting = {id(part) for node in everything for part in node.get("allOf", [])}
    for node in everything:
        if str(node.get("$ref", "")).rpartition("/")[2] in names and id(node) not in inheriting:
            node["$ref"] += OF_ANY_KIND
        if isinstance(node.get("pattern"), str):  # ECMA 262 has no atomic groups; without them these match the same
            node["pattern"] = node["pattern"].replace("(?>", "(?:")
    for place, members in kinds:
        chosen = [{"if": {"properties": {"kind": {"const": uri}}}, "then": reference(sub)} for uri, sub in members.items()]
        anything = {"required": ["kind"], "properties": {"kind": {"enum": list(members)}}, "allOf": chosen}
        changed.documents[place.home]["components"]["schemas"][f"{place.name}{OF_ANY_KIND}"] = anything
    return changed.documents


def discriminated(published: Published) -> Iterator[Place]:
    for path, document in published.documents.items():
        for name, node in document.get("components", {}).get("schemas", {}).items():
            if "discriminator" in node:
                yield Place(path, node, name)


def reference(place: Place, suffix: str = "") -> dict[str, str]:
    return {"$ref": f"{HOME}{place.home}#/components/schemas/{place.name}{suffix}"}


def _pattern(path: str) -> re.Pattern[str]:
    """Of the paths that a path with variables stands for; that of a file has slashes."""
    plain = re.escape(path).replace(r"\{path\}", ".*")
    return re.compile(re.sub(r"\\{\w+\\}", "[^/]+", plain))


@cache
def of_published() -> Judge | None:
    """None where the published schema is not here."""
    root = location()
    return Judge(Published.load(root), ROOT) if (root / ROOT).exists() else None


@cache
def described() -> Any:
    """Our description, as a broker gives it."""
    with tempfile.TemporaryDirectory(prefix="execbroker-description-") as folder:
        return json.loads(json.dumps(describe(create_app(Config(folder=Path(folder))))))


@cache
def of_ours() -> Judge:
    return Judge(Published({OURS: described()}), OURS)


def faults_of(judge: Judge, at: tuple[str, ...], document: Any) -> list[str]:
    """What is wrong with a document, by the schema at a place of the judge's description."""
    pointer = "/".join(part.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D") for part in at)
    return [
        f"{error.message} at {list(error.instance_path)}"
        for error in judge.validator(f"#/{pointer}").iter_errors(document)
        if not _is_refused_kind(document, error.instance_path)
        and not (judge.root == ROOT and _is_extension(document, error.instance_path))
    ]


def judge(reply: httpx.Response) -> None:
    """Raises AssertionError. `reply` has been read."""
    method, path = reply.request.method, reply.request.url.path
    described = of_ours().operation(method, path)
    if described is None or reply.status_code in {405, 500} or _asked_as_the_draft(reply.request):
        return  # a method without a description; a test that breaks the broker; another form, which has tests of its own
    faults = list(of_ours().faults(described, reply))
    published = of_published()
    known = published.operation(method, path) if published else None
    if published and known and str(reply.status_code) in known[1]["responses"] and _is_published(reply):
        faults += [f"published: {fault}" for fault in published.faults(known, reply)]
    assert not faults, f"{method} {reply.request.url}: {faults}"


def _asked_as_the_draft(request: httpx.Request) -> bool:
    """Whether a session was updated by `type` and `state`, which is answered in the same form."""
    if request.method != "POST" or not request.url.path.startswith("/sessions/"):
        return False
    codec = next((one for one in CODECS if one.media_type == request.headers.get("content-type")), CODECS[0])
    try:
        return is_update(codec.decode(request.content))
    except (httpx.RequestNotRead, Unreadable):
        return False


def _is_published(reply: httpx.Response) -> bool:
    """v1.0 has no problem documents; beside its own answers ours are."""
    return "problem" not in reply.headers.get("content-type", "")


async def watch(reply: httpx.Response) -> None:
    """An event hook for an asynchronous client."""
    if "event-stream" not in reply.headers.get("content-type", ""):
        await reply.aread()
        judge(reply)


HOOKS: dict[str, list[Any]] = {"response": [watch]}
