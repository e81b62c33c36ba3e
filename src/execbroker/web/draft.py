"""The addresses of the draft (5.2), and that of the talk of November 2024; all for the same sessions as the others."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from execbroker.codecs import Codec, plain
from execbroker.draft.downgrading import Form, downgrade, downgrade_offer, form_of
from execbroker.draft.upgrading import upgrade, upgrade_offer
from execbroker.model.sessions import ScheduledExecutionSession
from execbroker.web.conditional import expected, known
from execbroker.web.negotiate import read_as, read_body, reply, reply_codec
from execbroker.web.once import OnceRoute, once
from execbroker.web.routes import (
    REQUEST,
    UPDATE,
    Body,
    Desk,
    Draw,
    Speak,
    Wait,
    Who,
    action_of,
    desk,
    identity,
    renderer,
    wants_redirect,
)
from execbroker.web.trail import tell

draft = APIRouter(include_in_schema=False, route_class=OnceRoute)
draft_faces = APIRouter(include_in_schema=False)


async def show_answer(request: Request, uuid: UUID) -> Response:
    found = await (await desk(request)).offerset(uuid, await identity(request), await renderer(request))
    return _reply(await reply_codec(request), _answer(plain(found), await read_body(request)))


async def show_offer(request: Request, uuid: UUID) -> Response:
    found = await (await desk(request)).session(uuid, await identity(request), await renderer(request))
    return _reply(await reply_codec(request), _offer(found))


@draft.post("/request")
@draft.post("/offersets")
@once(made=lambda answer: answer.offerset.uuid, show=show_answer)
async def ask(request: Request, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    asked = body if form_of(body) is None else upgrade(body)
    found = await broker.ask(read_as(REQUEST, asked), who, draw)
    assert found.meta is not None
    tell(request, action="ask", uuid=found.meta.uuid)
    answer = _answer(plain(found), body)
    if wants_redirect(request):
        return Response(status_code=303, headers={"Location": _address(answer)})
    return _reply(codec, answer)


@draft_faces.get("/offers/{uuid}")
async def offer(request: Request, uuid: UUID, broker: Desk, draw: Draw, who: Who, codec: Speak, wait: Wait = 0) -> Response:
    return _reply(codec, _offer(await broker.session(uuid, who, draw, wait, known=known(request, codec, _offer))))


@draft.post("/offers/{uuid}")
@once(made=lambda row: row.uuid, show=show_offer)
async def update(request: Request, uuid: UUID, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    change = read_as(UPDATE, upgrade_offer(body, str(uuid)))
    tell(request, action=action_of(change))
    return _reply(codec, _offer(await broker.update(uuid, change, who, draw, expected(request, _offer))))


def _offer(found: ScheduledExecutionSession) -> Any:
    return downgrade_offer(plain(found))


def _answer(found: Any, asked: Any) -> Any:
    form: Form | None = form_of(asked)
    return found if form is None else downgrade(found, form)


def _address(answer: Any) -> str:
    about = answer.get("response") or answer.get("meta") or answer
    return str(about.get("href") or about.get("url"))


def _reply(codec: Codec, document: Any) -> Response:
    """As the draft's listings have it, YAML says its character set."""
    found = reply(codec, document)
    if codec.media_type == "application/yaml":
        found.headers["content-type"] = f"{codec.media_type}; charset=utf-8"
    return found
