import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid4

from execbroker.config import AuthSettings
from execbroker.errors import Busy, Fault, Forbidden, NotFound, StartupError, Taken, Unauthorized, Unfit
from execbroker.ledger.identities import Identities, IdentityRow
from execbroker.model.identities import Identity
from execbroker.model.times import Clock

T = TypeVar("T")

ADMIN = "admin"
HERE = ""
"""The issuer of the broker's own accounts."""
USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
SHORTEST, LONGEST = 8, 1024  # characters of a password
REMEMBERED = 300  # seconds
AT_ONCE, WAITING = 2, 32  # passwords that are hashed
_WRONG = "The username or the password is wrong"


class Change(NamedTuple):
    """What an admin changes of an account; None is left as it is."""

    disabled: bool | None = None
    password: str | None = None
    groups: tuple[str, ...] | None = None


class Accounts:
    """Knows people by the accounts that they have here: HTTP Basic (RFC 7617), passwords hashed by argon2id (RFC 9106).

    The admin of the configuration has no row in the ledger.
    """

    def __init__(self, settings: AuthSettings, identities: Identities, clock: Clock) -> None:
        try:
            from argon2 import PasswordHasher
        except ImportError:
            raise StartupError("For accounts argon2 is needed: pip install 'execbroker[accounts]'") from None
        assert settings.admin is not None
        self._admin, self._identities, self._clock = settings.admin, identities, clock
        self._hasher = PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex())
        self._turns, self._waiting = asyncio.Semaphore(AT_ONCE), 0
        self._key = secrets.token_bytes()
        self._right: dict[bytes, float] = {}
        """What was right a short while ago, by a digest, so that not every request costs a hash; until when."""

    async def recognise(self, credentials: str) -> Identity:
        """Who brings these, as HTTP Basic has them: a wrong password costs the same whatever the name. Raises Unauthorized,
        Forbidden, Busy."""
        username, password = _basic(credentials)
        admin = hmac.compare_digest(username.encode(), self._admin.username.encode())
        if admin and hmac.compare_digest(password.encode(), self._admin.password.get_secret_value().encode()):
            return Identity(ADMIN, username, admin=True)
        known = not admin and USERNAME.fullmatch(username)
        row = await self._identities.find(HERE, username) if known else None
        right = await self._is_right(row.secret if row and row.secret else self._nobody, password)
        if not right or row is None:
            raise Unauthorized(_WRONG)
        return identity(row, row.groups)

    async def _is_right(self, secret: str, password: str) -> bool:
        """A changed password has another hash, so that what is remembered of the old one is of no use."""
        now = self._clock.monotonic()
        digest = hmac.digest(self._key, f"{secret}\0{password}".encode(), hashlib.sha256)
        if self._right.get(digest, 0) > now:
            return True
        if len(password) > LONGEST or not await self._hashed(self._verify, secret, password):
            return False
        self._right = {one: until for one, until in self._right.items() if until > now} | {digest: now + REMEMBERED}
        return True

    def _verify(self, secret: str, password: str) -> bool:
        from argon2.exceptions import VerifyMismatchError

        try:
            return self._hasher.verify(secret, password)
        except VerifyMismatchError:
            return False

    async def _hashed(self, work: Callable[..., T], *args: str) -> T:
        """A hash takes some 50 ms of a core and 64 MiB, on purpose. Raises Busy where too many are wanted at once."""
        if self._waiting >= WAITING:
            raise Busy("Too many people log in at the moment; try again")
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work, *args)
        finally:
            self._waiting -= 1

    async def create(self, username: str, password: str, groups: tuple[str, ...] = ()) -> IdentityRow:
        """Raises Unfit, and Taken with the `uuid` of who has that name."""
        faults = [*_against_name(username), *_against_password(password), *_against_groups(groups)]
        if faults:
            raise Unfit("; ".join(fault.message for fault in faults), tuple(faults))
        if username == self._admin.username:
            raise Taken(f"{username} is the admin of the configuration")
        secret = await self._hashed(self._hasher.hash, password)
        now = int(self._clock.now().timestamp())
        row = IdentityRow(uuid4(), HERE, username, username, secret, groups, now)
        if not await self._identities.add(row):
            known = await self._identities.find(HERE, username)
            raise Taken(f"{username} has an account already", uuid=str(known.uuid) if known else None)
        return row

    async def change(self, uuid: UUID, change: Change) -> IdentityRow:
        """Raises NotFound, Unfit."""
        row = await self.get(uuid)
        local = change.password is not None or change.groups is not None
        faults = [Fault("uuid", "not-local", "its password and groups are kept by its issuer", row.issuer)] * (
            local and row.issuer != HERE
        )
        faults += _against_password(change.password) if change.password is not None else ()
        faults += _against_groups(change.groups) if change.groups is not None else ()
        if faults:
            raise Unfit("; ".join(fault.message for fault in faults), tuple(faults))
        values: dict[str, Any] = {}
        if change.disabled is not None:
            values["disabled"] = (row.disabled or int(self._clock.now().timestamp())) if change.disabled else None
        if change.password is not None:
            values["secret"] = await self._hashed(self._hasher.hash, change.password)
        if change.groups is not None:
            values["groups"] = change.groups
        if values:
            await self._identities.change(uuid, **values)
        return await self.get(uuid)

    async def get(self, uuid: UUID) -> IdentityRow:
        """Raises NotFound."""
        if row := await self._identities.get(uuid):
            return row
        raise NotFound(f"There is no identity {uuid}")

    async def all(self) -> list[IdentityRow]:
        """In the order of their names."""
        return await self._identities.all()


def identity(row: IdentityRow, groups: Collection[str]) -> Identity:
    """Raises Forbidden where the account is disabled."""
    if row.disabled is not None:
        raise Forbidden(f"The account of {row.name} is disabled")
    return Identity(str(row.uuid), row.name, frozenset(groups))


def _basic(credentials: str) -> tuple[str, str]:
    """Raises Unauthorized."""
    try:
        username, colon, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise Unauthorized("The credentials in `Authorization: Basic …` are not base64 of <username>:<password>") from None
    if not colon:
        raise Unauthorized("The credentials in `Authorization: Basic …` have no colon between username and password")
    return username, password


def _against_name(username: str) -> Iterator[Fault]:
    if not USERNAME.fullmatch(username):
        text = "a username has 1 to 64 letters, digits or . _ @ + - and begins with a letter or digit"
        yield Fault("username", "unfit", text, username[:100])


def _against_password(password: str) -> Iterator[Fault]:
    if not SHORTEST <= len(password) <= LONGEST:
        yield Fault("password", "unfit", f"a password has {SHORTEST} to {LONGEST} characters")


def _against_groups(groups: Collection[str]) -> Iterator[Fault]:
    for index, group in enumerate(groups):
        if not USERNAME.fullmatch(group):
            text = "a group's name has 1 to 64 letters, digits or . _ @ + -"
            yield Fault(f"groups[{index}]", "unfit", text, group[:100])
