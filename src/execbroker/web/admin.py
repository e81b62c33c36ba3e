from dataclasses import replace
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, TypeAdapter

from execbroker.access.accounts import Accounts, Change
from execbroker.errors import Forbidden, Invalid, NotFound, Unfit
from execbroker.ledger.identities import IdentityRow
from execbroker.model.times import format_instant
from execbroker.rendering import moment
from execbroker.web.negotiate import read_as, reply
from execbroker.web.routes import Body, Speak, Who

T = TypeVar("T")


class NewIdentity(BaseModel):
    model_config = ConfigDict(extra="forbid")

    username: str
    password: str
    groups: tuple[str, ...] = ()


class IdentityChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    disabled: bool | None = None
    password: str | None = None
    groups: tuple[str, ...] | None = None


async def accounts(request: Request, who: Who) -> Accounts:
    """Raises Forbidden for whoever is no admin, NotFound where the broker has no accounts."""
    found = request.app.state.accounts
    if not isinstance(found, Accounts):
        raise NotFound("This broker has no accounts; `auth: {mode: accounts}` gives it some")
    if not who.admin:
        raise Forbidden("Accounts are the admin's")
    return found


admin = APIRouter(prefix="/admin")
Known = Annotated[Accounts, Depends(accounts)]
NEW, CHANGE = TypeAdapter(NewIdentity), TypeAdapter(IdentityChange)


@admin.post("/identities", operation_id="IdentityCreate", status_code=201)
async def create(known: Known, body: Body, codec: Speak) -> Response:
    """Make an account."""
    new = _read(NEW, body)
    row = await known.create(new.username, new.password, new.groups)
    return reply(codec, {"uuid": str(row.uuid), "username": row.name}, 201)


@admin.get("/identities", operation_id="IdentityList")
async def identities(known: Known, codec: Speak) -> Response:
    """Who has an account, or was seen with a token."""
    return reply(codec, {"identities": [_shown(row) for row in await known.all()]})


@admin.get("/identities/{uuid}", operation_id="IdentitySelect")
async def one(uuid: UUID, known: Known, codec: Speak) -> Response:
    """One of them."""
    return reply(codec, _shown(await known.get(uuid)))


@admin.post("/identities/{uuid}", operation_id="IdentityUpdate")
async def change(uuid: UUID, known: Known, body: Body, codec: Speak) -> Response:
    """Disable it, or enable it again; give it another password, or other groups."""
    return reply(codec, _shown(await known.change(uuid, Change(**_read(CHANGE, body).model_dump()))))


def _read(adapter: TypeAdapter[T], body: Any) -> T:
    """Raises Unfit, with every fault, but not what was found there: it may be a password."""
    try:
        return read_as(adapter, body)
    except Invalid as error:
        raise Unfit(error.detail, tuple(replace(fault, input=None) for fault in error.faults)) from None


def _shown(row: IdentityRow) -> dict[str, Any]:
    return {
        "uuid": str(row.uuid),
        "username": row.name,
        "issuer": row.issuer or None,
        "subject": row.subject if row.issuer else None,
        "groups": list(row.groups),
        "created": format_instant(moment(row.created)),
        "disabled": row.disabled is not None,
    }
