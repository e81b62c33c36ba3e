"""Tokens of trusted issuers: which ones count, for how long, and what is asked of the issuer for it."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from issuersite import AUDIENCE, EC, ED, RSA, IssuerSite, packed, public
from joserfc.jwk import ECKey, OctKey, RSAKey
from pydantic import ValidationError

from brokersite import ManualClock
from execbroker.access.oidc import Claims, Issuers
from execbroker.config import IssuerSettings
from execbroker.errors import BrokerError, IssuerAway, Unauthorized

WELL_KNOWN = "/.well-known/openid-configuration"


@pytest.fixture
def issuer() -> Iterator[IssuerSite]:
    with IssuerSite() as site:
        yield site


def verify_all(tokens: list[str], *settings: IssuerSettings, clock: ManualClock | None = None) -> list[Claims | BrokerError]:
    """What becomes of these tokens, one after the other."""

    async def work() -> list[Any]:
        issuers = Issuers(settings, clock or ManualClock())
        try:
            return [(await asyncio.gather(issuers.verify(token), return_exceptions=True))[0] for token in tokens]
        finally:
            await issuers.close()

    return asyncio.run(work())


def verify(token: str, *settings: IssuerSettings, clock: ManualClock | None = None) -> Claims:
    (found,) = verify_all([token], *settings, clock=clock)
    if isinstance(found, Exception):
        raise found
    return found


NOW = ManualClock().seconds


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS256"), (RSA, "PS384"), (EC, "ES256"), (ED, "Ed25519")])
def test_a_signed_token_says_who_it_is(issuer: IssuerSite, key: Any, alg: str) -> None:
    issuer.keys = public(RSA, EC, ED)
    token = issuer.token(NOW, key, alg, preferred_username="Alice", groups=["astro", 7, "radio"])
    assert verify(token, issuer.settings()) == Claims(issuer.issuer, "alice", "Alice", frozenset({"astro", "radio"}))


@pytest.mark.parametrize(
    ("claims", "settings", "name", "groups"),
    [
        ({}, {}, "alice", set()),
        ({"preferred_username": ["x"], "groups": {"a": 1}}, {}, "alice", set()),
        ({"preferred_username": "a\r\nX-Evil: 1", "groups": ["a\nb", ""]}, {}, "alice", set()),
        ({"groups": "astro"}, {}, "alice", {"astro"}),
        ({"realm_access": {"roles": ["a", "b"]}}, {"groups": "realm_access.roles"}, "alice", {"a", "b"}),
        ({"wlcg.groups": ["/ska"]}, {"groups": "wlcg.groups"}, "alice", {"/ska"}),
        ({"x": {"y.z": ["deep"]}}, {"groups": "x.y.z"}, "alice", {"deep"}),
        ({"https://example.org/g": ["a"]}, {"groups": "https://example.org/g"}, "alice", {"a"}),
        ({"who": {"mail": "a@example.org"}}, {"name": "who.mail"}, "a@example.org", set()),
    ],
)
def test_names_and_groups_are_where_the_settings_say(
    issuer: IssuerSite, claims: dict[str, Any], settings: dict[str, Any], name: str, groups: set[str]
) -> None:
    found = verify(issuer.token(NOW, **claims), issuer.settings(**settings))
    assert (found.name, found.groups) == (name, groups)


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["https://other.example.org", AUDIENCE]])
def test_the_audience_is_one_of_ours(issuer: IssuerSite, audience: Any) -> None:
    assert verify(issuer.token(NOW, aud=audience), issuer.settings(audience=["x", AUDIENCE])).subject == "alice"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "https://other.example.org"}, "not for this broker"),
        ({"aud": AUDIENCE + "/"}, "not for this broker"),
        ({"aud": []}, "not for this broker"),
        ({"aud": {AUDIENCE: 1}}, "not for this broker"),
        ({"aud": None}, "all that it needs: aud"),
        ({"exp": None}, "all that it needs: exp"),
        ({"sub": None}, "all that it needs: sub"),
        ({"sub": ""}, "sub cannot be read"),
        ({"sub": " "}, "does not say whose"),
        ({"sub": "a" * 256}, "does not say whose"),
        ({"sub": "a\nb"}, "does not say whose"),
        ({"sub": 7}, "sub cannot be read"),
        ({"exp": NOW - 31}, "has expired"),
        ({"exp": "tomorrow"}, "exp cannot be read"),
        ({"exp": float("nan")}, "exp cannot be read"),
        ({"exp": True}, "exp cannot be read"),
        ({"nbf": NOW + 31}, "not valid yet"),
        ({"iat": NOW + 31}, "not valid yet"),
        ({"iat": "now"}, "iat cannot be read"),
        ({"iss": "https://elsewhere.example.org"}, "issuer is not trusted"),
        ({"iss": ["x"]}, "issuer is not trusted"),
        ({"iss": None}, "issuer is not trusted"),
    ],
)
def test_claims_that_do_not_count(issuer: IssuerSite, claims: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unauthorized, match=reason):
        verify(issuer.token(NOW, **claims), issuer.settings())


@settings(max_examples=50)
@given(issued=st.integers(-3600, 3600), lasts=st.integers(1, 3600), skew=st.integers(0, 300), later=st.integers(-4000, 8000))
def test_a_token_counts_from_when_it_is_issued_until_it_expires(issued: int, lasts: int, skew: int, later: int) -> None:
    with IssuerSite() as site:
        start, clock = NOW + issued, ManualClock()
        token = site.token(start, nbf=start, exp=start + lasts)
        clock.step(later)
        (found,) = verify_all([token], site.settings(skew=f"PT{skew}S"), clock=clock)
    assert isinstance(found, Claims) == (start - skew <= clock.seconds < start + lasts + skew)


HEADERS = [
    ({"typ": "logout+jwt"}, "no access token"),
    ({"typ": 3}, "no access token"),
    ({"kid": 3}, "no access token"),
    ({"crit": ["exp"], "exp": 1}, "extensions"),
    ({"b64": True}, "extensions"),
    ({"kid": "nobody's"}, "key that its issuer does not have"),
    ({"kid": "ec"}, "signature is wrong"),
]


@pytest.mark.parametrize(("header", "reason"), HEADERS)
def test_headers_that_do_not_count(issuer: IssuerSite, header: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unauthorized, match=reason):
        verify(issuer.token(NOW, header=header), issuer.settings())


@pytest.mark.parametrize(
    "header", [{"typ": None}, {"typ": "JWT"}, {"typ": "AT+jwt"}, {"kid": None}, {"jku": "https://x.org", "x": 1}]
)
def test_headers_that_do(issuer: IssuerSite, header: dict[str, Any]) -> None:
    assert verify(issuer.token(NOW, header=header), issuer.settings()).subject == "alice"
    assert issuer.seen["/keys"] == 1


def test_a_key_that_a_token_brings_along_is_of_no_use(issuer: IssuerSite) -> None:
    mine = RSAKey.generate_key(2048, {"kid": "rsa"})
    forged = issuer.token(NOW, mine, header={"jwk": public(mine)[0]})
    with pytest.raises(Unauthorized, match="signature is wrong"):
        verify(forged, issuer.settings())


def test_shared_secrets_and_none_prove_nothing(issuer: IssuerSite) -> None:
    claims = json.dumps(issuer.claims(NOW)).encode()
    pem = OctKey.import_key(RSA.as_pem(private=False).replace(b"-----", b""))
    secret = OctKey.import_key("a secret that the issuer has among its keys")
    issuer.keys = [*public(RSA), secret.as_dict(private=True) | {"kid": "oct"}]
    tokens = [
        issuer.signed({"alg": "HS256", "kid": "rsa"}, claims, pem),
        issuer.signed({"alg": "HS256", "kid": "oct"}, claims, secret),
        f"{packed({'alg': 'none'}).decode()}.{packed(issuer.claims(NOW)).decode()}.",
        f"{packed({'alg': 'None', 'kid': 'rsa'}).decode()}.{packed(issuer.claims(NOW)).decode()}.",
    ]
    for found in verify_all(tokens, issuer.settings()):
        assert isinstance(found, Unauthorized)
        assert "not signed as it has to be" in found.detail
    assert not issuer.seen


def test_what_is_no_token_is_refused_before_anybody_is_asked(issuer: IssuerSite) -> None:
    deep = issuer.signed({"alg": "RS256"}, b'{"a":' * 2_000 + b"1" + b"}" * 2_000)
    good = issuer.token(NOW)
    head, _, tail = good.split(".")
    tokens = ["", ".", "..", "a.b.c", "opaque", "é", "a" * 2_0000, good + "A.B", f"{head}..{tail}", f"{head}.W10.{tail}", deep]
    for token, found in zip(tokens, verify_all(tokens, issuer.settings()), strict=True):
        assert isinstance(found, Unauthorized), token[:40]
    assert not issuer.seen


def test_keys_that_cannot_be_used_do_not_spoil_the_others(issuer: IssuerSite) -> None:
    weak = {"kty": "RSA", "n": "AQAB" * 40, "e": "AQAB", "kid": "rsa"}
    encrypting = ECKey.generate_key("P-256", {"kid": "rsa", "use": "enc"})
    bad = [7, {}, {"kty": "lattice", "kid": "rsa"}, {"kty": "RSA", "kid": "rsa"}, {"kty": "EC", "crv": "P-999", "x": 1}, weak]
    issuer.keys = [*bad, *public(encrypting, EC, RSA)]
    assert verify(issuer.token(NOW), issuer.settings()).subject == "alice"


def test_a_key_is_only_used_for_its_own_algorithm(issuer: IssuerSite) -> None:
    issuer.keys = [{**public(RSA)[0], "alg": "PS256"}]
    with pytest.raises(Unauthorized, match="key that its issuer does not have"):
        verify(issuer.token(NOW), issuer.settings())


def test_each_of_several_issuers_vouches_for_its_own(issuer: IssuerSite) -> None:
    with IssuerSite() as other:
        other.keys = public(ECKey.generate_key("P-256", {"kid": "ec"}))
        tokens = [issuer.token(NOW, sub="a"), issuer.token(NOW, EC, "ES256"), other.token(NOW, EC, "ES256")]
        first, second, forged = verify_all(tokens, issuer.settings(), other.settings())
    assert isinstance(first, Claims)
    assert isinstance(second, Claims)
    assert isinstance(forged, Unauthorized)


def test_a_flood_of_unknown_keys_is_one_look(issuer: IssuerSite) -> None:
    clock = ManualClock()

    async def work() -> None:
        issuers = Issuers([issuer.settings()], clock)
        await issuers.verify(issuer.token(NOW))
        clock.advance(60)
        flood = [issuers.verify(issuer.token(NOW, header={"kid": f"k{n}"})) for n in range(100)]
        known = [issuers.verify(issuer.token(NOW)) for _ in range(20)]
        found = await asyncio.gather(*flood, *known, return_exceptions=True)
        assert [type(one) for one in found] == [Unauthorized] * 100 + [Claims] * 20
        assert issuer.seen["/keys"] == 2
        clock.advance(9)
        await asyncio.gather(issuers.verify(issuer.token(NOW, header={"kid": "new"})), return_exceptions=True)
        assert issuer.seen["/keys"] == 2
        clock.advance(1)
        new = ECKey.generate_key("P-256", {"kid": "new"})
        issuer.keys = public(new)
        assert (await issuers.verify(issuer.token(NOW, new, "ES256"))).subject == "alice"
        assert issuer.seen["/keys"] == 3
        await issuers.close()

    asyncio.run(work())


def test_all_who_come_first_wait_for_one_look(issuer: IssuerSite) -> None:
    async def work() -> None:
        issuers = Issuers([issuer.settings()], ManualClock())
        await asyncio.gather(*(issuers.verify(issuer.token(NOW)) for _ in range(50)))
        await issuers.close()

    asyncio.run(work())
    assert issuer.seen == {WELL_KNOWN: 1, "/keys": 1}


def test_an_issuer_that_is_down_is_missed_only_when_it_is_needed(issuer: IssuerSite) -> None:
    clock, day = ManualClock(), 86400

    async def work() -> None:
        issuers = Issuers([issuer.settings()], clock)

        async def token(**more: Any) -> Any:
            return (await asyncio.gather(issuers.verify(issuer.token(clock.seconds, **more)), return_exceptions=True))[0]

        assert isinstance(await token(), Claims)
        issuer.stop()
        clock.advance(3600)
        assert isinstance(await token(), Claims)
        unknown = await token(header={"kid": "new"})
        assert isinstance(unknown, IssuerAway)
        assert (unknown.status, set(unknown.headers)) == (503, {"Retry-After"})
        clock.advance(day)
        assert isinstance(await token(), IssuerAway)
        issuer.start()
        assert isinstance(await token(), IssuerAway), "not tried again at once"
        clock.advance(10)
        assert isinstance(await token(), Claims)
        await issuers.close()

    asyncio.run(work())


def test_a_key_that_was_withdrawn_is_dropped_with_the_next_look(issuer: IssuerSite) -> None:
    clock = ManualClock()

    async def work() -> None:
        issuers = Issuers([issuer.settings(keys="PT10M")], clock)
        await issuers.verify(issuer.token(NOW))
        issuer.keys = public(EC)
        clock.advance(599)
        await issuers.verify(issuer.token(NOW))
        clock.advance(1)
        with pytest.raises(Unauthorized):
            await issuers.verify(issuer.token(clock.seconds))
        await issuers.close()

    asyncio.run(work())


BAD_ANSWERS = {
    "an error": (WELL_KNOWN, (500, {}, b"{}")),
    "no JSON": (WELL_KNOWN, (200, {}, b"<html>")),
    "a list": (WELL_KNOWN, (200, {}, b"[]")),
    "nested": (WELL_KNOWN, (200, {}, b"[" * 100_000)),
    "too large": ("/keys", (200, {}, b'{"keys": [], "x": "' + b"x" * (1 << 20) + b'"}')),
    "no keys": ("/keys", (200, {}, b"{}")),
    "cut short": (WELL_KNOWN, (200, {"Content-Length": "99999"}, b"{}")),
}


@pytest.mark.parametrize("what", BAD_ANSWERS)
def test_an_issuer_that_answers_badly_counts_as_away(issuer: IssuerSite, what: str) -> None:
    path, answer = BAD_ANSWERS[what]
    issuer.says[path] = answer
    with pytest.raises(IssuerAway):
        verify(issuer.token(NOW), issuer.settings())


def test_a_document_of_another_issuer_is_none(issuer: IssuerSite) -> None:
    issuer.says[WELL_KNOWN] = (200, {}, json.dumps({**issuer.document(), "issuer": f"{issuer.issuer}/"}).encode())
    with pytest.raises(IssuerAway):
        verify(issuer.token(NOW), issuer.settings())
    assert not issuer.seen["/keys"]


def test_nobody_is_led_elsewhere(issuer: IssuerSite) -> None:
    with IssuerSite() as other:
        issuer.says["/keys"] = (302, {"Location": f"{other.issuer}/keys"}, b"{}")
        with pytest.raises(IssuerAway):
            verify(issuer.token(NOW), issuer.settings())
        issuer.says[WELL_KNOWN] = (200, {}, json.dumps({**issuer.document(), "jwks_uri": "http://10.0.0.1/keys"}).encode())
        with pytest.raises(IssuerAway):
            verify(issuer.token(NOW), issuer.settings())
        assert not other.seen


@pytest.mark.parametrize(
    "address", ["http://iam.example.org", "iam.example.org", "https://", "https://a@b", "https://x?y", "ftp://x"]
)
def test_an_issuer_s_address_is_one_that_nobody_can_take_over(address: str) -> None:
    with pytest.raises(ValidationError, match="issuer is an https address"):
        IssuerSettings(issuer=address, audience=["x"])
