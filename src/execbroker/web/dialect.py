from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from execbroker.codecs import plain
from execbroker.dialect2024 import downgrade, upgrade
from execbroker.web.conditional import expected, known
from execbroker.web.negotiate import read_as, reply, reply_codec
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

dialect = APIRouter(include_in_schema=False, route_class=OnceRoute)
dialect_faces = APIRouter(include_in_schema=False)


def shown(found: Any) -> Any:
    return downgrade(plain(found))


async def show_offerset(request: Request, uuid: UUID) -> Response:
    codec = await reply_codec(request)
    return await offerset(request, uuid, await desk(request), await renderer(request), await identity(request), codec)


async def show_execution(request: Request, uuid: UUID) -> Response:
    codec = await reply_codec(request)
    return await execution(request, uuid, await desk(request), await renderer(request), await identity(request), codec)


@dialect.post("/offerset")
@once(made=lambda answer: answer.offerset.uuid, show=show_offerset)
async def ask(request: Request, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    found = shown(await broker.ask(read_as(REQUEST, upgrade(body)), who, draw))
    tell(request, action="ask", uuid=UUID(found["uuid"]))
    if wants_redirect(request):
        return Response(status_code=303, headers={"Location": found["href"]})
    return reply(codec, found)


@dialect_faces.get("/offerset/{uuid}")
async def offerset(request: Request, uuid: UUID, broker: Desk, draw: Draw, who: Who, codec: Speak, wait: Wait = 0) -> Response:
    return reply(codec, shown(await broker.offerset(uuid, who, draw, wait, known(request, codec, shown))))


@dialect_faces.get("/execution/{uuid}")
async def execution(request: Request, uuid: UUID, broker: Desk, draw: Draw, who: Who, codec: Speak, wait: Wait = 0) -> Response:
    return reply(codec, shown(await broker.session(uuid, who, draw, wait, known=known(request, codec, shown))))


@dialect.post("/execution/{uuid}")
@once(made=lambda row: row.uuid, show=show_execution)
async def update(request: Request, uuid: UUID, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    change = read_as(UPDATE, upgrade(body))
    tell(request, action=action_of(change))
    return reply(codec, shown(await broker.update(uuid, change, who, draw, expected(request, shown))))
