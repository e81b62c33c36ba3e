import re
import sys
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer
from typer.core import TyperCommand

from execbroker.cli.offers import Uuid, uuid_of
from execbroker.cli.reading import read_change
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
    command(app, extend, cls=Signed)


class Signed(TyperCommand):
    """A command whose last argument may begin with a minus, and is no option then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        negative = [text for text in args if re.match(r"-[\dPT]", text)]
        if negative and "--" not in args:
            args = [*(text for text in args if text not in negative), "--", *negative]
        return super().parse_args(ctx, args)


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
    from execbroker.cli.tables import duration_of, length, phase_text, print_table, start_of, starts, zone_name

    rows = []
    for session in sorted(found, key=lambda session: str(session.schedule and start_of(session))):
        duration = duration_of(session)
        cells = starts(session), length(duration) if duration else "", _what(session)
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
    from execbroker.cli.amounts import compute_text, computes_of, costs_text
    from execbroker.cli.tables import duration_of, length, starts, when

    start, duration, costs = starts(session), duration_of(session), costs_text(session)
    facts = [("runs", getattr(session.executable, "location", None) or _what(session))]
    facts += [("platform", session.platform)] if session.platform else []
    if start and duration is not None:
        facts.append(("start", f"{start}, for {length(duration)}"))
    facts += [("compute", text) for one in computes_of(session) if (text := compute_text(one))]
    facts += [("data", f"{item.name}  {getattr(item, 'location', '')}") for item in session.data or []]
    facts += [("storage", _storage(item)) for item in session.storage or []]
    facts += [("costs", f"{costs} at most")] if costs else []
    facts += [("objective", session.objective)] if session.objective else []
    for connector in session.connectors or []:
        kind = (connector.kind or "").rpartition(":")[2]
        facts.append(("connect", f"{kind} ({connector.status})  {connector.location}"))
    if session.expires:
        facts.append(("held", f"until {when(session.expires)}"))
    return [*facts, *_options(session)]


def _options(session: "ScheduledExecutionSession") -> list[tuple[str, str]]:
    """What its owner may do now."""
    from execbroker.cli.tables import length
    from execbroker.model.options import IntegerDeltaOption

    options = (session.meta and session.meta.options) or []
    choices = [value for option in options for value in getattr(option, "values", [])]
    facts = [("may become", ", ".join(choices))] if choices else []
    for option in options:
        if isinstance(option, IntegerDeltaOption) and option.units in ("seconds", "minutes", "hours"):
            spans = [(option.max, "longer"), (-(option.min or 0), "shorter")]
            said = [f"{length(timedelta(**{option.units: span}))} {way}" for span, way in spans if span]
            facts += [("may extend", f"up to {' or '.join(said)}")] if said else []
    return facts


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


async def extend(
    visit: Visit,
    uuid: Uuid,
    by: Annotated[str, typer.Argument(metavar="TIME", help="By how much: 30m, 1h30m, PT30M; -10m makes it shorter.")],
) -> None:
    """Make a session longer, where the time after it is free, or shorter."""
    from execbroker.cli.tables import duration_of, end_of, length, when

    change = read_change(by)
    session = await visit.client.extend(await visit.find(uuid), int(change.total_seconds()))
    if visit.payload(session):
        return
    end, duration = end_of(session), duration_of(session)
    lasts = f"  ends {when(end)}, after {length(duration)}" if end and duration else ""
    visit.console.print(f"{session.phase}  {uuid_of(session)}{lasts}")
