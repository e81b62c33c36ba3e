from uuid import UUID

from fastapi import APIRouter, Request, Response

from execbroker.codecs import plain
from execbroker.dialect2024 import downgrade, upgrade
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


async def show_offerset(request: Request, uuid: UUID) -> Response:
    return await offerset(uuid, await desk(request), await renderer(request), await identity(request), await reply_codec(request))


async def show_execution(request: Request, uuid: UUID) -> Response:
    return await execution(
        uuid, await desk(request), await renderer(request), await identity(request), await reply_codec(request)
    )


@dialect.post("/offerset")
@once(made=lambda answer: answer.offerset.uuid, show=show_offerset)
async def ask(request: Request, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    found = downgrade(plain(await broker.ask(read_as(REQUEST, upgrade(body)), who, draw)))
    tell(request, action="ask", uuid=UUID(found["uuid"]))
    if wants_redirect(request):
        return Response(status_code=303, headers={"Location": found["href"]})
    return reply(codec, found)


@dialect_faces.get("/offerset/{uuid}")
async def offerset(uuid: UUID, broker: Desk, draw: Draw, who: Who, codec: Speak, wait: Wait = 0) -> Response:
    return reply(codec, downgrade(plain(await broker.offerset(uuid, who, draw, wait))))


@dialect_faces.get("/execution/{uuid}")
async def execution(uuid: UUID, broker: Desk, draw: Draw, who: Who, codec: Speak, wait: Wait = 0) -> Response:
    return reply(codec, downgrade(plain(await broker.session(uuid, who, draw, wait))))


@dialect.post("/execution/{uuid}")
@once(made=lambda row: row.uuid, show=show_execution)
async def update(request: Request, uuid: UUID, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    change = read_as(UPDATE, upgrade(body))
    tell(request, action=action_of(change))
    return reply(codec, downgrade(plain(await broker.update(uuid, change, who, draw))))
