"""The documents that v1.0 does not have: lists, problems, profiles of platforms, accounts."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from execbroker.model.policies import Limits
from execbroker.model.prices import Prices
from execbroker.web.admin import IdentityChange, NewIdentity
from execbroker.web.openapi.schemas import REF, without_null
from execbroker.xml.codec import NAMESPACE

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
TRUTH: Json = {"type": "boolean"}
INSTANT: Json = {"type": "string", "format": "date-time"}


def a_list(items: Json) -> Json:
    return {"type": "array", "items": items}


def a_map(values: Json) -> Json:
    """Of any names."""
    return {"type": "object", "additionalProperties": values}


def an_object(optional: Json | None = None, /, **required: Json) -> Json:
    return {"type": "object", "properties": required | (optional or {}), "required": list(required)}


def a(name: str) -> Json:
    return {"$ref": REF + name}


UUID: Json = {"type": "string", "format": "uuid"}
COUNTS, AMOUNTS = a_map(WHOLE), a_map(NUMBER)
FAULT = an_object({"input": {}}, path=TEXT, kind=TEXT, message=TEXT)
PROBLEM = {
    **an_object(
        {"errors": a_list(FAULT), "phase": TEXT, "allowed": a_list(TEXT), "seconds": WHOLE},
        type=TEXT,
        title=TEXT,
        status=WHOLE,
        detail=TEXT,
    ),
    "title": "Problem",
    "xml": {"name": "problem", "namespace": NAMESPACE},
    "description": "A problem document (RFC 9457); `errors` has every fault of a document by its path.",
}
NODE = an_object({"accelerators": COUNTS}, name=TEXT, cores=WHOLE, memory=WHOLE, storage=WHOLE, units=TEXT)
PLATFORM = an_object(
    {"performance": NUMBER, "throughput": NUMBER},
    name=TEXT,
    type=TEXT,
    reachable=TRUTH,
    executables=a_list(TEXT),
    nodes=a_list(NODE),
    flavours=a_list(an_object(name=TEXT, cores=WHOLE, memory=WHOLE, accelerators=COUNTS)),
    accelerators=a_list(an_object(kind=TEXT, count=WHOLE, memory=WHOLE)),
    pools=COUNTS,
    prices=a("Prices"),
    limits=a("Limits"),
    several_nodes=TRUTH,
    extendable=TRUTH,
    release=TEXT,
    units=a_map(TEXT),
    notes=a_list(TEXT),
)
QUOTA = an_object({"renewed": INSTANT}, of=TEXT, name=TEXT, quota=AMOUNTS, used=AMOUNTS, left=AMOUNTS)
IDENTITY = an_object(
    {"issuer": {"type": ["string", "null"]}, "subject": {"type": ["string", "null"]}},
    uuid=UUID,
    username=TEXT,
    groups=a_list(TEXT),
    created=INSTANT,
    disabled=TRUTH,
)
ISSUER = an_object(issuer=TEXT, client_id=TEXT, scopes={}, audience=TEXT)
_WRITTEN: dict[str, Json] = {
    "Problem": PROBLEM,
    "OfferSetList": an_object(offersets=a_list(a("OfferSetResponse"))),
    "SessionList": an_object(sessions=a_list(a("AbstractExecutionSession"))),
    "FileList": an_object(files=a_list(an_object(path=TEXT, type=TEXT, size=WHOLE, modified=INSTANT, url=TEXT))),
    "Platform": PLATFORM,
    "PlatformList": an_object(platforms=a_list(a("Platform")), kinds=a_map(a_list(TEXT))),
    "Standing": an_object(name=TEXT, limits=a("Limits"), quotas=a_list(QUOTA)),
    "Me": an_object(name=TEXT, groups=a_list(TEXT), admin=TRUTH, platforms=a_list(a("Standing"))),
    "Health": an_object(status={"type": "string", "enum": ["ok"]}),
    "Index": an_object(
        {"description": TEXT, "identifier": TEXT},
        title=TEXT,
        standard=TEXT,
        software=an_object(name=TEXT, version=TEXT),
        links=a_map(TEXT),
    ),
    "Logins": an_object(basic=TRUTH, issuers=a_list(ISSUER)),
    "Identity": IDENTITY,
    "IdentityCreated": an_object(uuid=UUID, username=TEXT),
    "IdentityList": an_object(identities=a_list(a("Identity"))),
}


def documents() -> dict[str, Json]:
    """Their schemas, by name."""
    models: list[type[BaseModel]] = [Limits, Prices, NewIdentity, IdentityChange]
    _, generated = models_json_schema([(model, "serialization") for model in models], ref_template=REF + "{model}")
    return _WRITTEN | {name: without_null(schema) for name, schema in generated["$defs"].items()}
