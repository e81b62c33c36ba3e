"""What the routes answer with beside documents: statuses and headers."""

from typing import Any

from execbroker.web.openapi.documents import Json

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
    "415": "The body's media type, or its encoding, is not read here.",
    "416": "There are no such bytes.",
    "422": "The document, or a parameter, does not fit the schema.",
    "429": "Too many requests, or logins that failed.",
    "503": "Too busy, or the database, or who vouches for a token, does not answer.",
    "507": "The broker's disk is full.",
}
DOOR = ("401", "403", "429", "503")
"""What whoever comes to any route may be told."""
NEGOTIATED = (*DOOR, "406")
WITH_BODY = (*NEGOTIATED, "400", "408", "413", "415", "422", "507")
REFUSALS: dict[str, tuple[str, ...]] = {
    "ExecutionRequest": (*WITH_BODY, "409"),
    "DirectExecution": (*WITH_BODY, "409"),
    "OfferSetList": (*NEGOTIATED, "422"),
    "OfferSetSelect": (*NEGOTIATED, "404", "422"),
    "SessionList": (*NEGOTIATED, "422"),
    "SessionSelect": (*NEGOTIATED, "404", "422"),
    "SessionUpdate": (*WITH_BODY, "404", "409", "412"),
    "ComponentSelect": (*NEGOTIATED, "404"),
    "SessionOutput": (*DOOR, "404", "416", "422"),
    "SessionFiles": (*NEGOTIATED, "404", "422"),
    "PlatformList": NEGOTIATED,
    "Me": NEGOTIATED,
    "Health": NEGOTIATED,
    "LoginSelect": NEGOTIATED,
    "Index": NEGOTIATED,
    "Capabilities": DOOR,
    "Availability": DOOR,
    "Examples": DOOR,
    "EventStream": (*DOOR, "422"),
    "SessionEventStream": (*DOOR, "404", "422"),
    "IdentityCreate": (*WITH_BODY, "404", "409"),
    "IdentityList": (*NEGOTIATED, "404"),
    "IdentitySelect": (*NEGOTIATED, "404"),
    "IdentityUpdate": (*WITH_BODY, "404"),
}


def header(text: str, *, always: bool = False, **schema: Any) -> Json:
    return {"description": text, "schema": {"type": "string", **schema}, **({"required": True} if always else {})}


EVERYWHERE = {
    "X-Request-ID": header("The name of the request: its own, where it had one.", always=True),
    "X-VO-Authenticated": header("Who was recognised (IVOA SSO), where the broker has accounts."),
}
VARY = {"Vary": header("Replies differ by `Accept`, and by `Accept-Encoding`.")}
ETAG = {"ETag": header("The name of these very bytes, for `If-None-Match` and `If-Match`.", always=True)}
AGAIN = header("Seconds after which it may be tried again.", always=True, pattern="^[0-9]+$")
REPLAYED = {"Idempotency-Replayed": header("That this is the reply to an earlier request of the same key.", enum=["true"])}
LOCATION = {"Location": header("Where it is.", always=True, format="uri-reference")}
RANGES = {"Accept-Ranges": header("The units of ranges.", enum=["bytes"])}
CONTENT_RANGE = {"Content-Range": header("Which bytes of how many.")}
OF_STATUS: dict[str, Json] = {
    "401": {"WWW-Authenticate": header("What would do, once for each.")},
    "409": {"Retry-After": AGAIN | {"required": False}},
    "415": {"Accept-Encoding": header("The encodings that are read, where it was that.")},
    "416": CONTENT_RANGE,
    "429": {"Retry-After": AGAIN},
    "503": {"Retry-After": AGAIN},
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "New for each request. The same again, with the same key, is not done again, and gets the same reply.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x20-\\x7e]*$"},
}
PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "`return=minimal` asks for 303 and `Location` in place of the document (RFC 7240).",
    "schema": {"type": "string"},
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The `ETag` of what is known already: 304 where it is still that (RFC 9110, 13.1.2).",
    "schema": {"type": "string"},
}
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "The `ETag` of what is to be changed: 412 where it is no longer that (RFC 9110, 13.1.1).",
    "schema": {"type": "string"},
}
RANGE = {
    "name": "Range",
    "in": "header",
    "description": "`bytes=N-M`: those bytes alone (RFC 9110, 14.2).",
    "schema": {"type": "string"},
}
