"""Issuers that are asked whether a token still counts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from issuersite import AUDIENCE, IssuerSite

from brokersite import ManualClock
from execbroker.access.oidc import Issuers
from execbroker.errors import Busy, IssuerAway, Unauthorized

ASKED = {"introspection": {"client_id": "the broker", "client_secret": "a:b%c", "cache": "PT20S"}}
NOW = ManualClock().seconds
PATH = "/introspect"


@pytest.fixture
def issuer() -> Iterator[IssuerSite]:
    with IssuerSite() as site:
        yield site


def run(issuer: IssuerSite, work: Callable[[Issuers, ManualClock], Awaitable[None]], *more: Any) -> None:
    async def all_of_it() -> None:
        clock = ManualClock()
        issuers = Issuers([issuer.settings(**ASKED), *more], clock)
        try:
            await work(issuers, clock)
        finally:
            await issuers.close()

    asyncio.run(all_of_it())


def test_a_revoked_token_counts_no_longer_than_an_answer(issuer: IssuerSite) -> None:
    token = issuer.token(NOW)
    issuer.known[token] = {"active": True, "groups": ["astro"], "sub": "somebody else"}

    async def work(issuers: Issuers, clock: ManualClock) -> None:
        found = [await issuers.verify(token) for _ in range(3)]
        assert {(one.subject, one.groups) for one in found} == {("alice", frozenset({"astro"}))}
        assert issuer.seen[PATH] == 1
        issuer.known[token] = {"active": False}
        clock.advance(19)
        await issuers.verify(token)
        clock.advance(1)
        with pytest.raises(Unauthorized, match="no longer"):
            await issuers.verify(token)

    run(issuer, work)
    assert issuer.credentials == {"the+broker:a%3Ab%25c"}


def test_a_forged_token_is_not_asked_about(issuer: IssuerSite) -> None:
    head, body, tail = issuer.token(NOW).split(".")

    async def work(issuers: Issuers, _: ManualClock) -> None:
        with pytest.raises(Unauthorized, match="signature"):
            await issuers.verify(f"{head}.{body}.{tail[::-1]}")

    run(issuer, work)
    assert issuer.seen[PATH] == 0


@pytest.mark.parametrize("answer", [{"active": "true"}, {"active": 1}, {}, {"active": None}])
def test_only_true_is_yes(issuer: IssuerSite, answer: dict[str, Any]) -> None:
    token = issuer.token(NOW)
    issuer.known[token] = answer

    async def work(issuers: Issuers, _: ManualClock) -> None:
        with pytest.raises(Unauthorized):
            await issuers.verify(token)

    run(issuer, work)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"sub": "bob", "aud": AUDIENCE}, None),
        ({"sub": "bob", "aud": [AUDIENCE], "exp": NOW + 1}, None),
        ({"sub": "bob"}, "aud"),
        ({"aud": AUDIENCE}, "sub"),
        ({"sub": "bob", "aud": "other"}, "not for this broker"),
        ({"sub": "bob", "aud": AUDIENCE, "exp": NOW - 31}, "expired"),
        ({"sub": "bob", "aud": AUDIENCE, "iss": "https://other.example.org"}, "issuer"),
    ],
)
def test_what_only_the_issuer_can_read_is_told_by_it(issuer: IssuerSite, answer: dict[str, Any], reason: str | None) -> None:
    issuer.known["opaque"] = {"active": True, **answer}

    async def work(issuers: Issuers, _: ManualClock) -> None:
        if reason is None:
            assert (await issuers.verify("opaque")).subject == "bob"
            return
        with pytest.raises(Unauthorized, match=reason):
            await issuers.verify("opaque")

    run(issuer, work)


def test_what_is_remembered_expires_all_the_same(issuer: IssuerSite) -> None:
    issuer.known["opaque"] = {"active": True, "sub": "bob", "aud": AUDIENCE, "exp": NOW + 5}

    async def work(issuers: Issuers, clock: ManualClock) -> None:
        await issuers.verify("opaque")
        clock.step(35)
        with pytest.raises(Unauthorized, match="expired"):
            await issuers.verify("opaque")

    run(issuer, work)
    assert issuer.seen[PATH] == 1


def test_a_token_is_not_shown_round(issuer: IssuerSite) -> None:
    with IssuerSite() as other:

        async def work(issuers: Issuers, _: ManualClock) -> None:
            with pytest.raises(Unauthorized):
                await issuers.verify("opaque")

        run(issuer, work, other.settings(**ASKED))
        assert not issuer.seen
        assert not other.seen


def test_an_issuer_that_cannot_be_asked_lets_nobody_in(issuer: IssuerSite) -> None:
    token = issuer.token(NOW)
    issuer.known[token] = {"active": True}

    async def work(issuers: Issuers, clock: ManualClock) -> None:
        await issuers.verify(token)
        issuer.says[PATH] = (401, {}, b'{"error": "invalid_client"}')
        clock.advance(20)
        with pytest.raises(IssuerAway, match="cannot be asked"):
            await issuers.verify(token)
        issuer.says.clear()
        await issuers.verify(token)

    run(issuer, work)


def test_an_issuer_that_revokes_no_signed_tokens_is_taken_at_its_word(issuer: IssuerSite) -> None:
    issuer.says[PATH] = (400, {}, b'{"error": "unsupported_token_type"}')

    async def work(issuers: Issuers, _: ManualClock) -> None:
        assert (await issuers.verify(issuer.token(NOW))).subject == "alice"
        with pytest.raises(Unauthorized):
            await issuers.verify("opaque")

    run(issuer, work)


def test_a_flood_of_tokens_that_nobody_knows_does_not_become_one_of_questions(issuer: IssuerSite) -> None:
    async def work(issuers: Issuers, _: ManualClock) -> None:
        found = await asyncio.gather(*(issuers.verify(f"token-{n}") for n in range(200)), return_exceptions=True)
        kinds = {kind: sum(type(one) is kind for one in found) for kind in (Unauthorized, Busy)}
        assert kinds == {Unauthorized: 64, Busy: 136}

    run(issuer, work)
    assert issuer.seen[PATH] == 64
