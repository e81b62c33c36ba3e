import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from execbroker.cli.visit import Visit, command

if TYPE_CHECKING:
    from rich.text import Text

    from execbroker.client import Event


def add_to(app: typer.Typer) -> None:
    command(app, events, prints=False)


async def events(
    visit: Visit,
    uuid: Annotated[
        str | None, typer.Argument(help="A session, or the beginning of its uuid; all that is yours without it.")
    ] = None,
    after: Annotated[int | None, typer.Option(min=0, help="Only what comes after the event of this number.")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Print what happens: to a session from its beginning to its end, or to all of them from now on."""
    found = await visit.find(uuid) if uuid else None
    async with aclosing(visit.client.events(found, after)) as happens:
        async for event in happens:
            if json_lines:
                typer.echo(json.dumps({"id": event.number, "event": event.sort, "data": event.data}, ensure_ascii=False))
            else:
                visit.console.print(_line(event))


def _line(event: "Event") -> "Text":
    from rich.text import Text

    from execbroker.cli.tables import clock_time, phase_text
    from execbroker.model.phases import Phase
    from execbroker.model.times import parse_instant

    if event.sort == "gap":
        return Text(f"Some of what happened, until event {event.data.get('until')}, is not there any more")
    data: dict[str, Any] = event.data
    line = Text(f"{event.number:>6}  {clock_time(parse_instant(data['time'])[0])}  ").append_text(
        phase_text(Phase(data["phase"]))
    )
    return line.append(f"  {data['session']}  {data.get('message', {}).get('message', '')}".rstrip())
