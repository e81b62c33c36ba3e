"""Logging in at an issuer from where there is no browser: the device authorization grant (RFC 8628)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, Field, ValidationError

from execbroker.client.discovery import Place, is_here, trust
from execbroker.client.logins import Tokens
from execbroker.client.problems import ClientError, NoAnswer
from execbroker.places import is_protected

PATIENCE = 30.0
WELL_KNOWN = "/.well-known/openid-configuration"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER = 5  # seconds (RFC 8628, 3.5)
M = TypeVar("M", bound=BaseModel)
Sleep = Callable[[float], Awaitable[None]]


class Way(BaseModel):
    """An issuer that a broker trusts, and how to come from there."""

    issuer: str
    client_id: str
    scopes: list[str] = []
    audience: str | None = None

    @property
    def target(self) -> dict[str, str]:
        """What names the broker to the issuer: by RFC 8707, and as it was before that."""
        if not self.audience:
            return {}
        resource = {"resource": self.audience} if self.audience.startswith("https://") else {}
        return {"audience": self.audience, **resource}


class Device(BaseModel):
    """What a person is shown, and what is asked with meanwhile; times in seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None = None
    expires_in: float
    interval: float = 5


class Granted(BaseModel):
    access_token: str = Field(pattern=r"^[\x21-\x7e]+$")
    token_type: str
    refresh_token: str | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where an issuer is asked for what."""

    token: str
    device: str
    revocation: str | None


class NotLoggedIn(ClientError):
    """There is no login, or none that still counts, or it did not come about."""

    def __init__(self, detail: str) -> None:
        super().__init__(None, "You are not logged in", detail)


async def log_in(way: Way, show: Callable[[Device], None], sleep: Sleep = asyncio.sleep) -> Tokens:
    """The tokens that the issuer gives once the person who was shown the address and the code has agreed there.

    Raises NotLoggedIn, NoAnswer.
    """
    async with _web(way.issuer) as web:
        found = await _endpoints(web, way.issuer)
        form = {"client_id": way.client_id, "scope": " ".join(way.scopes), **way.target}
        device = _read(Device, await _post(web, found.device, form), way.issuer)
        if not is_protected(device.verification_uri):
            raise NotLoggedIn(f"{way.issuer} leads to {device.verification_uri!r}, which is not https")
        show(device)
        granted = await _granted(web, way, found, device, sleep)
    known = {"issuer": way.issuer, "client_id": way.client_id, "target": way.target}
    return Tokens(token_endpoint=found.token, revocation_endpoint=found.revocation, **known, **_of(granted))


async def renewed(tokens: Tokens) -> Tokens:
    """New tokens for the refresh token among these. Raises NotLoggedIn where that counts no longer, NoAnswer."""
    if not tokens.refresh_token:
        raise NotLoggedIn("The login has expired")
    form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token, "client_id": tokens.client_id, **tokens.target}
    async with _web(tokens.issuer) as web:
        granted = _read(Granted, await _post(web, tokens.token_endpoint, form), tokens.issuer)
    kept = {} if granted.refresh_token else {"refresh_token": tokens.refresh_token}
    return tokens.model_copy(update=_of(granted) | kept)


async def revoke(tokens: Tokens) -> bool:
    """Tell the issuer that these are not wanted any more (RFC 7009); whether it could be told."""
    if not tokens.revocation_endpoint:
        return False
    form = {"token": tokens.refresh_token or tokens.access_token, "client_id": tokens.client_id}
    try:
        async with _web(tokens.issuer) as web:
            return (await web.post(tokens.revocation_endpoint, data=form)).status_code == 200
    except httpx.HTTPError:
        return False


async def _granted(web: httpx.AsyncClient, way: Way, found: Endpoints, device: Device, sleep: Sleep) -> Granted:
    form = {"grant_type": DEVICE_CODE, "device_code": device.device_code, "client_id": way.client_id, **way.target}
    interval, waited = max(device.interval, 1), 0.0
    while waited < device.expires_in:
        await sleep(interval)
        waited += interval
        try:
            status, document = await _post(web, found.token, form)
        except NoAnswer:  # RFC 8628, 3.5
            interval *= 2
            continue
        match document.get("error"):
            case "authorization_pending":
                continue
            case "slow_down":
                interval += SLOWER
            case "access_denied":
                raise NotLoggedIn(f"The request was turned down at {way.issuer}")
            case "expired_token":
                break
            case _:
                return _read(Granted, (status, document), way.issuer)
    raise NotLoggedIn("Nobody has agreed in time, and the code has expired; log in again")


def _of(granted: Granted) -> dict[str, Any]:
    if granted.token_type.lower() != "bearer":
        raise NotLoggedIn(f"The issuer gave a token of the type {granted.token_type!r}, which is none that a broker takes")
    expires = time.time() + granted.expires_in if granted.expires_in is not None else None
    return {"access_token": granted.access_token, "refresh_token": granted.refresh_token, "expires": expires}


async def _endpoints(web: httpx.AsyncClient, issuer: str) -> Endpoints:
    if not is_protected(issuer):
        raise NotLoggedIn(f"The broker names the issuer {issuer!r}, which is not https")
    status, document = await _answer(web, "GET", issuer.rstrip("/") + WELL_KNOWN)
    if status != 200 or document.get("issuer") != issuer:
        raise NoAnswer(f"{issuer} is no OpenID issuer of that name")
    if not document.get("device_authorization_endpoint"):
        raise NotLoggedIn(f"The issuer {issuer} has no login for devices, so that the command line cannot log in there")
    names = ("token_endpoint", "device_authorization_endpoint", "revocation_endpoint")
    token, device, revocation = (document.get(name) for name in names)
    if not all(isinstance(one, str) and is_protected(one) for one in (token, device, revocation or token)):
        raise NoAnswer(f"{issuer} names addresses that are not https")
    return Endpoints(str(token), str(device), revocation)


def _read(model: type[M], answer: tuple[int, dict[str, Any]], issuer: str) -> M:
    status, document = answer
    if status != 200:
        said = document.get("error_description") or document.get("error") or f"it answers {status}"
        raise NotLoggedIn(f"{issuer} refuses: {str(said)[:300]}")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise NoAnswer(f"What {issuer} answers is not understood: {' '.join(str(error).split())[:200]}") from None


def _web(issuer: str) -> httpx.AsyncClient:
    try:
        trusted = trust(Place(issuer, None))
    except ValueError as error:
        raise NotLoggedIn(str(error)) from None
    return httpx.AsyncClient(
        verify=trusted, timeout=PATIENCE, trust_env=not is_here(issuer), headers={"Accept": "application/json"}
    )


async def _post(web: httpx.AsyncClient, url: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
    return await _answer(web, "POST", url, data=form)


async def _answer(web: httpx.AsyncClient, method: str, url: str, **details: Any) -> tuple[int, dict[str, Any]]:
    try:
        reply = await web.request(method, url, **details)
        document = reply.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NoAnswer(f"No answer from {url}: {str(error) or type(error).__name__}") from error
    if not isinstance(document, dict) or reply.status_code == 429 or reply.status_code >= 500:
        raise NoAnswer(f"{url} answers {reply.status_code} {reply.reason_phrase}, and nothing that is understood")
    return reply.status_code, document
