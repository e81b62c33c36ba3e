import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

from execbroker.errors import NotFound

Stream = Literal["stdout", "stderr"]
SHOWN = ("home", "storage")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder among the results: `path` relative to the session's files, `size` in bytes, `modified` in seconds."""

    path: str
    folder: bool
    size: int
    modified: int


class Store:
    """What sessions leave on the broker's disk: a folder each, with `home`, `storage/<name>`, `stdout` and `stderr`."""

    def __init__(self, root: Path, output_limit: int) -> None:
        self._root, self._output_limit = root, output_limit

    def folder(self, session: UUID) -> Path:
        return self._root / str(session)

    def make(self, session: UUID, storages: Iterable[str]) -> None:
        """The session's folders, for the broker's own eyes."""
        for part in ("home", *storages):
            (self.folder(session) / part).mkdir(parents=True, exist_ok=True, mode=0o700)

    def output_size(self, session: UUID, stream: Stream) -> int:
        path = self.folder(session) / stream
        return path.stat().st_size if path.exists() else 0

    def append_output(self, session: UUID, stream: Stream, offset: int, content: bytes) -> bool:
        """Keep what the session wrote from `offset` on, again if need be; False once no more is kept."""
        content = content[: max(self._output_limit - offset, 0)]
        descriptor = os.open(self.folder(session) / stream, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while content:
                written = os.pwrite(descriptor, content, offset)
                content, offset = content[written:], offset + written
        finally:
            os.close(descriptor)
        return offset < self._output_limit

    def read_output(self, session: UUID, stream: Stream, offset: int, end: int | None = None) -> bytes:
        """The bytes of `stream` from `offset` until before `end`."""
        path = self.folder(session) / stream
        if not path.exists():
            return b""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(-1 if end is None else max(end - offset, 0))

    def find(self, session: UUID, path: str) -> Path:
        """The file or folder at `path` among the session's results. Raises NotFound, also for whatever is not among them."""
        folder = self.folder(session)
        parts = [part for part in path.split("/") if part]
        if "\0" in path or ".." in parts:
            raise NotFound(f"There is no file {path!r}")
        real = Path(os.path.realpath(folder.joinpath(*parts)))
        allowed = [Path(os.path.realpath(folder)) / name for name in SHOWN]
        if parts and not (any(real.is_relative_to(place) for place in allowed) and (real.is_file() or real.is_dir())):
            raise NotFound(f"There is no file {path!r}")
        return real

    def open(self, session: UUID, path: str) -> int | None:
        """The file at `path`, open for reading; None for a folder. Raises NotFound."""
        real = self.find(session, path)
        if real.is_dir() or not path.strip("/"):
            return None
        try:
            descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            raise NotFound(f"There is no file {path!r}") from None
        if Path(f"/proc/self/fd/{descriptor}").readlink() == real and stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise NotFound(f"There is no file {path!r}")

    def entries(self, session: UUID, path: str = "", *, deep: bool = False) -> list[Entry]:
        """What is in the folder `path`, hidden names left out; with `deep`, every file below it. Raises NotFound."""
        real = self.find(session, path)
        if real.is_file():
            return [entry for entry in [_entry(real, path.strip("/"))] if entry]
        return list(self._walk(real, path.strip("/"), deep=deep))

    def _walk(self, real: Path, path: str, *, deep: bool) -> Iterator[Entry]:
        folders = [(real, path)]
        while folders:
            for item, below in _content(*folders.pop()):
                if deep and item.is_dir():
                    folders.append((item, below))
                elif entry := _entry(item, below):
                    yield entry
            folders.sort(key=lambda folder: folder[1], reverse=True)

    def remove(self, session: UUID, *parts: str) -> None:
        """Delete these parts of the session's folder, or all of it.

        By `rm`, which a session cannot defeat by folders nested deeper than Python recurses, or by their rights.
        """
        for path in [self.folder(session) / part for part in parts] or [self.folder(session)]:
            if path.is_dir() and not path.is_symlink():
                for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
                    subprocess.run([*command, "--", str(path)], stderr=subprocess.DEVNULL, check=False)  # noqa: S603 -- no shell


def _content(folder: Path, path: str) -> list[tuple[Path, str]]:
    """What is in a folder, by name; nothing where the session took it, or the right to read it, away while it was listed."""
    try:
        names = sorted(item.name for item in folder.iterdir()) if path else SHOWN
    except OSError:
        return []
    found = [(folder / name, f"{path}/{name}".lstrip("/")) for name in names if not name.startswith(".")]
    return [(item, below) for item, below in found if _entry(item, below)]


def _entry(item: Path, path: str) -> Entry | None:
    """None for what is neither a folder nor a file, or cannot be looked at: a link, a pipe, a path too long."""
    try:
        about = item.lstat()
    except OSError:
        return None
    folder = stat.S_ISDIR(about.st_mode)
    if not folder and not stat.S_ISREG(about.st_mode):
        return None
    return Entry(path, folder, 0 if folder else about.st_size, int(about.st_mtime))
