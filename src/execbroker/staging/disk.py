import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def on_disk(work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Do work in a thread, and be over only when it is over: after a cancellation no file is written any more."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def check_relative(path: str) -> None:
    """Raises ValueError where `path` does not lie below the folder that it is meant for."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f"{path!r} is not a path below the session's folder, such as data/image.fits")


def open_folder(root: Path, *names: str) -> int:
    """A descriptor of the folder `names` below `root`, made where it is not there (mode 0700), never through a link.

    Raises OSError.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(root, os.O_DIRECTORY | os.O_CLOEXEC)
    for name in names:
        try:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=handle)
            below = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
        finally:
            os.close(handle)
        handle = below
    return handle


def move(file: Path, root: Path, path: str) -> None:
    """Rename `file` to `path` below `root`, replacing what is there; it survives a loss of power. Raises OSError."""
    *folders, name = PurePosixPath(path).parts
    handle = open_folder(root, *folders)
    try:
        os.rename(file, name, dst_dir_fd=handle)
        os.fsync(handle)
    finally:
        os.close(handle)


def write(file: Path, data: bytes) -> None:
    """Write a whole file for its owner alone (mode 0600), in one step as seen from outside. Raises OSError."""
    _write_new(fresh := file.with_name(f"{file.name}.new"), data)
    fresh.rename(file)


def write_below(root: Path, path: str, data: bytes, fresh: Path) -> None:
    """Write the file `path` below `root` by way of `fresh`, unless it is there already. Raises OSError."""
    if not os.path.lexists(root / path):
        _write_new(fresh, data)
        move(fresh, root, path)


def _write_new(file: Path, data: bytes) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(handle)
