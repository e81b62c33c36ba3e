import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from execbroker.platforms.supervisor.folder import is_locked, last_line
from execbroker.platforms.supervisor.processes import boot_id


@dataclass(frozen=True, slots=True)
class Seen:
    """What a session's `run` folder tells of it."""

    state: Literal["running", "ended", "unknown"]
    ports: tuple[int, ...] = ()
    end: dict[str, Any] = field(default_factory=dict)


def look(run: Path) -> Seen:
    """The lock first: whoever lets go of it has written the end."""
    alive = is_locked(run)
    started = read(run / "started")
    ports = tuple(read(run / "ports") or ())
    if end := read(run / "status"):
        return Seen("ended", ports, end)
    if alive:
        return Seen("running", ports)
    if not started:
        return Seen("unknown")
    return Seen("ended", ports, {"complaint": _lost(run, started), "exit_code": None, "on_time_limit": False, "warnings": []})


def _lost(run: Path, started: dict[str, Any]) -> str:
    if started["boot"] != boot_id():
        return "its supervisor was lost: the machine was restarted while the session ran"
    log = run / "supervisor.log"
    why = last_line(log) if log.exists() and log.stat().st_size else "it was killed"
    return f"its supervisor was lost, and the session with it: {why}"


def read(file: Path) -> Any:
    """The JSON in a file; None where it is not there, blank, or (after a loss of power) torn."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def read_from(file: Path, offset: int, size: int) -> bytes:
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)
    except FileNotFoundError:
        return b""


def remove_tree(folder: Path) -> None:
    """Remove a folder in which a program may have taken its own rights away. Raises OSError."""
    for here, folders, _ in os.walk(folder):
        for name in folders:
            if not (path := Path(here, name)).is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder)
