"""A thousand sessions followed by two hundred clients, through a broker that stops and one that is killed: each client sees every
event that is for it once, in order."""

import asyncio
import re
import signal
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

import stores
from brokersite import NOTEBOOK, asked, uuid_of
from processsite import Site

pytestmark = pytest.mark.alone

PARTS = (400, 300, 300)
"""In the middle of the first part the broker is stopped, and in the middle of the second killed."""
ASKERS = 4
OF_ALL, OF_SOME, AT_ONCE = 20, 180, 3
"""Clients that follow everything, and those that follow a few sessions, so many of them at once."""
PATIENCE = 120  # seconds
PHASES = ("ACCEPTED", "WAITING", "PREPARING", "AVAILABLE", "RUNNING", "RELEASING", "COMPLETED")
SETTINGS = {
    "platforms": [
        {
            "name": "site",
            "type": "fake",
            "lasts": "PT3S",
            "poll": "PT3S",
            "nodes": [{"count": 64, "cores": 16, "memory": 64}],
        }
    ],
    "auth": {"mode": "none"},
}
EVENT = re.compile(rb"id: (\d+)\nevent: phase\ndata: (.*)\n\n")


@dataclass
class Stream:
    """A stream that is followed byte by byte, and asked for again from where it broke off, until it is over."""

    path: str
    port: int
    last: int | None = None
    seen: list[tuple[int, bytes]] = field(default_factory=list)
    """The numbers of the events, each with its data."""
    begun: int = 0
    over: bool = False

    async def follow(self) -> None:
        while not self.over:
            try:
                await self._read()
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            known = "" if self.last is None else f"Last-Event-ID: {self.last}\r\n"
            writer.write(f"GET {self.path} HTTP/1.0\r\nHost: 127.0.0.1\r\n{known}\r\n".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            self.over = answer.startswith(b"HTTP/1.1 204")
            assert self.over or answer.startswith(b"HTTP/1.1 200"), answer
            self.begun += 1
            rest = b""
            while content := await reader.read(1 << 20):
                rest = self._take(rest + content)
        finally:
            writer.close()

    def _take(self, content: bytes) -> bytes:
        """What is whole; the rest is given back."""
        whole, end, rest = content.rpartition(b"\n\n")
        for number, data in EVENT.findall(whole + end):
            self.last = int(number)
            self.seen.append((self.last, data))
        self.over |= b'event: end\ndata: {"reason": "final"}' in whole
        assert b"event: gap" not in whole
        return rest


@dataclass
class Crowd:
    site: Site
    port: int
    asked: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    ofsome: list[Stream] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ofall = [Stream("/events", self.port, last=0) for _ in range(OF_ALL)]

    async def ask(self, sessions: int) -> None:
        """For so many, whatever becomes of the broker meanwhile."""
        await asyncio.gather(*(self._ask(sessions // ASKERS) for _ in range(ASKERS)))

    async def _ask(self, sessions: int) -> None:
        async with httpx.AsyncClient(base_url=self.site.url, timeout=30) as client:
            while sessions:
                try:
                    answer = await client.post("/direct", json={"executable": NOTEBOOK, **asked(1, 1)})
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                assert answer.status_code == 200, answer.text
                self.asked.put_nowait(uuid_of(answer.json()))
                sessions -= 1

    async def follow_some(self) -> None:
        while True:
            stream = Stream(f"/sessions/{await self.asked.get()}/events", self.port)
            self.ofsome.append(stream)
            await stream.follow()
            self.asked.task_done()

    async def break_it(self, how: signal.Signals, after: int) -> None:
        """When those who follow all have seen so many sessions, or as much of more of them, and start it again."""
        await self.seen(after * len(PHASES))
        code, _, err = await asyncio.to_thread(self.site.stop, how)
        assert code == (0 if how == signal.SIGTERM else -how), err
        await asyncio.to_thread(self.site.start)

    async def seen(self, events: int) -> None:
        """Each of those who follow all has seen so many."""
        async with asyncio.timeout(PATIENCE):
            while any(len(stream.seen) < events for stream in self.ofall):  # noqa: ASYNC110 -- another process sets no event
                await asyncio.sleep(0.1)

    async def until_over(self) -> None:
        """Every session that anybody knows of has ended, and those that nobody was told of, and all is told."""
        await asyncio.wait_for(self.asked.join(), PATIENCE)
        going = "SELECT count(*) FROM sessions WHERE phase <> 'COMPLETED'"
        async with asyncio.timeout(PATIENCE):
            while stores.execute(self.site.data, going) != [(0,)]:  # noqa: ASYNC110 -- another process sets no event
                await asyncio.sleep(0.2)
        ((events,),) = stores.execute(self.site.data, "SELECT count(*) FROM events")
        await self.seen(int(events))

    def check(self) -> None:
        rows = stores.execute(self.site.data, "SELECT seq, session, phase FROM events ORDER BY seq")
        for stream in self.ofall:
            assert [number for number, _ in stream.seen] == [number for number, *_ in rows]
            assert stream.seen == self.ofall[0].seen  # what was said, too
            assert stream.begun >= 3
        said, numbers, phases = dict(self.ofall[0].seen), defaultdict(list), defaultdict(list)
        for number, session, phase in rows:
            numbers[session].append(number)
            phases[session].append(phase)
        assert {tuple(found) for found in phases.values()} == {PHASES}
        assert len(self.ofsome) == sum(PARTS) == 1000
        for stream in self.ofsome:
            assert [number for number, _ in stream.seen] == numbers[stream.path.split("/")[2]]
            assert all(said[number] == data for number, data in stream.seen)
        assert any(stream.begun > 1 for stream in self.ofsome)


async def work(folder: Path) -> None:
    site = Site(folder, SETTINGS)
    await asyncio.to_thread(site.start)
    site.port = int(site.url.rpartition(":")[2])
    crowd = Crowd(site, site.port)
    try:
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(stream.follow()) for stream in crowd.ofall]
            following += [group.create_task(crowd.follow_some()) for _ in range(OF_SOME * AT_ONCE)]
            await asyncio.gather(crowd.ask(PARTS[0]), crowd.break_it(signal.SIGTERM, PARTS[0] // 2))
            await asyncio.gather(crowd.ask(PARTS[1]), crowd.break_it(signal.SIGKILL, PARTS[0] + PARTS[1] // 2))
            await crowd.ask(PARTS[2])
            await crowd.until_over()
            for task in following:
                task.cancel()
    finally:
        await asyncio.to_thread(site.stop)
    crowd.check()


def test_each_client_sees_every_event_once_and_in_order(tmp_path: Path) -> None:
    asyncio.run(work(tmp_path))
