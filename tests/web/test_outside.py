"""What every request and reply has: an address, a name, safe headers; and the path of `public_url`."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from brokersite import NOTEBOOK, Site
from execbroker.app import create_app
from execbroker.config import Config, load
from execbroker.errors import StartupError
from execbroker.web.outside import SAFE, behind

PROXIES = Config(proxies=["10.0.0.0/8", "2001:db8::/32"]).proxies


@pytest.mark.parametrize(
    ("peer", "headers", "found"),
    [
        ("192.0.2.9", {"x-forwarded-for": "1.1.1.1"}, "192.0.2.9"),
        ("10.0.0.1", {}, "10.0.0.1"),
        ("10.0.0.1", {"x-forwarded-for": "1.1.1.1"}, "1.1.1.1"),
        ("::ffff:10.0.0.1", {"x-forwarded-for": "1.1.1.1:4711"}, "1.1.1.1"),
        ("10.0.0.1", {"x-forwarded-for": "6.6.6.6, 1.1.1.1, 10.2.2.2"}, "1.1.1.1"),
        ("10.0.0.1", {"x-forwarded-for": "10.3.3.3, 10.2.2.2"}, "10.3.3.3"),
        ("10.0.0.1", {"x-forwarded-for": "1.1.1.1, unknown"}, "10.0.0.1"),
        ("10.0.0.1", {"x-forwarded-for": "rubbish"}, "10.0.0.1"),
        ("10.0.0.1", {"forwarded": 'for=1.1.1.1;proto=https, For="[2001:db8::7]:80"'}, "1.1.1.1"),
        ("10.0.0.1", {"forwarded": 'proto=https; for="[2a00::7]"'}, "2a00::7"),
        ("10.0.0.1", {"forwarded": "for=_hidden"}, "10.0.0.1"),
        ("10.0.0.1", {"forwarded": "for=1.1.1.1", "x-forwarded-for": "1.1.1.1"}, "1.1.1.1"),
        ("10.0.0.1", {"forwarded": "for=6.6.6.6", "x-forwarded-for": "1.1.1.1"}, "10.0.0.1"),
    ],
)
def test_on_whose_behalf_it_comes(peer: str, headers: dict[str, str], found: str) -> None:
    assert behind(peer, Headers(headers), PROXIES) == found


def ask(site: Site, method: str, path: str, **details: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        async with site:
            return await site.client.request(method, path, **details)

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/platforms", 200),
        ("GET", "/metrics", 200),
        ("GET", "/nothing", 404),
        ("PUT", "/requests", 405),
        ("POST", "/requests", 415),
        ("GET", "/sessions?limit=x", 422),
    ],
)
def test_every_reply_has_headers_that_keep_it_safe(site: Site, method: str, path: str, status: int) -> None:
    answer = ask(site, method, path, headers={"content-type": "text/plain"})
    assert answer.status_code == status
    assert SAFE.items() <= {name.title().replace("Id", "ID"): value for name, value in answer.headers.items()}.items()
    assert "server" not in answer.headers
    assert "strict-transport-security" not in answer.headers


def test_what_is_turned_away_has_them_too(tmp_path: Path) -> None:
    site = Site(tmp_path, auth={"mode": "token"})
    answer = ask(site, "GET", "/sessions", headers={"x-request-id": "r/1"})
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (401, "nosniff")
    assert answer.headers["x-request-id"] == "r/1"


def test_what_nobody_expected_has_them_too(site: Site) -> None:
    async def work() -> httpx.Response:
        async with site:
            transport = httpx.ASGITransport(site.app, raise_app_exceptions=False)
            del site.app.state.broker
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.get("/platforms")

    answer = asyncio.run(work())
    assert (answer.status_code, answer.headers["cache-control"]) == (500, "no-store")
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("url", ["https://broker.example.org", "http://broker.example.org"])
def test_https_is_for_ever(tmp_path: Path, url: str) -> None:
    answer = ask(Site(tmp_path, public_url=url), "GET", "/healthz")
    assert ("strict-transport-security" in answer.headers) == url.startswith("https")


@pytest.mark.parametrize(("name", "kept"), [("abc-1.2:3", True), ("", False), ("a b", False), ("x" * 129, False), ('a"', False)])
def test_a_request_keeps_its_name_where_it_is_a_sane_one(site: Site, name: str, kept: bool) -> None:
    assert (ask(site, "GET", "/healthz", headers={"x-request-id": name}).headers["x-request-id"] == name) is kept


def test_a_prefix_may_be_passed_on_or_not_and_is_in_every_link(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path, public_url="https://example.org/a/broker/") as site:
            for prefix in ("", "/a/broker"):
                made = await site.client.post(
                    f"{prefix}/requests", json={"executable": NOTEBOOK}, headers={"prefer": "return=minimal"}
                )
                location = made.headers["location"]
                assert location.startswith("https://example.org/a/broker/offersets/")
                path = location.removeprefix("https://example.org")
                offers = (await site.client.get(path)).json()["offers"]
                assert offers[0]["meta"]["url"].startswith("https://example.org/a/broker/sessions/")
                folder = await site.client.get(f"{prefix}/sessions/{offers[0]['meta']['uuid']}/files/a%2Fb%20c")
                assert folder.status_code == 404, folder.text
            index = await site.client.get("/a/broker")
            assert index.json()["links"]["requests"] == "https://example.org/a/broker/requests"
            assert (await site.client.get("/a/brokerage/healthz")).status_code == 404
            assert (await site.client.get("/other/healthz")).status_code == 404

    asyncio.run(work())


def test_a_prefix_that_is_a_route_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="begin with /sessions; choose"):
        create_app(load(None, folder=tmp_path, public_url="https://example.org/sessions/here"))
