import fcntl
import os
import time
from pathlib import Path

STATUS_SIZE = 4096


def write_whole(path: Path, text: str) -> None:
    """Write a file of mode 0600 so that, whatever dies when, all of it is there or nothing."""
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    draft.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_locked(run: Path) -> bool:
    """Whether a supervisor lives in this folder."""
    try:
        fd = os.open(run / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def take_lock(run: Path, patience: float = 2) -> int | None:
    """The lock of this folder, as an open file; None where a supervisor has it or the folder is gone."""
    try:
        fd = os.open(run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until or (run / "started").exists():
                os.close(fd)
                return None
            time.sleep(0.01)  # whoever only looks at the lock holds it for an instant
        else:
            return fd


def reserve_status(run: Path) -> int:
    """The status file, blank and at its full size, so that the end can be told on a full disk."""
    fd = os.open(run / "status", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.pwrite(fd, b" " * STATUS_SIZE, 0)
    os.fsync(fd)
    return fd


def last_line(path: Path) -> str:
    lines = path.read_bytes()[-1000:].decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no reason was given")
