"""Every exception that the project raises.

BrokerError                what a request is answered with; carries its HTTP status
├─ Unreadable         400  the body cannot be parsed
├─ Unfit              400  no account can be like that
├─ Unauthorized       401
│  └─ Expired         401  credentials that were good once
├─ Forbidden          403
├─ NotFound           404
├─ NotAcceptable      406
├─ TooSlow            408  the body does not come
├─ Taken              409  there is such an account already
├─ IllegalMove        409  the session's phase does not allow it
├─ NoRoom             409  what comes after the session is not free
├─ UnderWay           409  the same is being done already, `Retry-After`
├─ Outdated           412  it is not what the request depends on
├─ TooLarge           413
├─ UnsupportedMedia   415
├─ RangeNotSatisfiable 416
├─ Invalid            422  wrong types, or a missing `kind`; has a list of faults
├─ KeyReused          422  an Idempotency-Key that belongs to another request
├─ TooMany            429  more than anybody gets, or a login after too many that failed, `Retry-After`
├─ Busy               503  try again, `Retry-After`
│  ├─ Interrupted     503  the database went away
│  └─ IssuerAway      503  who has to vouch for a token cannot be asked
└─ StorageFull        507
PlatformError              what a platform's verb may raise
├─ Unreachable             nothing is known; the session keeps its phase
└─ PlatformFailure         this session cannot go on; the message says why
StartupError               the broker does not start; the message says what to do
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a document: where, what sort, what would be right, what was found."""

    path: str
    kind: str
    message: str
    input: Any = None


class BrokerError(Exception):
    """A request that cannot be answered as asked."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "The broker failed"
    headers: dict[str, str] = {}

    def __init__(self, detail: str | None = None, faults: tuple[Fault, ...] = (), **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.faults = faults
        self.extra = extra


class Unreadable(BrokerError):
    status = 400
    title = "The body cannot be read"


class Unfit(BrokerError):
    status = 400
    title = "No account can be like that"


class Unauthorized(BrokerError):
    status = 401
    title = "Who are you?"
    guess = True
    """Whether somebody may be guessing."""


class Expired(Unauthorized):
    """Credentials that were good once are no guess."""

    guess = False


class Forbidden(BrokerError):
    status = 403
    title = "Not allowed"


class NotFound(BrokerError):
    status = 404
    title = "Not found"


class MethodNotAllowed(BrokerError):
    status = 405
    title = "This address does not take that method"


class NotAcceptable(BrokerError):
    status = 406
    title = "No media type in common"


class Taken(BrokerError):
    status = 409
    title = "There is such an account already"


class TooSlow(BrokerError):
    status = 408
    title = "The body does not come"
    headers = {"Connection": "close"}


class IllegalMove(BrokerError):
    status = 409
    title = "The session's phase does not allow this"


class NoRoom(BrokerError):
    status = 409
    title = "There is no room for this"


class UnderWay(BrokerError):
    status = 409
    title = "This is being done already"
    headers = {"Retry-After": "1"}


class Outdated(BrokerError):
    status = 412
    title = "It is not, or no longer, what the request depends on; GET it again"


class TooLarge(BrokerError):
    status = 413
    title = "The body is too large"


class UnsupportedMedia(BrokerError):
    status = 415
    title = "The body's media type is not known here"


class RangeNotSatisfiable(BrokerError):
    status = 416
    title = "There are no such bytes"


class Invalid(BrokerError):
    status = 422
    title = "The document does not fit the schema"


class KeyReused(BrokerError):
    status = 422
    title = "The Idempotency-Key belongs to another request"


class TooMany(BrokerError):
    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, wait: float) -> None:
        """`wait`: seconds after which it may be tried again."""
        super().__init__(detail)
        self.headers = {"Retry-After": str(max(math.ceil(wait), 1))}


class Busy(BrokerError):
    status = 503
    title = "Too busy, try again"
    headers = {"Retry-After": "1"}


class Interrupted(Busy):
    title = "The database went away; try again"


class IssuerAway(Busy):
    title = "The token's issuer cannot be asked at the moment; try again"


class StorageFull(BrokerError):
    status = 507
    title = "The broker's disk is full"


class PlatformError(Exception):
    """What a platform's verb may raise; anything else is a bug and fails the session."""


class Unreachable(PlatformError):
    """The platform did not answer: nothing is known, nothing changes, ask again later."""


class PlatformFailure(PlatformError):
    """This session cannot go on."""


class StartupError(Exception):
    """The broker does not start; the message says what to do."""
