import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal
from urllib.parse import quote
from uuid import UUID

from execbroker.model.waist import Connector, Job, Port

PATIENCE = 0.5
SILENCE = 0.2
_SCHEMES = {"HTTP": "http", "HTTPS": "https"}


class Connectors:
    """The addresses of running sessions, and which of them have answered."""

    def __init__(self) -> None:
        self._answered: set[tuple[UUID, int]] = set()

    async def of(self, job: Job, numbers: Sequence[int], running: bool) -> tuple[Connector, ...]:
        """One connector for each port of the job that has its number."""
        pairs = list(zip(job.launch.ports, numbers, strict=False))
        if not running:
            self.forget(job.uuid)
            return tuple(_connector(job, port, number, "FINISHED") for port, number in pairs)
        answers = await asyncio.gather(*(self._answers(job.uuid, port, number) for port, number in pairs))
        return tuple(
            _connector(job, port, number, "AVAILABLE" if answer else "PREPARING")
            for (port, number), answer in zip(pairs, answers, strict=True)
        )

    def forget(self, uuid: UUID) -> None:
        self._answered = {(job, number) for job, number in self._answered if job != uuid}

    async def _answers(self, uuid: UUID, port: Port, number: int) -> bool:
        if (uuid, number) not in self._answered and await answers(number, port.protocol.upper() == "HTTP"):
            self._answered.add((uuid, number))
        return (uuid, number) in self._answered


async def answers(number: int, http: bool) -> bool:
    """Whether a port of the loopback interface answers HTTP, whatever the status, or else takes connections and keeps them:
    a gateway in front of a session's network takes each, and ends it where nobody listens."""
    writer = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", number)
            if not http:
                return await _stays(reader)
            writer.write(b"GET / HTTP/1.0\r\nHost: 127.0.0.1:%d\r\n\r\n" % number)
            return (await reader.read(5)).startswith(b"HTTP")
    except (OSError, TimeoutError):
        return False
    finally:
        if writer:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _stays(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(SILENCE):
            return bool(await reader.read(1))
    except TimeoutError:
        return True


def _location(job: Job, port: Port, number: int) -> str:
    scheme = _SCHEMES.get(port.protocol.upper(), port.protocol.lower())
    return f"{scheme}://127.0.0.1:{number}{port.path.replace('{secret}', quote(job.secret, safe=''))}"


def _connector(job: Job, port: Port, number: int, status: Literal["PREPARING", "AVAILABLE", "FINISHED"]) -> Connector:
    kind = f"urn:execbroker:connector:{port.protocol.lower()}"
    return Connector(kind, port.protocol, _location(job, port, number), status)
