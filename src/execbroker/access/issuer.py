from typing import Any

from execbroker.access.claims import Claims, claims_of
from execbroker.access.fetching import Web
from execbroker.access.introspection import Introspection
from execbroker.access.published import Published
from execbroker.access.tokens import Token, check_claims
from execbroker.config import IssuerSettings
from execbroker.errors import Unauthorized
from execbroker.model.times import Clock


class Issuer:
    """One trusted issuer."""

    def __init__(self, settings: IssuerSettings, clock: Clock, web: Web) -> None:
        self._settings, self._clock = settings, clock
        self._published = Published(settings, clock, web)
        self._asked = settings.introspection and Introspection(settings.introspection, self._published, clock, web)

    @property
    def looks_up(self) -> bool:
        """Whether it can be asked about tokens that only it can read."""
        return self._asked is not None

    async def verify(self, token: Token) -> Claims:
        """Who a JSON Web Token stands for. Raises Unauthorized, IssuerAway."""
        keys = await self._published.keys_for(token)
        if not keys:
            raise Unauthorized("The token is signed with a key that its issuer does not have")
        if not token.is_signed_by(keys):
            raise Unauthorized("The token's signature is wrong")
        self._check(token.claims, "exp", "sub")
        told = await self._asked.ask(token.text) if self._asked else {}
        return claims_of(self._settings, {**told, **token.claims})

    async def look_up(self, text: str) -> Claims:
        """Who a token stands for that only its issuer can read. Raises Unauthorized, IssuerAway."""
        assert self._asked
        told = {"iss": self._settings.issuer, **await self._asked.ask(text)}
        self._check(told, "sub")
        return claims_of(self._settings, told)

    def _check(self, claims: dict[str, Any], *needed: str) -> None:
        check_claims(claims, self._settings, int(self._clock.now().timestamp()), needed)
