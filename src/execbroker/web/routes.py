import os
import re
from typing import Annotated, Any
from urllib.parse import quote, unquote_to_bytes
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import TypeAdapter
from starlette.background import BackgroundTask
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.types import Receive, Scope, Send

from execbroker.broker import Broker
from execbroker.codecs import Codec, plain
from execbroker.dialect2024 import downgrade, is_update, upgrade
from execbroker.errors import Fault, Forbidden, Invalid, RangeNotSatisfiable
from execbroker.kinds.listing import kinds_spoken
from execbroker.model.identities import Identity
from execbroker.model.options import AbstractUpdate, EnumValueUpdate, Update
from execbroker.model.phases import Phase
from execbroker.model.sessions import ExecutionRequest, ScheduledExecutionSession
from execbroker.model.times import format_instant, parse_instant
from execbroker.rendering import Renderer, moment
from execbroker.store import Stream
from execbroker.web.conditional import expected, known
from execbroker.web.negotiate import read_as, read_body, reply, reply_codec
from execbroker.web.once import OnceRoute, once
from execbroker.web.trail import tell


class _Anything(PathConvertor):
    """A path with every character that a file name may have, line ends included."""

    regex = r"[\s\S]*"


register_url_convertor("anything", _Anything())
router = APIRouter(route_class=OnceRoute)
open_to_all = APIRouter()
"""Routes for those who have not said who they are, too."""
faces = APIRouter()
"""Routes that show others the face of something, where the setting `auth.public` says so."""
REQUEST: TypeAdapter[ExecutionRequest] = TypeAdapter(ExecutionRequest)
UPDATE: TypeAdapter[AbstractUpdate] = TypeAdapter(Update)
MOST_WAIT = 60.0


async def desk(request: Request) -> Broker:
    broker: Broker = request.app.state.broker
    return broker


async def renderer(request: Request) -> Renderer:
    public: str | None = request.app.state.config.public_url
    return Renderer((public or str(request.base_url)).rstrip("/"))


async def identity(request: Request) -> Identity:
    """Who asks, as the door has found."""
    who: Identity = request.state.identity
    return who


def wants_redirect(request: Request) -> bool:
    asked = "return=minimal" in request.headers.get("prefer", "").replace(" ", "").lower()
    return asked or request.app.state.config.reply == "redirect"


Desk = Annotated[Broker, Depends(desk)]
Draw = Annotated[Renderer, Depends(renderer)]
Who = Annotated[Identity, Depends(identity)]
Speak = Annotated[Codec, Depends(reply_codec)]
Body = Annotated[Any, Depends(read_body)]
Wait = Annotated[float, Query(ge=0, le=MOST_WAIT, description="Answer when it changes, or after so many seconds.")]
After = Annotated[str | None, Query(description="Only what was created after this instant.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many, the newest first.")]


async def show_offerset(request: Request, uuid: UUID) -> Response:
    codec = await reply_codec(request)
    return await offerset(request, uuid, await desk(request), await renderer(request), await identity(request), codec)


async def show_session(request: Request, uuid: UUID) -> Response:
    found = await (await desk(request)).session(uuid, await identity(request), await renderer(request))
    return reply(await reply_codec(request), _in_form_of(await read_body(request), found))


async def show_direct(request: Request, uuid: UUID) -> Response:
    found = await (await desk(request)).session(uuid, await identity(request), await renderer(request))
    return reply(await reply_codec(request), found, 400 if found.phase is Phase.FAILED else 200)


@router.post("/requests", operation_id="ExecutionRequest")
@once(made=lambda answer: answer.offerset.uuid, show=show_offerset)
async def ask(request: Request, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    """When, where and how can I run this?"""
    found = await broker.ask(read_as(REQUEST, body), who, draw)
    assert found.meta is not None
    tell(request, action="ask", uuid=found.meta.uuid)
    if wants_redirect(request):
        return Response(status_code=303, headers={"Location": found.meta.url or ""})
    return reply(codec, found)


@router.post("/direct", operation_id="DirectExecution")
@once(made=lambda answer: answer.offers[0].uuid, show=show_direct)
async def direct(request: Request, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    """Run this as soon as possible, without offers."""
    found = await broker.direct(read_as(REQUEST, body), who, draw)
    assert found.meta is not None
    tell(request, action="direct", uuid=found.meta.uuid)
    if found.phase is Phase.FAILED:
        return reply(codec, found, 400)
    if wants_redirect(request):
        return Response(status_code=303, headers={"Location": found.meta.url or ""})
    return reply(codec, found)


@router.get("/offersets", operation_id="OfferSetList")
async def offersets(
    broker: Desk,
    draw: Draw,
    who: Who,
    codec: Speak,
    phase: Annotated[list[Phase] | None, Query(description="Only those with an offer in any of these phases.")] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """The answers to earlier requests."""
    found = await broker.offersets(who, draw, phase or (), _seconds(after), limit)
    return reply(codec, {"offersets": [item.model_dump(mode="json", exclude_none=True) for item in found]})


@faces.get("/offersets/{uuid}", operation_id="OfferSetSelect")
async def offerset(request: Request, uuid: UUID, broker: Desk, draw: Draw, who: Who, codec: Speak, wait: Wait = 0) -> Response:
    """One answer, its offers as they are now."""
    return reply(codec, await broker.offerset(uuid, who, draw, wait, known(request, codec)))


@router.get("/sessions", operation_id="SessionList")
async def sessions(
    broker: Desk,
    draw: Draw,
    who: Who,
    codec: Speak,
    phase: Annotated[list[Phase] | None, Query(description="Only those in any of these phases.")] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """Offers and sessions."""
    found = await broker.sessions(who, draw, phase or (), _seconds(after), limit)
    return reply(codec, {"sessions": [item.model_dump(mode="json", exclude_none=True) for item in found]})


@faces.get("/sessions/{uuid}", operation_id="SessionSelect")
async def session(
    request: Request,
    uuid: UUID,
    broker: Desk,
    draw: Draw,
    who: Who,
    codec: Speak,
    wait: Wait = 0,
    phase: Annotated[Phase | None, Query(description="With `wait`: the phase that the caller knows already.")] = None,
) -> Response:
    """One offer or session."""
    return reply(codec, await broker.session(uuid, who, draw, wait, phase, known(request, codec)))


@router.post("/sessions/{uuid}", operation_id="SessionUpdate")
@once(made=lambda row: row.uuid, show=show_session)
async def update(request: Request, uuid: UUID, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    """Accept, reject or cancel."""
    change = read_as(UPDATE, upgrade(body) if is_update(body) else body)
    tell(request, action=action_of(change))
    return reply(codec, _in_form_of(body, await broker.update(uuid, change, who, draw, expected(request))))


def _in_form_of(body: Any, found: ScheduledExecutionSession) -> Any:
    """The draft has the updates of the 2024 dialect at the address of v1.0 (2.2)."""
    return downgrade(plain(found)) if is_update(body) else found


@faces.get("/components/{uuid}", operation_id="ComponentSelect")
async def component(uuid: UUID, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    """Whatever has this uuid: an offerset, a session, or a part of one."""
    return reply(codec, await broker.component(uuid, who, draw))


@router.get("/sessions/{uuid}/{stream}", operation_id="SessionOutput")
async def output(
    request: Request,
    uuid: UUID,
    stream: Stream,
    broker: Desk,
    who: Who,
    offset: Annotated[int, Query(ge=0, description="From this byte on.")] = 0,
) -> Response:
    """What the session has written so far, from `offset` on, or the bytes of `Range`."""
    size = await broker.output_size(uuid, who, stream)
    headers = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}
    asked = _range(request.headers.get("range", ""), size)
    if asked is None:
        content = await broker.output(uuid, who, stream, min(offset, size))
        return Response(content, headers=headers, media_type="text/plain; charset=utf-8")
    first, last = asked
    content = await broker.output(uuid, who, stream, first, last + 1)
    headers["Content-Range"] = f"bytes {first}-{first + len(content) - 1}/{size}"
    return Response(content, 206, headers, "text/plain; charset=utf-8")


@router.get("/sessions/{uuid}/files/{path:anything}", operation_id="SessionFiles")
async def files(
    request: Request,
    uuid: UUID,
    path: str,
    broker: Desk,
    draw: Draw,
    who: Who,
    codec: Speak,
    deep: Annotated[bool, Query(description="Every file below this folder.")] = False,
) -> Response:
    """A folder's content, or a file: what the session left in its home and its storage."""
    path = os.fsdecode(unquote_to_bytes(request.scope["raw_path"].partition(b"/files/")[2]))
    if (opened := await broker.file(uuid, who, path)) is not None:
        headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
        # By its descriptor, so that it is the file that was checked, whatever the session puts in its place meanwhile.
        return Download(f"/proc/self/fd/{opened}", headers=headers, background=BackgroundTask(os.close, opened))
    base = f"{draw.base}/sessions/{uuid}/files"
    entries = await broker.files(uuid, who, path, deep=deep)
    return reply(codec, {"files": [_entry(base, entry) for entry in entries]})


@router.get("/platforms", operation_id="PlatformList")
async def platforms(broker: Desk, who: Who, codec: Speak) -> Response:
    """What may be asked here."""
    return reply(codec, {"platforms": broker.platforms(who), "kinds": kinds_spoken()})


@router.get("/me", operation_id="Me")
async def me(broker: Desk, who: Who, codec: Speak) -> Response:
    """Who you are, what you may have here, and what is left of it."""
    return reply(codec, await broker.me(who))


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """This API, for programs that write clients."""
    from execbroker.web.openapi import describe

    if not request.app.openapi_schema:
        request.app.openapi_schema = describe(request.app)
    return JSONResponse(request.app.openapi_schema)


@open_to_all.get("/healthz", operation_id="Health")
async def health(codec: Speak) -> Response:
    """Whether the broker is there."""
    return reply(codec, {"status": "ok"})


@open_to_all.get("/login", operation_id="LoginSelect")
async def login(request: Request, codec: Speak) -> Response:
    """How people may say who they are: by a name and a password, and at which issuers, under which public client."""
    auth = request.app.state.config.auth
    issuers = [
        {"issuer": one.issuer, "client_id": one.client_id, "scopes": one.scopes, "audience": one.audience[0]}
        for one in auth.issuers
        if one.client_id
    ]
    return reply(codec, {"basic": auth.mode == "accounts", "issuers": issuers})


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, who: Who) -> Response:
    """Figures for Prometheus, and so the admin's."""
    if not who.admin:
        raise Forbidden("The figures are the admin's")
    content, media_type = await request.app.state.metrics.scrape(request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": media_type})


def action_of(change: AbstractUpdate) -> str:
    """What the audit log calls it."""
    if isinstance(change, EnumValueUpdate):
        return {"ACCEPTED": "accept", "REJECTED": "reject", "CANCELLED": "cancel"}.get(change.value.upper(), "update")
    return "extend"


class Download(FileResponse):
    """A file; of a HEAD, which comes here as GET, nothing of it is read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "HEAD" if scope["state"].get("head") else scope["method"]
        await super().__call__({**scope, "method": method}, receive, send)


def _entry(base: str, entry: Any) -> dict[str, Any]:
    slash = "/" if entry.folder else ""
    name = os.fsencode(entry.path)  # a name need not be UTF-8
    return {
        "path": name.decode("utf-8", "backslashreplace") + slash,
        "type": "folder" if entry.folder else "file",
        "size": entry.size,
        "modified": format_instant(moment(entry.modified)),
        "url": f"{base}/{quote(name)}{slash}",
    }


def _seconds(after: str | None) -> int | None:
    try:
        return int(parse_instant(after)[0].timestamp()) if after else None
    except ValueError as error:
        raise Invalid(faults=(Fault("query.after", "instant", str(error), after),)) from None


def _range(header: str, size: int) -> tuple[int, int] | None:
    """The first and last byte of a single range; None for what is none, which counts as not asked (RFC 9110, 14.2).

    Raises RangeNotSatisfiable.
    """
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        first, last = int(match[1]), min(int(match[2]) if match[2] else size - 1, size - 1)
        if first <= last:
            return first, last
    elif size and int(match[2]):
        return max(size - int(match[2]), 0), size - 1
    error = RangeNotSatisfiable(f"{header!r} is not among the {size} bytes there are")
    error.headers = {"Content-Range": f"bytes */{size}"}
    raise error
