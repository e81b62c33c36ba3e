"""A broker that is told to stop: what is under way is finished, what waits is answered, and nothing new is begun."""

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from doorsite import ASK, SERVERS, Raw, door, use
from processsite import DEADLINE, Site, until


@pytest.fixture(params=SERVERS)
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    use(request.param, tmp_path, monkeypatch)
    site = door(tmp_path).start()
    yield site
    site.stop(signal.SIGKILL)


def told(site: Site) -> None:
    """Once it has heard SIGTERM."""
    site.process.send_signal(signal.SIGTERM)
    asyncio.run(until(lambda: not (site.data / "server.json").exists()))


def refused(site: Site) -> bool:
    try:
        socket.create_connection(("127.0.0.1", urlsplit(site.url).port or 0), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_replies_under_way_are_finished_and_new_connections_refused(site: Site) -> None:
    raw, idle, half = Raw(site), Raw(site), Raw(site)
    idle.head("GET", "/healthz")
    assert idle.reply()[0] == 200
    half.send(b"GET /healthz HTTP/1.1\r\n")
    raw.head("POST", "/requests", len(ASK))
    raw.send(ASK[:-1])
    told(site)
    asyncio.run(until(lambda: refused(site)))
    assert idle.rest() == b""
    assert half.rest() == b""
    raw.send(ASK[-1:])
    status, _, body = raw.reply()
    assert (status, json.loads(body)["result"]) == (200, "YES")
    assert raw.rest() == b""
    assert site.process.wait(DEADLINE) == 0


def test_long_polls_are_answered_at_once(site: Site) -> None:
    asking = Raw(site)
    asking.head("POST", "/requests", len(ASK))
    asking.send(ASK)
    offer = json.loads(asking.reply()[2])["offers"][0]["meta"]["uuid"]
    waiting = Raw(site)
    waiting.head("GET", f"/sessions/{offer}?wait=60&phase=OFFERED")
    asking.head("GET", f"/sessions/{offer}")
    assert asking.reply()[0] == 200
    told(site)
    status, _, body = waiting.reply()
    assert (status, json.loads(body)["phase"]) == (200, "OFFERED")
    assert site.process.wait(DEADLINE) == 0


def test_what_does_not_end_is_not_waited_for_long(site: Site) -> None:
    raw = Raw(site)
    raw.head("POST", "/requests", len(ASK))
    raw.send(ASK[:-1])
    told(site)
    assert site.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_the_second_time_it_ends_at_once(site: Site, again: signal.Signals) -> None:
    raw = Raw(site)
    raw.head("POST", "/requests", len(ASK))
    raw.send(ASK[:-1])
    told(site)
    site.process.send_signal(again)
    assert site.process.wait(DEADLINE) == 128 + again
    site.process.communicate()
    assert site.start()("platforms").code == 0
