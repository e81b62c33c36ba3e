import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from execbroker.model.components import AbstractComponent
from execbroker.model.messages import MessageItem
from execbroker.model.sessions import ScheduledExecutionSession

_GAP = 2
_UNLIMITED = 100_000
_COLOURS = {
    "OFFERED": "cyan",
    "REJECTED": "dim",
    "EXPIRED": "dim",
    "RUNNING": "bold green",
    "COMPLETED": "green",
    "FAILED": "bold red",
    "CANCELLED": "yellow",
}
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_LEVELS = {"ERROR": "red", "WARN": "yellow"}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command."""
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console that never wraps for a pipe, and takes nothing of what a broker says for markup."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _UNLIMITED
    return _Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_table(out: Console, header: Sequence[str], rows: Iterable[Sequence[Text | str]]) -> None:
    """Columns as wide as they need to be; where the terminal is too narrow for the last ones, they get lines of their own.

    Nothing is ever cut off or wrapped: uuids and paths belong in the last column, whose name goes without saying there.
    """
    lines = [[Text(name, style="dim") for name in header], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(line[column].plain) for line in lines) for column in range(len(header))]
    first = _fitting(widths, out.width)
    for number, line in enumerate(lines):
        out.print(_joined(line[:first], widths))
        below = line[first:] if number else line[first:-1]
        if below:
            out.print(Text(" " * _GAP).append_text(_joined(below, widths[first:])))


def _fitting(widths: Sequence[int], width: int) -> int:
    """How many of these columns fit on one line; one at least."""
    number = len(widths)
    while number > 1 and sum(widths[:number]) + _GAP * (number - 1) > width:
        number -= 1
    return number


def _joined(line: Sequence[Text], widths: Sequence[int]) -> Text:
    shown = Text()
    for cell, width in zip(line, widths, strict=False):
        shown.append_text(cell).append(" " * (width - cell_len(cell.plain) + _GAP))
    shown.rstrip()
    return shown


def print_text(out: Console, text: Text | str, indent: int = 2) -> None:
    """A sentence of any length: where it is too long for the terminal, it goes on below its beginning."""
    shown, left = _text(text), " " * indent
    for number, line in enumerate(shown.wrap(out, max(out.width - 2 * indent, 20), no_wrap=False)):
        line.rstrip()
        out.print(Text(left if number == 0 else left * 2).append_text(line))


def _text(cell: Text | str) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text(cell)


def messages_of(thing: AbstractComponent) -> list[MessageItem]:
    return (thing.meta and thing.meta.messages) or []


def phase_text(phase: object) -> Text:
    return Text(str(phase or "?"), style=_COLOURS.get(str(phase), ""))


def print_messages(out: Console, messages: Iterable[MessageItem], *, times: bool = False) -> None:
    """What the broker has to say, each message on a line of its own, worries and errors marked."""
    for item in messages:
        line = Text(f"{clock_time(item.time)}  " if times and item.time else "")
        if item.level in _LEVELS:
            line.append(f"{item.level} ", style=_LEVELS[item.level])
        print_text(out, line.append(item.message or item.template or item.kind or ""), 0 if times else 2)


def clock_time(moment: datetime, now: datetime | None = None) -> str:
    """In the local zone: the time, with the day where that is not today, and the year where it is another."""
    here = moment.astimezone()
    today = (now or datetime.now(UTC)).astimezone().date()
    if here.date() == today:
        return f"{here:%H:%M:%S}"
    return f"{here:%a %d %b %H:%M:%S}" if here.year == today.year else f"{here:%a %d %b %Y %H:%M:%S}"


def zone_name() -> str:
    return datetime.now(UTC).astimezone().tzname() or "local time"


def when(moment: datetime, now: datetime | None = None) -> str:
    """A time, and how far away it is: `14:05:00, in 20 min`."""
    now = now or datetime.now(UTC)
    away = moment - now
    relative = (
        "now" if abs(away) < timedelta(seconds=1) else f"in {_about(away)}" if away > timedelta(0) else f"{_about(-away)} ago"
    )
    return f"{clock_time(moment, now)}, {relative}"


def _about(span: timedelta) -> str:
    seconds = span.total_seconds()
    name, unit = next(((name, unit) for name, unit in _UNITS if seconds >= 0.95 * unit), _UNITS[-1])
    return f"{round(seconds / unit)} {name}"


def length(span: timedelta) -> str:
    """For people: `4 h`, `1 h 30 min`, `45 s`."""
    left, found = round(span.total_seconds()), []
    for name, unit in _UNITS:
        amount, left = divmod(left, unit)
        if amount:
            found.append(f"{amount} {name}")
    return " ".join(found) or "0 s"


def start_of(session: ScheduledExecutionSession) -> datetime | None:
    """When it is promised to start, at the latest."""
    available = session.schedule and session.schedule.available
    return available.start.end if available and available.start else None


def starts(session: ScheduledExecutionSession) -> str:
    """`14:05:00, in 20 min`, after `by` where it may be sooner."""
    available = session.schedule and session.schedule.available
    if not (available and available.start):
        return ""
    sooner = available.start.start < available.start.end
    return f"{'by ' if sooner else ''}{when(available.start.end)}"


def duration_of(session: ScheduledExecutionSession) -> timedelta | None:
    available = session.schedule and session.schedule.available
    return available.duration if available else None


def end_of(session: ScheduledExecutionSession) -> datetime | None:
    """When it is over, where it starts when it is promised to."""
    start, duration = start_of(session), duration_of(session)
    return start + duration if start and duration is not None else None
