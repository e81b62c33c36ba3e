import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError, MissingClaimError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jwt import ClaimsOption, JWTClaimsRegistry

from execbroker.config import IssuerSettings
from execbroker.errors import Expired, Unauthorized

Key = RSAKey | ECKey | OKPKey

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Those by which only the issuer can sign. A shared secret, or none, proves nothing: a public key is no secret."""
TYPES = {"jwt", "at+jwt", "application/at+jwt"}
"""What a token may call itself (RFC 9068): what is made for another use, such as logging out, opens no door."""
KINDS: dict[str, type[Key]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
SHORTEST = 342  # characters of the modulus of an RSA key of 2048 bits

_HEADERS = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
_HEADERS.max_header_length = 8192  # some name their whole chain of certificates
_WRONG = {"aud": "The token is not for this broker", "iss": "The token is not of the issuer that vouches for it"}
_EARLY = {"nbf", "iat"}


@dataclass(frozen=True, slots=True)
class Token:
    """A JSON Web Token as it was sent: nothing that it says is proven yet."""

    text: str
    signed: jws.CompactSignature
    claims: dict[str, Any]

    @property
    def header(self) -> dict[str, Any]:
        return self.signed.headers()

    @property
    def issuer(self) -> Any:
        return self.claims.get("iss")

    def fitting(self, keys: Iterable[Key]) -> list[Key]:
        """Those of an issuer's keys with which this token may be signed."""
        kid, algorithm = self.header.get("kid"), self.header["alg"]
        return [key for key in keys if kid in (None, key.kid) and key.alg in (None, algorithm)]

    def is_signed_by(self, keys: Iterable[Key]) -> bool:
        return any(self._is_signed_by(key) for key in keys)

    def _is_signed_by(self, key: Key) -> bool:
        try:
            return jws.validate_compact(self.signed, key, registry=_HEADERS)
        except (JoseError, ValueError):  # a key of another sort than the algorithm's
            return False


def read_token(text: str) -> Token | None:
    """A JSON Web Token that may be looked at further; None for what is none, which only its issuer can read.

    Raises Unauthorized for one that no issuer's key could make valid.
    """
    try:
        signed = jws.extract_compact(text.encode(), registry=_HEADERS)
    except (JoseError, ValueError):
        return None
    header = signed.headers()
    if not isinstance(header, dict):
        return None
    _check_header(header)
    try:
        claims = json.loads(signed.payload)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise Unauthorized("The token cannot be read")
    return Token(text, signed, claims)


def _check_header(header: dict[str, Any]) -> None:
    if header["alg"] not in ALGORITHMS:
        raise Unauthorized(f"The token is not signed as it has to be here, by one of {', '.join(ALGORITHMS)}")
    if "crit" in header or "b64" in header:  # RFC 7515, 4.1.11: what has to be understood and is not
        raise Unauthorized("The token has extensions that are not understood here")
    kid, kind = header.get("kid"), header.get("typ", "jwt")
    if not isinstance(kid, str | None) or not isinstance(kind, str) or kind.lower() not in TYPES:
        raise Unauthorized("The token is no access token")


def keys_of(document: dict[str, Any]) -> list[Key]:
    """The keys of a JWK set (RFC 7517) that sign; those of other uses, and broken ones, are left out. Raises ValueError."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise ValueError("it is no set of keys")
    return [key for entry in entries if isinstance(entry, dict) and (key := _key(entry))]


def _key(entry: dict[str, Any]) -> Key | None:
    kind = KINDS.get(str(entry.get("kty")))
    short = kind is RSAKey and len(str(entry.get("n"))) < SHORTEST
    if kind is None or short or entry.get("use", "sig") != "sig":
        return None
    try:
        return kind.import_key(entry)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def check_claims(claims: dict[str, Any], settings: IssuerSettings, now: int, needed: Iterable[str]) -> None:
    """For whom they are, and whether they count now (seconds since 1970). Raises Unauthorized."""
    options: dict[str, ClaimsOption] = {name: {"essential": True} for name in needed}
    options["iss"] = {"value": settings.issuer, "essential": True}
    options["aud"] = {"values": settings.audience, "essential": True}
    registry = JWTClaimsRegistry(now, int(settings.skew.total_seconds()), **options)
    try:
        registry.validate(claims)
    except ExpiredTokenError:
        raise Expired("The token has expired") from None
    except MissingClaimError as error:
        raise Unauthorized(f"The token does not have all that it needs: {error.claim}") from None
    except ClaimError as error:
        early = error.claim in _EARLY and isinstance(claims[error.claim], int | float)
        text = "The token is not valid yet" if early else _WRONG.get(error.claim, f"The token's {error.claim} cannot be read")
        raise Unauthorized(text) from None
