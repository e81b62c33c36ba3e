import time
from codecs import getincrementaldecoder
from contextlib import aclosing, nullcontext, suppress
from datetime import UTC, datetime
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from execbroker.cli.tables import clock_time, messages_of, phase_text, print_messages, start_of, starts
from execbroker.client import AsyncClient, ClientError
from execbroker.model.messages import MessageItem
from execbroker.model.phases import Phase
from execbroker.model.sessions import ScheduledExecutionSession

EVERY = 1.0
PROGRESS = "urn:execbroker:message:progress"
PROGRESS_EVERY = 10.0
_SPEAKS = {Phase.RUNNING, Phase.RELEASING, Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED}
_WAITS = {Phase.ACCEPTED, Phase.WAITING, Phase.AVAILABLE}


class Lines:
    """The lines of an output stream, which comes in pieces that may end anywhere."""

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self.name: Literal["stdout", "stderr"] = name
        self.offset = 0
        self._decoder = getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    async def more(self, client: AsyncClient, uuid: str, *, last: bool) -> list[str]:
        """The lines that are new; with `last` also one that has no end."""
        content = await client.output(uuid, self.name, self.offset)
        self.offset += len(content)
        *lines, self._rest = (self._rest + self._decoder.decode(content, final=last)).split("\n")
        return [*lines, self._rest] if last and self._rest else lines


class View:
    """A session as a person follows it: what happened, line by line, and in a terminal what goes on below it."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self._session: ScheduledExecutionSession | None = None
        self._since = self._said = time.monotonic()
        self._doing = ""
        self._messages = 0
        self._connectors: set[str] = set()
        self._spinner = Spinner("dots", style="cyan")

    def __rich__(self) -> Spinner:
        phase = self._session.phase if self._session else None
        elapsed = int(time.monotonic() - self._since)
        line = Text.assemble(phase_text(phase), f" {elapsed // 60}:{elapsed % 60:02d}  ", (self._now_doing(), "dim"))
        line.truncate(max(self.out.width - 3, 20), overflow="ellipsis")
        self._spinner.update(text=line)
        return self._spinner

    def _now_doing(self) -> str:
        start = start_of(self._session) if self._session else None
        if self._session and self._session.phase in _WAITS and start and start > datetime.now(UTC):
            return f"starts {starts(self._session)}"
        return self._doing

    def show(self, session: ScheduledExecutionSession) -> None:
        """What is new since the last time."""
        if self._session is None or session.phase is not self._session.phase:
            self._since = time.monotonic()
            self._doing = ""
            self._session = session
            line = Text(f"{clock_time(datetime.now(UTC))}  ").append_text(phase_text(session.phase))
            line.append(f"  {self._now_doing()}", "dim").rstrip()
            self.out.print(line)
        self._session = session
        messages = messages_of(session)
        self._show_progress(next((item.message for item in messages if item.kind == PROGRESS), None) or "")
        self._show_messages([item for item in messages if item.kind != PROGRESS])
        self._show_connectors(session)

    def _show_progress(self, doing: str) -> None:
        """In a terminal the line at the bottom says it; elsewhere it is said from time to time."""
        due = not self._doing or time.monotonic() - self._said >= PROGRESS_EVERY
        if doing and doing != self._doing and due and not self.out.is_terminal:
            self.out.print(f"  {doing}")
            self._said = time.monotonic()
        if self.out.is_terminal or due:
            self._doing = doing

    def _show_messages(self, messages: list[MessageItem]) -> None:
        print_messages(self.out, messages[self._messages :])
        self._messages = len(messages)

    def _show_connectors(self, session: ScheduledExecutionSession) -> None:
        for connector in session.connectors or []:
            where = connector.location or ""
            output = (connector.kind or "").endswith((":stdout", ":stderr"))
            if connector.status == "AVAILABLE" and not output and where not in self._connectors:
                self._connectors.add(where)
                self.out.print(Text("  open  ").append(where, style="bold cyan"))

    def write(self, stream: str, line: str) -> None:
        """A line that the session wrote."""
        text = Text.from_ansi(line) if self.out.is_terminal else Text(line)
        if stream == "stderr":
            text.stylize("dim")
        self.out.print(Text("  │ ", style="dim").append_text(text))


async def follow_to_end(client: AsyncClient, uuid: str, out: Console) -> ScheduledExecutionSession:
    """Show a session as it goes, its output included, and return it as it ended."""
    view = View(out)
    streams = Lines("stdout"), Lines("stderr")
    live = Live(view, console=out, transient=True, refresh_per_second=8) if out.is_terminal else nullcontext()
    with live:
        async with aclosing(client.follow(uuid, every=EVERY)) as sessions:
            async for session in sessions:
                if session.phase is Phase.RUNNING:
                    view.show(session)
                await _write_output(client, uuid, view, streams, session.phase)
                view.show(session)
    return session


async def _write_output(client: AsyncClient, uuid: str, view: View, streams: tuple[Lines, ...], phase: Phase | None) -> None:
    if phase not in _SPEAKS:
        return
    for stream in streams:
        with suppress(ClientError):  # the broker may be away for a moment; the next time brings it all
            for line in await stream.more(client, uuid, last=phase.is_final):
                view.write(stream.name, line)
