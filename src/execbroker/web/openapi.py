from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from execbroker import __version__
from execbroker.codecs import CODECS
from execbroker.model import components, options, sessions
from execbroker.model.base import Wire
from execbroker.model.registry import Family
from execbroker.web.admin import IdentityChange, NewIdentity
from execbroker.xml.codec import NAMESPACE

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
PROBLEM = {
    "type": "object",
    "title": "Problem",
    "xml": {"name": "problem", "namespace": NAMESPACE},
    "description": "A problem document (RFC 9457); `errors` has every fault of a document by its path.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string"},
                    "kind": {"type": "string"},
                    "message": {"type": "string"},
                    "input": {},
                },
            },
        },
        "phase": {"type": "string"},
        "allowed": {"type": "array", "items": {"type": "string"}},
    },
}
BODIES = {"ExecutionRequest": "ExecutionRequest", "DirectExecution": "ExecutionRequest", "SessionUpdate": "AbstractUpdate"}
BODIES |= {"IdentityCreate": "NewIdentity", "IdentityUpdate": "IdentityChange"}
ANSWERS = {
    "ExecutionRequest": "OfferSetResponse",
    "DirectExecution": "AbstractExecutionSession",
    "OfferSetSelect": "OfferSetResponse",
    "SessionSelect": "AbstractExecutionSession",
    "SessionUpdate": "AbstractExecutionSession",
    "ComponentSelect": "AbstractComponent",
}
SCHEMES = {"token": "bearer", "account": "basic"}
OPEN = ("Health", "LoginSelect", "Index", "Capabilities", "Availability", "Examples")
"""Those for which nobody has to log in."""
_TEXT = {"schema": {"type": "string"}}
WRITTEN = {
    "Capabilities": {"text/xml": _TEXT},
    "Availability": {"text/xml": _TEXT},
    "Examples": {"application/xhtml+xml": _TEXT},
}
"""Those of one media type."""
_SAME = ("If-None-Match", "304", "It is as the client knows it.")
TAGGED = {"OfferSetSelect": _SAME, "SessionSelect": _SAME, "SessionUpdate": ("If-Match", "412", "")}
PROBLEMS = {
    "400": "The body cannot be read.",
    "401": "The credentials are missing or wrong.",
    "403": "It is another's; or not under this name, or not from that page.",
    "404": "There is no such thing here.",
    "406": "No media type in common.",
    "408": "The body did not come in time.",
    "409": "The session's phase does not allow it, or the same is being done already.",
    "412": "`If-Match` or `If-None-Match` does not hold.",
    "413": "The body is too large.",
    "415": "The body's media type is not read here.",
    "416": "There are no such bytes.",
    "422": "The document, or a parameter, does not fit the schema.",
    "429": "Too many requests, or logins that failed; `Retry-After` says when to try again.",
    "503": "Too busy; `Retry-After` says when to try again.",
    "507": "The broker's disk is full.",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the API: the routes as they are, the schemas as the models are."""
    document = get_openapi(
        title="execbroker", version=__version__, summary="An IVOA ExecutionBroker", routes=app.routes, openapi_version="3.1.0"
    )
    parts = document.setdefault("components", {})
    of_accounts = {model.__name__: model.model_json_schema() for model in (NewIdentity, IdentityChange)}
    parts["schemas"] = schemas() | {"Problem": PROBLEM} | of_accounts
    parts["securitySchemes"] = {name: {"type": "http", "scheme": scheme} for name, scheme in SCHEMES.items()}
    document["security"] = [{name: []} for name in SCHEMES]
    for path in document["paths"].values():
        for operation in path.values():
            _complete(operation)
    return document


def _complete(operation: dict[str, Any]) -> None:
    """Say what goes in and what comes out: the routes decode and encode by themselves, so FastAPI does not know."""
    name = operation["operationId"]
    if name in BODIES:
        operation["requestBody"] = {"required": True, "content": _content(BODIES[name])}
    done = next(iter(operation["responses"]))
    answers: dict[str, Any] = {done: {"description": "As asked."}}
    if name in ANSWERS:
        answers[done]["content"] = _content(ANSWERS[name])
    elif name == "SessionOutput":
        answers[done]["content"] = {"text/plain": {"schema": {"type": "string"}}}
        answers["206"] = {"description": "The bytes of `Range`.", "content": answers[done]["content"]}
    elif name.endswith("EventStream"):
        answers[done] = {"description": "Server-Sent Events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
        if name == "SessionEventStream":
            answers["204"] = {"description": "The session is over, and nothing comes after that number."}
    else:
        answers[done]["content"] = WRITTEN.get(name) or {codec.media_type: {"schema": {"type": "object"}} for codec in CODECS}
    if name in ("ExecutionRequest", "DirectExecution"):
        location = {"Location": {"required": True, "schema": {"type": "string", "format": "uri"}}}
        answers["303"] = {"description": "Where it is, if asked for by `Prefer: return=minimal`.", "headers": location}
    problem = {codec.problem_type: {"schema": {"$ref": f"{REF}Problem"}} for codec in CODECS if codec.problem_type}
    answers |= {status: {"description": text, "content": problem} for status, text in PROBLEMS.items()}
    if name == "DirectExecution":
        text = "The body cannot be read; or it cannot be run, and the FAILED session says why."
        answers["400"] = {"description": text, "content": _content("AbstractExecutionSession") | problem}
    if name in OPEN:
        operation["security"] = []
    _depend(operation, answers, done)
    operation["responses"] = dict(sorted(answers.items()))


def _depend(operation: dict[str, Any], answers: dict[str, Any], done: str) -> None:
    """What entity tags do (RFC 9110, 13)."""
    if operation["operationId"] not in TAGGED:
        return
    header, status, text = TAGGED[operation["operationId"]]
    parameter = {"name": header, "in": "header", "required": False, "schema": {"type": "string"}}
    operation.setdefault("parameters", []).append(parameter)
    if status in answers:
        return
    answers[status] = {"description": text}
    answers[done]["headers"] = {"ETag": {"schema": {"type": "string"}}}


def _content(schema: str) -> dict[str, Any]:
    return {codec.media_type: {"schema": {"$ref": REF + schema}} for codec in CODECS}


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
