from ssl import SSLContext

import httpx
from pydantic import BaseModel, ValidationError

from execbroker.client.devices import Way
from execbroker.client.discovery import is_here
from execbroker.client.logins import Login
from execbroker.client.problems import ClientError, NoAnswer

PATIENCE = 30.0


class Ways(BaseModel):
    """How a broker lets people say who they are: by a password, by these issuers."""

    basic: bool
    issuers: list[Way]


async def ways_in(url: str, trusted: SSLContext) -> Ways:
    """`trusted` says whose certificates are believed. Raises NoAnswer; an older broker has no ways."""
    reply = await _get(url, "/login", trusted)
    if reply.status_code in (401, 404):
        return Ways(basic=False, issuers=[])
    try:
        return Ways.model_validate_json(reply.content)
    except ValidationError:
        raise NoAnswer(f"What answers at {reply.url} is no ExecutionBroker") from None


async def knock(url: str, trusted: SSLContext, login: Login) -> str | None:
    """The name under which the broker knows whoever comes so. Raises ClientError where it lets nobody in."""
    reply = await _get(url, "/platforms", trusted, Authorization=login.header)
    if reply.is_error:
        raise ClientError.read(reply.status_code, reply.content)
    name: str | None = reply.headers.get("X-VO-Authenticated")
    return name


async def _get(url: str, path: str, trusted: SSLContext, **headers: str) -> httpx.Response:
    try:
        async with httpx.AsyncClient(verify=trusted, timeout=PATIENCE, trust_env=not is_here(url)) as web:
            return await web.get(url + path, headers={"Accept": "application/json", **headers})
    except httpx.TransportError as error:
        raise NoAnswer(f"The broker at {url} does not answer: {str(error) or type(error).__name__}") from error
