import sys
from contextlib import aclosing, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from execbroker.cli.offers import Uuid, uuid_of
from execbroker.cli.visit import REFUSED, Stop, Visit, command

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from execbroker.client import AsyncClient
    from execbroker.model.sessions import ScheduledExecutionSession


def add_to(app: typer.Typer) -> None:
    command(app, ps)
    command(app, show)
    command(app, logs, prints=False)
    command(app, get)
    command(app, cancel)
    command(app, platforms)


async def ps(
    visit: Visit,
    all: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the newest.")] = 100,
) -> None:
    """List offers and sessions, those that have not ended, by their start."""
    from execbroker.model.phases import HOLDING

    found = await visit.client.sessions(() if all else sorted(HOLDING), limit=limit)
    if not visit.payload({"sessions": [session.model_dump(mode="json", exclude_none=True) for session in found]}):
        _print_sessions(visit.console, found)


def _print_sessions(out: "Console", found: "list[ScheduledExecutionSession]") -> None:
    from execbroker.cli.tables import duration_of, length, phase_text, print_table, start_of, when, zone_name

    rows = []
    for session in sorted(found, key=lambda session: str(session.schedule and start_of(session))):
        start, duration = start_of(session), duration_of(session)
        cells = when(start) if start else "", length(duration) if duration else "", _what(session)
        rows.append((phase_text(session.phase), *cells, uuid_of(session)))
    if rows:
        print_table(out, ("phase", f"start ({zone_name()})", "for", "what", "session"), rows)


def _what(session: "ScheduledExecutionSession") -> str:
    """What it runs: its name, or the last part of where it comes from."""
    from execbroker.kinds.naming import file_name
    from execbroker.model.registry import short_name

    executable = session.executable
    if executable is None:
        return ""
    location = getattr(executable, "location", None)
    return executable.name or (file_name(location, "") if location else "") or short_name(executable.kind) or executable.kind


async def show(visit: Visit, uuid: Uuid) -> None:
    """Print all there is to know of an offer or session."""
    session = await visit.client.session(await visit.find(uuid))
    if not visit.payload(session):
        _print_session(visit.console, session)


def _print_session(out: "Console", session: "ScheduledExecutionSession") -> None:
    from execbroker.cli.tables import messages_of, phase_text, print_messages

    out.print(phase_text(session.phase).append(f"  {uuid_of(session)}"))
    for name, value in _facts(session):
        out.print(_fact(name, value))
    if messages := messages_of(session):
        out.print("messages", style="dim")
        print_messages(out, messages, times=True)


def _fact(name: str, value: str) -> "Text":
    from rich.text import Text

    return Text(f"{name:<12}", style="dim").append(value, style="default not dim")


def _facts(session: "ScheduledExecutionSession") -> list[tuple[str, str]]:
    """What a person wants to know, by name."""
    from execbroker.cli.tables import duration_of, length, start_of, when

    start, duration = start_of(session), duration_of(session)
    facts = [("runs", getattr(session.executable, "location", None) or _what(session))]
    if start and duration is not None:
        facts.append(("start", f"{when(start)}, for {length(duration)}"))
    cores, memory = (getattr(getattr(session.compute, name, None), "max", None) for name in ("cores", "memory"))
    if cores and memory:
        facts.append(("compute", f"{cores} cores, {memory} GiB"))
    facts += [("data", f"{item.name}  {getattr(item, 'location', '')}") for item in session.data or []]
    facts += [("storage", _storage(item)) for item in session.storage or []]
    for connector in session.connectors or []:
        kind = (connector.kind or "").rpartition(":")[2]
        facts.append(("connect", f"{kind} ({connector.status})  {connector.location}"))
    if session.expires:
        facts.append(("held", f"until {when(session.expires)}"))
    choices = [value for option in (session.meta and session.meta.options) or [] for value in getattr(option, "values", [])]
    return [*facts, *([("may become", ", ".join(choices))] if choices else [])]


def _storage(item: Any) -> str:
    from execbroker.cli.tables import when

    held = item.size.max or item.size.min if getattr(item, "size", None) else None
    kept = getattr(item, "expires", None)
    return "  ".join(
        part
        for part in (
            item.name,
            f"{held} GiB" if held else "",
            getattr(item, "location", None),
            kept and f"kept until {when(kept)}",
        )
        if part
    )


async def logs(
    visit: Visit,
    uuid: Uuid,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the session has ended.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="What it wrote to stderr, instead of stdout.")] = False,
) -> None:
    """Print what a session wrote."""
    from execbroker.client import NoAnswer

    found = await visit.find(uuid)
    stream: Literal["stdout", "stderr"] = "stderr" if stderr else "stdout"
    offset = await _copy(visit.client, found, stream, 0)
    if follow:
        async with aclosing(visit.client.follow(found, every=1)) as sessions:
            async for _ in sessions:
                with suppress(NoAnswer):  # the broker may be away for a moment; the next time brings it all
                    offset = await _copy(visit.client, found, stream, offset)
        await _copy(visit.client, found, stream, offset)


async def _copy(client: "AsyncClient", uuid: UUID, stream: Literal["stdout", "stderr"], offset: int) -> int:
    """Bytes as they are, to stdout; the offset after them."""
    content = await client.output(uuid, stream, offset)
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
    return offset + len(content)


async def get(
    visit: Visit,
    uuid: Uuid,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Where to; a new folder named by the uuid.")] = None,
) -> None:
    """Download what a session left in its home and its storage, and print the path of each file."""
    from execbroker.client import ClientError

    found = await visit.find(uuid)
    target = (folder or Path(str(found))).absolute()
    fetched, missed = [], []
    for file in await visit.client.files(found):
        if file.folder:
            continue
        try:
            fetched.append(await visit.client.download(found, file.path, target / _safe(file.path)))
        except ClientError as error:  # one that cannot be had must not keep the others back
            missed.append(f"{file.path}: {error.detail}")
            continue
        if not visit.form:
            typer.echo(fetched[-1])
    visit.payload({"files": [str(path) for path in fetched]})
    if missed:
        raise Stop("\n  ".join(["These could not be fetched:", *missed]), REFUSED)


def _safe(path: str) -> PurePosixPath:
    """A path that stays below the folder it is put in, whatever the broker says."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise Stop(f"The broker named a file {path!r}, which is no place below a folder", REFUSED)
    return parts


async def cancel(visit: Visit, uuid: Uuid) -> None:
    """Stop a session, or do not start it."""
    session = await visit.client.cancel(await visit.find(uuid))
    if not visit.payload(session):
        visit.console.print(f"{session.phase}  {uuid_of(session)}")


async def platforms(visit: Visit) -> None:
    """Print where sessions can run here."""
    from execbroker.cli.tables import print_table

    found = await visit.client.platforms()
    if visit.payload(found):
        return
    rows = []
    for platform in found["platforms"]:
        nodes = platform["nodes"]
        rows += [_node(platform, node) for node in nodes] or [(platform["name"], "", "", "", "not reached yet")]
    print_table(visit.console, ("platform", "cores", "memory", "storage", "node"), rows)
    for platform in found["platforms"]:
        for note in platform["notes"]:
            visit.console.print(f"{platform['name']}: {note}", style="dim")


def _node(platform: dict[str, Any], node: dict[str, Any]) -> tuple[str, ...]:
    return platform["name"], str(node["cores"]), f"{node['memory']} GiB", f"{node['storage']} GiB", node["name"]
