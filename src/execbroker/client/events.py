import json
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass, field
from typing import Any


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
