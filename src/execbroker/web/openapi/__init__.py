"""Our OpenAPI: the routes as they are, the schemas as the models are."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from execbroker import __version__
from execbroker.codecs import CODECS
from execbroker.web.openapi import examples
from execbroker.web.openapi.answers import (
    CONTENT_RANGE,
    ETAG,
    EVERYWHERE,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    LOCATION,
    OF_STATUS,
    PREFER,
    PROBLEMS,
    RANGE,
    RANGES,
    REFUSALS,
    REPLAYED,
    VARY,
)
from execbroker.web.openapi.documents import Json, documents
from execbroker.web.openapi.schemas import REF, schemas

BODIES = {
    "ExecutionRequest": "ExecutionRequest",
    "DirectExecution": "ExecutionRequest",
    "SessionUpdate": "AbstractUpdate",
    "IdentityCreate": "NewIdentity",
    "IdentityUpdate": "IdentityChange",
}
ANSWERS = {
    "ExecutionRequest": "OfferSetResponse",
    "DirectExecution": "AbstractExecutionSession",
    "OfferSetList": "OfferSetList",
    "OfferSetSelect": "OfferSetResponse",
    "SessionList": "SessionList",
    "SessionSelect": "AbstractExecutionSession",
    "SessionUpdate": "AbstractExecutionSession",
    "ComponentSelect": "AbstractComponent",
    "SessionFiles": "FileList",
    "PlatformList": "PlatformList",
    "Me": "Me",
    "Health": "Health",
    "LoginSelect": "Logins",
    "Index": "Index",
    "IdentityCreate": "IdentityCreated",
    "IdentityList": "IdentityList",
    "IdentitySelect": "Identity",
    "IdentityUpdate": "Identity",
}
ONCE = ("ExecutionRequest", "DirectExecution", "SessionUpdate")
SCHEMES = {"token": "bearer", "account": "basic"}
OPEN = ("Health", "LoginSelect", "Index", "Capabilities", "Availability", "Examples")
"""Those for which nobody has to log in."""
_XML: Json = {"text/xml": {"schema": {"type": "string"}}}
WRITTEN = {"Capabilities": _XML, "Availability": _XML, "Examples": {"application/xhtml+xml": {"schema": {"type": "string"}}}}
"""Those of one media type."""
STREAMS = ("SessionOutput", "SessionFiles")
PLAIN: Json = {"text/plain": {"schema": {"type": "string"}}}
BYTES: Json = {"application/octet-stream": {}}


def describe(app: FastAPI) -> Json:
    """The OpenAPI 3.1 document of the API."""
    document = get_openapi(
        title="execbroker",
        version=__version__,
        summary="An IVOA ExecutionBroker",
        description="Where, how and when can I run this? The published API v1.0, with additions beside it.",
        license_info={"name": "BSD 3-Clause", "identifier": "BSD-3-Clause"},
        servers=[{"url": "/"}],
        routes=app.routes,
        openapi_version="3.1.0",
    )
    parts = document.setdefault("components", {})
    parts["schemas"] = schemas() | documents()
    parts["securitySchemes"] = {name: {"type": "http", "scheme": scheme} for name, scheme in SCHEMES.items()}
    document["security"] = [{name: []} for name in SCHEMES]
    for path in document["paths"].values():
        for method, operation in path.items():
            _complete(operation, tagged=method == "get" and operation["operationId"] in {**ANSWERS, **WRITTEN})
    return document


def _complete(operation: Json, *, tagged: bool) -> None:
    """Say what goes in and what comes out: the routes decode and encode by themselves, so FastAPI does not know."""
    name = operation["operationId"]
    if name in BODIES:
        content = _content(BODIES[name])
        content["application/json"]["examples"] = examples.OF_BODIES[name]
        operation["requestBody"] = {"required": True, "content": content}
    parameters = [IDEMPOTENCY_KEY] * (name in ONCE) + [PREFER] * (name in ("ExecutionRequest", "DirectExecution"))
    parameters += [RANGE] * (name in STREAMS) + [IF_NONE_MATCH] * tagged + [IF_MATCH] * (name == "SessionUpdate")
    if parameters:
        operation["parameters"] = [*operation.get("parameters", []), *parameters]
    if name in OPEN:
        operation["security"] = []
    done = next(iter(operation["responses"]))
    answers = _answers(name, done) | {status: _problem(status) for status in REFUSALS[name]}
    if tagged:
        answers[done]["headers"] = answers[done].get("headers", {}) | (ETAG if name not in STREAMS else {})
        answers["304"] = {"description": "It is as the client knows it.", "headers": VARY | ETAG}
    if name == "DirectExecution":
        answers["400"] = _cannot_run()
    for answer in answers.values():
        answer["headers"] = answer.get("headers", {}) | (REPLAYED if name in ONCE else {}) | EVERYWHERE
    for (of, status), found in examples.OF_REPLIES.items():
        if of == name:
            answers[status]["content"]["application/json"]["examples"] = found
    operation["responses"] = dict(sorted(answers.items()))


def _answers(name: str, done: str) -> dict[str, Json]:
    """What it is answered with where it does what was asked for."""
    if name == "SessionOutput":
        return {
            done: {"description": "What was written, from `offset` on.", "content": PLAIN, "headers": RANGES},
            "206": {"description": "The bytes of `Range`.", "content": PLAIN, "headers": RANGES | CONTENT_RANGE},
        }
    if name.endswith("EventStream"):
        stream = {done: {"description": "Server-Sent Events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}}
        over = {"204": {"description": "The session is over, and nothing comes after that number."}}
        return stream | (over if name == "SessionEventStream" else {})
    content = WRITTEN.get(name) or _content(ANSWERS[name])
    answers: dict[str, Json] = {done: {"description": "As asked.", "content": content, "headers": VARY}}
    if name == "Index":
        content["text/html"] = {"schema": {"type": "string"}}
    if name == "SessionFiles":
        answers[done] |= {"description": "The folder's content, or the file.", "content": _content("FileList") | BYTES}
        answers["206"] = {"description": "The bytes of `Range`.", "headers": CONTENT_RANGE, "content": BYTES | _of_parts()}
        answers["400"] = {"description": "The `Range` is none.", "content": PLAIN}
        answers["416"] = {"description": PROBLEMS["416"], "content": PLAIN, "headers": CONTENT_RANGE}
    if name in ("ExecutionRequest", "DirectExecution"):
        answers["303"] = {"description": "Where it is, if asked for by `Prefer: return=minimal`.", "headers": LOCATION}
    return answers


def _of_parts() -> Json:
    return {"multipart/byteranges": {}}


def _cannot_run() -> Json:
    """A FAILED session, as published; or, where the body cannot be read, a problem."""
    text = "The body cannot be read; or it cannot be run, and the FAILED session says why."
    content = _content("AbstractExecutionSession")
    problems = {name: found for name, found in _problem_content().items() if name not in content}
    return {"description": text, "headers": VARY, "content": content | problems}


def _problem(status: str) -> Json:
    headers = VARY | OF_STATUS.get(status, {})
    return {"description": PROBLEMS[status], "headers": headers, "content": _problem_content()}


def _problem_content() -> Json:
    found: Json = {codec.problem_type or codec.media_type: {"schema": {"$ref": f"{REF}Problem"}} for codec in CODECS}
    found["application/problem+json"]["examples"] = {"faults": {"value": examples.PROBLEM}}
    return found


def _content(schema: str) -> dict[str, Any]:
    return {codec.media_type: {"schema": {"$ref": REF + schema}} for codec in CODECS}
