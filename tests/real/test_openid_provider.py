"""Tokens of a real OpenID provider: those that it gave are good, and nothing else is."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import RSAKey

from brokersite import ManualClock
from execbroker.access.oidc import Claims, Issuers
from execbroker.config import IssuerSettings
from execbroker.errors import IssuerAway, Unauthorized
from execbroker.model.times import format_instant
from execbroker.rendering import moment
from oidcsite import Provider


@pytest.fixture(scope="module")
def shared() -> Iterator[Provider]:
    """For tests that leave it as it is."""
    with Provider() as provider:
        yield provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as own:
        yield own


def run(provider: Provider, work: Callable[[Issuers, ManualClock], Awaitable[None]], **more: Any) -> None:
    """A broker's view of the provider, at the provider's own time."""

    async def all_of_it() -> None:
        clock = ManualClock(format_instant(moment(int(time.time()))))
        issuers = Issuers([IssuerSettings(**provider.settings, **more)], clock)
        try:
            await work(issuers, clock)
        finally:
            await issuers.close()

    asyncio.run(all_of_it())


def refused(provider: Provider, token: str, reason: str, later: int = 0, **more: Any) -> None:
    async def work(issuers: Issuers, clock: ManualClock) -> None:
        clock.step(later)
        with pytest.raises(Unauthorized, match=reason):
            await issuers.verify(token)

    run(provider, work, **more)


def unpacked(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    head, body, tail = token.split(".")
    return *(json.loads(base64.urlsafe_b64decode(part + "===")) for part in (head, body)), tail  # type: ignore[return-value]


def packed(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_a_token_of_the_provider_is_good(shared: Provider, alg: str) -> None:
    async def work(issuers: Issuers, _: ManualClock) -> None:
        found = await issuers.verify(shared.token(groups=("astro", "radio"), subject="alice", alg=alg))
        assert found == Claims(shared.issuer, "alice", "alice", frozenset({"astro", "radio"}))

    run(shared, work)


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_a_token_that_was_tampered_with_is_refused(shared: Provider, alg: str) -> None:
    token = shared.token(alg=alg)
    head, body, tail = token.split(".")
    _, claims, _ = unpacked(token)
    refused(shared, f"{head}.{packed(claims | {'sub': 'mallory'})}.{tail}", "signature is wrong")
    refused(shared, f"{head}.{packed(claims | {'groups': ['admin']})}.{tail}", "signature is wrong")
    other = "A" if tail[9] != "A" else "B"
    refused(shared, f"{head}.{body}.{tail[:9]}{other}{tail[10:]}", "signature is wrong")
    refused(shared, f"{head}.{body}.", "signature is wrong")
    swapped = shared.token(alg=alg, subject="bob").rpartition(".")[2]
    refused(shared, f"{head}.{body}.{swapped}", "signature is wrong")


def test_a_token_counts_only_in_its_time(shared: Provider) -> None:
    refused(shared, shared.token(lifetime=60), "has expired", later=91)
    refused(shared, shared.token(), "not valid yet", later=-120)
    refused(shared, shared.token(nbf=int(time.time()) + 300), "not valid yet")


def test_a_token_for_another_service_is_refused(shared: Provider) -> None:
    refused(shared, shared.token("https://other.example.org"), "not for this broker")


def test_an_unsigned_token_is_refused(shared: Provider) -> None:
    header, claims, _ = unpacked(shared.token())
    refused(shared, f"{packed(header | {'alg': 'none'})}.{packed(claims)}.", "not signed as it has to be")


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(shared: Provider, form: Any) -> None:
    header, claims, _ = unpacked(shared.token())
    key = RSAKey.import_key(next(key for key in shared.public_keys() if key["kty"] == "RSA"))
    signed = f"{packed(header | {'alg': 'HS256'})}.{packed(claims)}"
    seal = hmac.digest(key.as_bytes(encoding=form, private=False), signed.encode(), "sha256")
    forged = f"{signed}.{base64.urlsafe_b64encode(seal).rstrip(b'=').decode()}"
    refused(shared, forged, "not signed as it has to be")


def test_a_token_of_a_stranger_is_refused(shared: Provider) -> None:
    header, claims, _ = unpacked(shared.token())
    key = RSAKey.generate_key(2048)

    def signed(header: dict[str, Any], claims: dict[str, Any]) -> str:
        return jws.serialize_compact(header, json.dumps(claims), key, algorithms=["RS256"])

    refused(shared, signed(header, claims), "signature is wrong")
    refused(shared, signed(header | {"kid": "another"}, claims), "key that its issuer does not have")
    refused(shared, signed(header, claims | {"iss": "https://iam.example.org"}), "issuer is not trusted")


def test_a_token_of_a_provider_that_is_not_trusted_is_refused(shared: Provider, provider: Provider) -> None:
    refused(shared, provider.token(), "issuer is not trusted")


def test_a_revoked_token_is_refused(shared: Provider) -> None:
    token = shared.token(groups=("astro",), subject="bob", opaque=True)

    async def work(issuers: Issuers, clock: ManualClock) -> None:
        assert await issuers.verify(token) == Claims(shared.issuer, "bob", "bob", frozenset({"astro"}))
        shared.revoke(token)
        clock.advance(30)
        with pytest.raises(Unauthorized, match="no longer"):
            await issuers.verify(token)
        assert (await issuers.verify(shared.token())).subject == "alice"

    run(shared, work, introspection=shared.introspection)
    refused(shared, token, "none that can be read here")


def test_new_keys_of_the_provider_are_found(provider: Provider) -> None:
    async def work(issuers: Issuers, clock: ManualClock) -> None:
        old = provider.token()
        await issuers.verify(old)
        provider.rotate()
        clock.advance(10)
        for alg in ("RS256", "ES256"):
            assert (await issuers.verify(provider.token(alg=alg))).subject == "alice"
        assert provider.seen("/jwks") == 2
        with pytest.raises(Unauthorized, match="key that its issuer does not have"):
            await issuers.verify(old)

    run(provider, work)


def test_known_keys_count_while_the_provider_is_down(provider: Provider) -> None:
    async def work(issuers: Issuers, clock: ManualClock) -> None:
        first, second = provider.token(lifetime=8000), provider.token(alg="ES256", lifetime=8000)
        await issuers.verify(first)
        provider.stop()
        for _ in range(2):
            assert (await issuers.verify(first)).subject == "alice"
            assert (await issuers.verify(second)).subject == "alice"
            clock.advance(3600)

    run(provider, work)


def test_a_provider_that_was_never_reached_cannot_vouch_for_anybody(provider: Provider) -> None:
    token = provider.token()
    provider.stop()

    async def work(issuers: Issuers, _: ManualClock) -> None:
        with pytest.raises(IssuerAway, match="cannot be asked"):
            await issuers.verify(token)

    run(provider, work)


def test_an_opaque_token_for_another_service_is_refused(shared: Provider) -> None:
    other = shared.token("https://other.example.org", opaque=True)
    refused(shared, other, "not for this broker", introspection=shared.introspection)
