from dataclasses import replace
from uuid import UUID, uuid5

from execbroker.access.accounts import Accounts, identity
from execbroker.access.oidc import Claims, Issuers
from execbroker.errors import Interrupted, Unauthorized
from execbroker.ledger.identities import Identities, IdentityRow
from execbroker.model.identities import Identity
from execbroker.model.times import Clock

BASIC = 'Basic realm="execbroker", charset="UTF-8"'
BEARER = 'Bearer realm="execbroker"'
_PEOPLE = UUID("3f0e3f61-8d5c-4d0c-9a3c-6b2d0e3c9a11")
"""Below this, the uuids of those whom an issuer knows: the same at every broker of a database, whoever sees them first."""


class AccountsGuard:
    """Knows people by their accounts here, and by the tokens of trusted issuers."""

    def __init__(self, accounts: Accounts, issuers: Issuers | None, identities: Identities, clock: Clock) -> None:
        self._accounts, self._issuers, self._identities, self._clock = accounts, issuers, identities, clock
        self.challenges = (BASIC, BEARER) if issuers else (BASIC,)

    async def recognise(self, scheme: str, credentials: str) -> Identity:
        if scheme == "basic":
            return await self._accounts.recognise(credentials)
        if scheme == "bearer" and self._issuers:
            return await self._bearer(self._issuers, credentials)
        ways = "a username and a password" + (", or the token of a trusted issuer" if self._issuers else "")
        raise Unauthorized(f"This needs the header `Authorization`, with {ways}; `execbroker login` sees to that")

    async def _bearer(self, issuers: Issuers, token: str) -> Identity:
        claims = await issuers.verify(token)
        row = await self._identities.find(claims.issuer, claims.subject) or await self._first_seen(claims)
        if row.name != claims.name:
            await self._identities.change(row.uuid, name=claims.name)
        return replace(identity(row, claims.groups), name=claims.name)

    async def _first_seen(self, claims: Claims) -> IdentityRow:
        """They are known by issuer and subject: names may change, and be given twice. Raises BrokerError."""
        uuid = uuid5(_PEOPLE, f"{claims.issuer}\n{claims.subject}")
        now = int(self._clock.now().timestamp())
        row = IdentityRow(uuid, claims.issuer, claims.subject, claims.name, secret=None, groups=(), created=now)
        try:
            await self._identities.add(row)
        except Interrupted:  # as a server says also where another broker was faster
            if not await self._identities.get(uuid):
                raise
        return row
