"""A receiver that is down, and a broker that is killed meanwhile, and again while it tells: all is told, in order."""

import asyncio
import json
import signal
import socket
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
from standardwebhooks import Webhook

import stores
from brokersite import NOTEBOOK, asked, uuid_of
from processsite import Site, until
from streaming import Receiver

SESSIONS = 40
SETTINGS = {
    "platforms": [{"name": "site", "type": "fake", "lasts": "PT1S", "nodes": [{"count": 20, "cores": 8, "memory": 64}]}],
    "auth": {"mode": "none"},
    "callbacks": {"allow_http": True, "allow_private": ["127.0.0.0/8"], "longest_wait": "PT1S", "timeout": "PT5S"},
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def ask(site: Site, url: str) -> tuple[str, str]:
    """A session, and the secret that it is told of with."""
    async with httpx.AsyncClient(base_url=site.url, timeout=30) as client:
        request = {"executable": NOTEBOOK, **asked(1, 1), "callbacks": [{"url": url}]}
        answer = await client.post("/direct", json=request)
        assert answer.status_code == 200, answer.text
        (callback,) = answer.json()["callbacks"]
        return uuid_of(answer.json()), callback["secret"]


async def killed(site: Site) -> None:
    await asyncio.to_thread(site.stop, signal.SIGKILL)
    await asyncio.to_thread(site.start)


async def work(folder: Path) -> None:
    site, port = Site(folder, SETTINGS), free_port()
    await asyncio.to_thread(site.start)
    try:
        secrets = dict(await asyncio.gather(*(ask(site, f"http://127.0.0.1:{port}/{number}") for number in range(SESSIONS))))
        failed = "SELECT count(*) FROM callbacks WHERE tries > 0"
        await until(lambda: stores.execute(site.data, failed)[0][0] > SESSIONS // 2)
        await killed(site)
        going = "SELECT count(*) FROM sessions WHERE phase <> 'COMPLETED'"
        await until(lambda: stores.execute(site.data, going) == [(0,)], 60)
        with Receiver(port) as receiver:
            await until(lambda: len(receiver.got) > SESSIONS, 60)
            await killed(site)
            await until(lambda: stores.execute(site.data, "SELECT DISTINCT ended FROM callbacks") == [("DONE",)], 60)
        check(receiver, secrets, stores.execute(site.data, "SELECT seq, session, phase FROM events ORDER BY seq"))
    finally:
        await asyncio.to_thread(site.stop)


def check(receiver: Receiver, secrets: dict[str, str], events: list[tuple[Any, ...]]) -> None:
    """What was told when the broker died may have been told again, under the same name, before all that came after it."""
    told, known = defaultdict(list), defaultdict(list)
    for headers, body in receiver.got:
        document = Webhook(secrets[json.loads(body)["data"]["session"]]).verify(body, headers)
        assert headers["webhook-id"].endswith(f"-{document['id']}")
        seen = told[document["data"]["session"]]
        if not seen or seen[-1] != (document["id"], document["data"]["phase"]):
            seen.append((document["id"], document["data"]["phase"]))
    for seq, session, phase in events:
        known[session].append((seq, phase))
    assert told == known
    assert known.keys() == secrets.keys()
    assert len(receiver.got) - len(events) <= SESSIONS


def test_a_receiver_that_was_down_is_told_all_once_it_is_back(tmp_path: Path) -> None:
    asyncio.run(work(tmp_path))
