"""Connections that send half of something, or nothing, or do not read, or are too many; and what others notice of them."""

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from doorsite import ASK, SERVERS, Raw, connected, connections, door, status_of, use
from processsite import Site, until

SHORT = {"head": "PT1S", "pause": "PT1S", "body": "PT3S", "reply": "PT2S"}


@pytest.fixture(params=SERVERS)
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    use(request.param, tmp_path, monkeypatch)
    site = door(tmp_path, limits={"connections": SHORT})
    site.start()
    yield site
    site.stop()


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_half_a_head_is_not_waited_for(site: Site, sent: bytes) -> None:
    raw = Raw(site)
    raw.send(sent)
    assert raw.rest() == b""


def test_nor_is_that_of_a_second_request(site: Site) -> None:
    raw = Raw(site)
    raw.head("GET", "/healthz")
    assert raw.reply()[0] == 200
    raw.send(b"GET /healthz HTTP/1.1\r\n")
    assert raw.rest() == b""


def test_a_connection_that_is_kept_may_be_used_again(site: Site) -> None:
    raw = Raw(site)
    for _ in range(30):
        raw.head("POST", "/requests", len(ASK))
        raw.send(ASK)
        assert raw.reply()[0] == 200
    raw.close()


@pytest.mark.parametrize("packed", [False, True])
def test_a_body_that_stops_is_408(site: Site, packed: bool) -> None:
    raw, body = Raw(site), gzip.compress(ASK) if packed else ASK
    raw.head("POST", "/requests", len(body), **({"Content-Encoding": "gzip"} if packed else {}))
    raw.send(body[:-1])
    status, headers, problem = raw.reply()
    assert (status, headers["connection"], json.loads(problem)["status"]) == (408, "close", 408)
    assert raw.rest() == b""


def test_a_body_that_only_drips_is_408(site: Site) -> None:
    async def work() -> None:
        raw = Raw(site)
        raw.head("POST", "/requests", 1000)
        raw.socket.setblocking(False)
        loop = asyncio.get_running_loop()
        reading = asyncio.create_task(loop.sock_recv(raw.socket, 1000))
        while not reading.done():
            await loop.sock_sendall(raw.socket, b" ")
            await asyncio.wait({reading}, timeout=0.2)
        assert b" 408 " in reading.result()
        raw.close()

    asyncio.run(work())


def test_who_does_not_read_is_not_waited_for(site: Site) -> None:
    raw = Raw(site, buffer=4096)
    asyncio.run(until(lambda: connected(site)))
    token = (site.data / "token").read_text()
    request = f"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    raw.socket.setblocking(False)

    def sent() -> bool:
        """As much as it takes, until it takes no more or hangs up."""
        with contextlib.suppress(OSError):
            raw.socket.send(request * 100)
        return not connected(site)

    asyncio.run(until(sent))
    raw.close()


def test_what_is_no_http_is_a_problem_with_safe_headers(site: Site) -> None:
    raw = Raw(site)
    raw.send(b"\x16\x03\x01 hello\r\n\r\n")
    status, headers, body = raw.reply()
    assert (status, headers["content-type"], headers["x-content-type-options"]) == (400, "application/problem+json", "nosniff")
    assert json.loads(body)["status"] == 400


@pytest.mark.alone
def test_a_thousand_slow_ones_are_not_noticed_by_others(site: Site) -> None:
    others, memory = 40, status_of(site.process.pid, "VmHWM")
    with connections(site, 1000) as slow:
        for number, raw in enumerate(slow):
            if number % 3 == 1:
                raw.send(b"POST /requests HTTP/1.1\r\nHost: ")
            if number % 3 == 2:
                raw.head("POST", "/requests", 5000)
                raw.send(b"{" + b" " * 1000)
        with httpx.Client(base_url=site.url, headers={"authorization": f"Bearer {(site.data / 'token').read_text()}"}) as client:
            found = [client.post("/requests", content=ASK, headers={"content-type": "application/json"}) for _ in range(others)]
            assert [answer.status_code for answer in found] == [200] * others
        asyncio.run(until(lambda: not connected(site)))
    assert status_of(site.process.pid, "VmHWM") - memory < 100_000


def test_bodies_that_unpack_to_a_gigabyte_cost_no_memory(site: Site) -> None:
    bomb = gzip.compress(bytes(64 << 20), 9) * 16
    memory = status_of(site.process.pid, "VmHWM")
    headers = {"authorization": f"Bearer {(site.data / 'token').read_text()}", "content-type": "application/json"}

    def post(content: bytes, **more: str) -> int:
        return httpx.post(f"{site.url}/requests", content=content, headers=headers | more, timeout=60).status_code

    with ThreadPoolExecutor(16) as threads:
        bombs = [threads.submit(post, bomb, **{"content-encoding": "gzip"}) for _ in range(16)]
        assert [post(ASK) for _ in range(20)] == [200] * 20
        assert {one.result() for one in bombs} == {413}
    assert status_of(site.process.pid, "VmHWM") - memory < 150_000


def test_what_is_too_much_in_all_is_503_at_once(tmp_path: Path) -> None:
    site = door(tmp_path, limits={"connections": {"all": 16}}).start()
    try:
        with connections(site, 16):
            raw = Raw(site)
            status, headers, body = raw.reply()
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
            assert "too many connections" in json.loads(body)["detail"]
            assert raw.rest() == b""
        asyncio.run(until(lambda: site("platforms").code == 0))
    finally:
        site.stop()


def own_address() -> str:
    """That of this machine in its network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


@pytest.mark.skipif(own_address().startswith("127."), reason="this machine has no address but loopback: give it a network")
def test_one_address_may_have_so_many_and_others_have_room(tmp_path: Path) -> None:
    site = door(tmp_path, host="0.0.0.0", limits={"connections": {"address": 3}}).start()
    try:
        held = [Raw(site, own_address()) for _ in range(3)]
        assert Raw(site, own_address()).reply()[0] == 503
        for _ in range(5):
            raw = Raw(site)
            raw.head("GET", "/healthz")
            assert raw.reply()[0] == 200
        held.pop().close()
        asyncio.run(until(lambda: b" 400 " in answered(Raw(site, own_address()))))
    finally:
        site.stop()


def answered(raw: Raw) -> bytes:
    """What it says to nonsense."""
    try:
        raw.send(b"nonsense\r\n\r\n")
    except ConnectionError:
        return b""
    return raw.rest()
