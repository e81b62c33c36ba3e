import asyncio
import math
from collections.abc import Callable
from typing import Any

import structlog

from execbroker.access.fetching import NoDocument, Web
from execbroker.access.tokens import Key, Token, keys_of
from execbroker.config import IssuerSettings
from execbroker.errors import IssuerAway
from execbroker.model.times import Clock
from execbroker.places import is_protected

WELL_KNOWN = "/.well-known/openid-configuration"
PAUSE = 10  # seconds between two looks that did not help
STALE = 86400  # seconds for which keys count where the issuer cannot be asked for newer ones
log = structlog.get_logger()


class Published:
    """What an issuer publishes (OpenID Connect Discovery 1.0): its endpoints and its keys, kept for a while.

    They are fetched again when they are old, and for a key that is not among them, which may be new; but not more often than
    every PAUSE seconds, whoever asks, and once for all who wait.
    """

    def __init__(self, settings: IssuerSettings, clock: Clock, web: Web) -> None:
        self._settings, self._clock, self._web = settings, clock, web
        self._document: dict[str, Any] = {}
        self._keys: list[Key] = []
        self._fetched = self._tried = -math.inf
        self._looking = asyncio.Lock()

    async def keys_for(self, token: Token) -> list[Key]:
        """The keys with which a token may be signed; [] where its issuer has no such key. Raises IssuerAway."""
        await self._look_unless(lambda: self._age < self._lifetime and bool(token.fitting(self._keys)))
        self._check()
        found = token.fitting(self._keys)
        if not found and self._fetched < self._tried:  # it may well have one now
            raise self._away()
        return found

    async def endpoint(self, name: str) -> str:
        """The address of what is called so in the issuer's document. Raises IssuerAway."""
        await self._look_unless(lambda: self._age < self._lifetime)
        self._check()
        try:
            return _address(self._document, name)
        except NoDocument as error:
            log.warning("issuer.unfit", issuer=self._settings.issuer, reason=str(error))
            raise self._away() from None

    @property
    def _age(self) -> float:
        return self._clock.monotonic() - self._fetched

    @property
    def _lifetime(self) -> float:
        return self._settings.keys.total_seconds()

    def _check(self) -> None:
        if self._age >= self._lifetime + STALE:
            raise self._away()

    def _away(self) -> IssuerAway:
        return IssuerAway(f"{self._settings.issuer} cannot be asked at the moment; try again")

    async def _look_unless(self, enough: Callable[[], bool]) -> None:
        if enough():
            return
        async with self._looking:
            if not enough() and self._clock.monotonic() >= self._tried + PAUSE:
                await self._look()

    async def _look(self) -> None:
        issuer = self._settings.issuer
        try:
            document = await self._web.get(issuer.rstrip("/") + WELL_KNOWN)
            if document.get("issuer") != issuer:
                raise NoDocument(f"its document is that of {str(document.get('issuer'))[:200]!r}")
            keys = keys_of(await self._web.get(_address(document, "jwks_uri")))
        except (NoDocument, ValueError) as error:
            log.warning("issuer.away", issuer=issuer, reason=str(error))
            self._tried = self._clock.monotonic()
        else:
            self._document, self._keys = document, keys
            self._fetched = self._tried = self._clock.monotonic()


def _address(document: dict[str, Any], name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str) or not is_protected(found):
        raise NoDocument(f"its document has no {name} that is https, or http on loopback")
    return found
