"""Logging in by a device code, with an issuer that makes difficulties."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from issuersite import AUDIENCE, IssuerSite

from execbroker.client.devices import DEVICE_CODE, Device, NotLoggedIn, Way, log_in, renewed
from execbroker.client.logins import Tokens
from execbroker.client.problems import ClientError, NoAnswer

WELL_KNOWN = "/.well-known/openid-configuration"
PENDING, SLOWER = (400, {"error": "authorization_pending"}), (400, {"error": "slow_down"})
GRANTED = (200, {"access_token": "a", "token_type": "bearer", "refresh_token": "r", "expires_in": 60})


@pytest.fixture
def issuer() -> Iterator[IssuerSite]:
    with IssuerSite() as site:
        serve(site)
        yield site


def serve(site: IssuerSite, **more: Any) -> None:
    """An issuer for devices, whose document has `more`."""
    names = ("token_endpoint", "device_authorization_endpoint", "revocation_endpoint")
    document = {"issuer": site.issuer, **{name: f"{site.issuer}/{name}" for name in names}, **more}
    site.says[WELL_KNOWN] = (200, {}, json.dumps(document).encode())
    device = {"device_code": "d", "user_code": "U-1", "verification_uri": f"{site.issuer}/device", "expires_in": 600}
    site.then["/device_authorization_endpoint"] = [(200, device | {"interval": 3})]


def log_in_at(site: IssuerSite, *answers: Any, **way: Any) -> tuple[Tokens, list[float], list[Device]]:
    """What comes of it, how long was waited each time, and what was shown."""
    site.then["/token_endpoint"] = list(answers)
    waits: list[float] = []
    shown: list[Device] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    settings = {"issuer": site.issuer, "client_id": "cli", "scopes": ["openid", "profile"], "audience": AUDIENCE, **way}
    return asyncio.run(log_in(Way(**settings), shown.append, sleep)), waits, shown


def test_what_is_asked_is_what_the_standards_say(issuer: IssuerSite) -> None:
    tokens, waits, shown = log_in_at(issuer, PENDING, GRANTED)
    target = {"audience": AUDIENCE, "resource": AUDIENCE}
    poll = {"grant_type": DEVICE_CODE, "device_code": "d", "client_id": "cli", **target}
    assert issuer.forms == [{"client_id": "cli", "scope": "openid profile", **target}, poll, poll]
    assert [one.user_code for one in shown] == ["U-1"]
    assert waits == [3, 3]
    assert (tokens.header, tokens.refresh_token, tokens.revocation_endpoint) == (
        "Bearer a",
        "r",
        f"{issuer.issuer}/revocation_endpoint",
    )


@pytest.mark.parametrize(
    ("audience", "named"), [(None, set()), ("execbroker", {"audience"}), (AUDIENCE, {"audience", "resource"})]
)
def test_a_resource_is_an_address(issuer: IssuerSite, audience: str | None, named: set[str]) -> None:
    log_in_at(issuer, GRANTED, audience=audience)
    assert issuer.forms[0].keys() - {"client_id", "scope"} == named


def test_whoever_is_asked_to_slow_down_does(issuer: IssuerSite) -> None:
    _, waits, _ = log_in_at(issuer, PENDING, SLOWER, PENDING, SLOWER, GRANTED)
    assert waits == [3, 3, 8, 8, 13]


def test_an_issuer_that_has_a_bad_moment_is_asked_again_later(issuer: IssuerSite) -> None:
    _, waits, _ = log_in_at(issuer, (500, {}), PENDING, (429, {}), GRANTED)
    assert waits == [3, 6, 6, 12]


@pytest.mark.parametrize("interval", [0, -5])
def test_nobody_asks_all_the_time(issuer: IssuerSite, interval: int) -> None:
    issuer.then["/device_authorization_endpoint"][0][1]["interval"] = interval
    assert log_in_at(issuer, PENDING, GRANTED)[1] == [1, 1]


def test_where_no_interval_is_named_it_is_five_seconds(issuer: IssuerSite) -> None:
    issuer.then["/device_authorization_endpoint"][0][1].pop("interval")
    assert log_in_at(issuer, PENDING, GRANTED)[1] == [5, 5]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((400, {"error": "access_denied"}), "turned down"),
        ((400, {"error": "expired_token"}), "the code has expired"),
        ((400, {"error": "invalid_client", "error_description": "who?"}), "refuses: who?"),
        ((403, {}), "answers 403"),
        ((200, {"access_token": "a", "token_type": "DPoP"}), "'DPoP'"),
    ],
)
def test_what_ends_it(issuer: IssuerSite, answer: Any, reason: str) -> None:
    with pytest.raises(NotLoggedIn, match=reason):
        log_in_at(issuer, PENDING, answer)


def test_a_code_that_nobody_enters_expires_whatever_the_issuer_says(issuer: IssuerSite) -> None:
    with pytest.raises(NotLoggedIn, match="the code has expired"):
        log_in_at(issuer, *[PENDING] * 300)
    assert len(issuer.forms) == 1 + 600 / 3


@pytest.mark.parametrize(
    ("document", "error", "reason"),
    [
        ({"device_authorization_endpoint": None}, NotLoggedIn, "no login for devices"),
        ({"issuer": "https://other.example.org"}, NoAnswer, "no OpenID issuer of that name"),
        ({"token_endpoint": "http://10.0.0.1/token"}, NoAnswer, "not https"),
        ({"device_authorization_endpoint": ["x"]}, NoAnswer, "not https"),
        ({"revocation_endpoint": "file:///etc/passwd"}, NoAnswer, "not https"),
    ],
)
def test_issuers_at_which_nobody_can_log_in(issuer: IssuerSite, document: Any, error: type[ClientError], reason: str) -> None:
    serve(issuer, **document)
    with pytest.raises(error, match=reason):
        log_in_at(issuer, GRANTED)


def test_an_issuer_that_others_could_play_is_not_asked(issuer: IssuerSite) -> None:
    with pytest.raises(NotLoggedIn, match="not https"):
        log_in_at(issuer, GRANTED, issuer="http://iam.example.org")


def test_a_token_that_no_header_can_carry_is_not_taken(issuer: IssuerSite) -> None:
    with pytest.raises(NoAnswer, match="not understood"):
        log_in_at(issuer, (200, {"access_token": "a\r\nHost: b", "token_type": "Bearer"}))


def test_nobody_is_sent_to_a_page_that_others_can_forge(issuer: IssuerSite) -> None:
    issuer.then["/device_authorization_endpoint"][0][1]["verification_uri"] = "http://iam.example.org/device"
    with pytest.raises(NotLoggedIn, match="not https"):
        log_in_at(issuer, GRANTED)


def test_an_issuer_that_keeps_its_refresh_token_does_not_lose_it(issuer: IssuerSite) -> None:
    tokens, _, _ = log_in_at(issuer, GRANTED)
    issuer.then["/token_endpoint"] = [(200, {"access_token": "b", "token_type": "Bearer"})]
    new = asyncio.run(renewed(tokens))
    assert (new.access_token, new.refresh_token, new.client_id) == ("b", "r", "cli")
    assert issuer.forms[-1]["resource"] == AUDIENCE
    assert new.expires is None
    issuer.then["/token_endpoint"] = [(503, {}), (400, {"error": "invalid_grant"})]
    with pytest.raises(NoAnswer):
        asyncio.run(renewed(tokens))
    with pytest.raises(NotLoggedIn, match="invalid_grant"):
        asyncio.run(renewed(tokens))
