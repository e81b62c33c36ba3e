"""Clients that would rather speak another protocol, and say so with a request (RFC 9110, 7.8)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from doorsite import ASK, SERVERS, Raw, door, use
from processsite import Site

OFFER = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"}


@pytest.fixture(params=SERVERS)
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    use(request.param, tmp_path, monkeypatch)
    site = door(tmp_path).start()
    yield site
    site.stop()


def test_the_offer_is_ignored_and_the_body_read(site: Site) -> None:
    raw = Raw(site)
    for _ in range(3):
        raw.head("POST", "/requests", len(ASK), **OFFER)
        raw.send(ASK)
        status, _, body = raw.reply()
        assert (status, b'"result":"YES"' in body) == (200, True)
        raw.head("GET", "/healthz", **OFFER)
        assert raw.reply()[0] == 200


@pytest.mark.parametrize("size", [1, 7, 100])
def test_in_whatever_pieces_it_comes(site: Site, size: int) -> None:
    raw = Raw(site)
    chunked = f"{len(ASK):x}\r\n".encode() + ASK + b"\r\n0\r\n\r\n"
    token = (site.data / "token").read_text()
    head = {"Host": "localhost", "Authorization": f"Bearer {token}", **OFFER, "Transfer-Encoding": "chunked"}
    lines = ["POST /requests HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    whole = "\r\n".join(lines).encode() + chunked
    for begin in range(0, len(whole), size):
        raw.send(whole[begin : begin + size])
    assert raw.reply()[0] == 200


def test_a_websocket_is_no_exception(site: Site) -> None:
    raw = Raw(site)
    raw.head("GET", "/healthz", **{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
    assert raw.reply()[0] == 200


def test_connect_is_not_taken(site: Site) -> None:
    raw = Raw(site)
    raw.send(b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert raw.reply()[0] in {400, 401, 404, 405}
