import json
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from execbroker.client.problems import ClientError

CONNECT = 30.0  # seconds
SILENCE = 40.0
"""Seconds for which a stream may say nothing; the broker says at least that there is nothing new."""


@dataclass(frozen=True, slots=True)
class Event:
    """What the broker tells: of `sort` `phase`, `schedule` or `message`, with a `number` by which to go on after it.

    A `gap` says that events before it are not there any more: what they were about has to be looked at anew.
    """

    sort: str
    number: int | None = None
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.sort == "end" and self.data.get("reason") == "final"


async def stream(http: httpx.AsyncClient, path: str, after: int | None) -> AsyncGenerator[Event, None]:
    """What one stream tells until it breaks off. Raises ClientError, httpx.TransportError, and ValueError where it is no stream
    of events."""
    headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": str(after)})
    async with http.stream("GET", path, headers=headers, timeout=httpx.Timeout(CONNECT, read=SILENCE)) as response:
        if response.is_error:
            raise ClientError.read(response.status_code, await response.aread())
        if response.status_code == 204:
            yield Event("end", data={"reason": "final"})
        async for event in read_events(response.aiter_lines()):
            yield event


async def read_events(lines: AsyncIterable[str]) -> AsyncGenerator[Event, None]:
    """Server-Sent Events (HTML, 9.2.6); what has a number alone is of the sort "".

    Raises ValueError where it is none of ours.
    """
    fields: dict[str, str] = {}
    async for line in lines:
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif not line and fields:
            number = int(fields["id"]) if "id" in fields else None
            yield Event(fields.get("event", ""), number, dict(json.loads(fields.get("data", "{}"))))
            fields = {}
