from uuid import UUID

from fastapi import APIRouter, Request, Response

from execbroker.codecs import plain
from execbroker.dialect2024 import downgrade, upgrade
from execbroker.web.negotiate import read_as, reply
from execbroker.web.routes import REQUEST, UPDATE, Body, Desk, Draw, Speak, Wait, Who, wants_redirect

dialect = APIRouter(include_in_schema=False)
dialect_faces = APIRouter(include_in_schema=False)


@dialect.post("/offerset")
async def ask(request: Request, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    found = downgrade(plain(await broker.ask(read_as(REQUEST, upgrade(body)), who, draw)))
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
async def update(uuid: UUID, body: Body, broker: Desk, draw: Draw, who: Who, codec: Speak) -> Response:
    return reply(codec, downgrade(plain(await broker.update(uuid, read_as(UPDATE, upgrade(body)), who, draw))))
