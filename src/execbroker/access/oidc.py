from collections.abc import Iterable

from execbroker.access.claims import Claims
from execbroker.config import IssuerSettings
from execbroker.errors import StartupError, Unauthorized
from execbroker.model.times import Clock

__all__ = ["Claims", "Issuers"]

LONGEST = 16384  # characters of a token


class Issuers:
    """Knows people by the access tokens of trusted issuers: signed ones (RFC 9068), and those that an issuer is asked about
    (RFC 7662). Whom a token names as its issuer only says whose keys it is held against."""

    def __init__(self, settings: Iterable[IssuerSettings], clock: Clock) -> None:
        """Raises StartupError where the libraries for it are missing."""
        try:
            from execbroker.access.fetching import Web
            from execbroker.access.issuer import Issuer
            from execbroker.access.tokens import read_token
        except ImportError:
            raise StartupError("For tokens of issuers joserfc is needed: pip install 'execbroker[accounts]'") from None
        self._read, self._web = read_token, Web()
        self._issuers = {one.issuer: Issuer(one, clock, self._web) for one in settings}

    async def verify(self, token: str) -> Claims:
        """Who the bearer of this token is. Raises Unauthorized, with a reason, and IssuerAway where it cannot be told now."""
        if len(token) > LONGEST or not token.isascii():
            raise Unauthorized("The token cannot be read")
        read = self._read(token)
        if read is None:
            return await self._look_up(token)
        issuer = self._issuers.get(read.issuer) if isinstance(read.issuer, str) else None
        if issuer is None:
            raise Unauthorized("The token's issuer is not trusted here")
        return await issuer.verify(read)

    async def _look_up(self, token: str) -> Claims:
        """A token that does not say whose it is can be shown to one issuer, not to all in turn: it is a secret."""
        able = [issuer for issuer in self._issuers.values() if issuer.looks_up]
        if len(able) != 1 or not token:
            raise Unauthorized("The token is none that can be read here")
        return await able[0].look_up(token)

    async def close(self) -> None:
        await self._web.close()
