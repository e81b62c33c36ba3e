import asyncio
import hashlib
from typing import Any
from urllib.parse import quote_plus

import structlog

from execbroker.access.fetching import NoDocument, Web
from execbroker.access.published import Published
from execbroker.config import IntrospectionSettings
from execbroker.errors import Busy, IssuerAway, Unauthorized
from execbroker.model.times import Clock

AT_ONCE, WAITING = 8, 64  # questions
REMEMBERED = 10_000  # answers
STRUCTURED = {"active": True}
"""The answer of an issuer that revokes no signed tokens, and says so: to such a one its signature is all there is."""
log = structlog.get_logger()


class Introspection:
    """Asks an issuer what it knows of a token (RFC 7662), and remembers the answer for a short while."""

    def __init__(self, settings: IntrospectionSettings, published: Published, clock: Clock, web: Web) -> None:
        self._settings, self._published, self._clock, self._web = settings, published, clock, web
        self._turns, self._waiting = asyncio.Semaphore(AT_ONCE), 0
        self._answers: dict[bytes, tuple[float, dict[str, Any]]] = {}

    async def ask(self, token: str) -> dict[str, Any]:
        """What the issuer says of a token that counts. Raises Unauthorized for one that does not, IssuerAway, Busy."""
        digest = hashlib.sha256(token.encode()).digest()
        until, answer = self._answers.get(digest, (0.0, {}))
        if self._clock.monotonic() >= until:
            answer = await self._in_turn(token)
            self._remember(digest, answer)
        if answer.get("active") is not True:
            raise Unauthorized("The token does not count, or no longer: its issuer says so")
        return answer

    async def _in_turn(self, token: str) -> dict[str, Any]:
        """Anybody can send tokens that nobody knows. Raises Busy where too many are asked about at once."""
        if self._waiting >= WAITING:
            raise Busy("Too many tokens are asked about at the moment; try again")
        self._waiting += 1
        try:
            async with self._turns:
                return await self._fetch(token)
        finally:
            self._waiting -= 1

    def _remember(self, digest: bytes, answer: dict[str, Any]) -> None:
        """The oldest goes first, so that many tokens that nobody knows take no more room than this."""
        self._answers.pop(digest, None)
        while len(self._answers) >= REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[digest] = (self._clock.monotonic() + self._settings.cache.total_seconds(), answer)

    async def _fetch(self, token: str) -> dict[str, Any]:
        url = await self._published.endpoint("introspection_endpoint")
        # RFC 6749, 2.3.1: both are encoded as in a form before they are joined.
        auth = (quote_plus(self._settings.client_id), quote_plus(self._settings.client_secret.get_secret_value()))
        try:
            status, answer = await self._web.post(url, {"token": token, "token_type_hint": "access_token"}, auth)
        except NoDocument as error:
            status, answer = 0, {"error": str(error)}
        if status == 400 and answer.get("error") == "unsupported_token_type":
            return STRUCTURED
        if status != 200:
            log.warning("issuer.no_introspection", url=url, status=status, reason=str(answer.get("error"))[:200])
            raise IssuerAway("Whether the token still counts cannot be asked at the moment; try again")
        return answer
