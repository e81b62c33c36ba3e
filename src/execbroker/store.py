import os
import shutil
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

    def entries(self, session: UUID, path: str = "", *, deep: bool = False) -> list[Entry]:
        """What is in the folder `path`, hidden names left out; with `deep`, every file below it. Raises NotFound."""
        real = self.find(session, path)
        if real.is_file():
            return [_entry(real, path.strip("/"))]
        return list(self._walk(real, path.strip("/"), deep=deep))

    def _walk(self, real: Path, path: str, *, deep: bool) -> Iterator[Entry]:
        names = sorted(SHOWN if not path else (item.name for item in real.iterdir()))
        for name in names:
            item, below = real / name, f"{path}/{name}".lstrip("/")
            if name.startswith(".") or item.is_symlink() or not item.exists():
                continue
            if not (deep and item.is_dir()):
                yield _entry(item, below)
            else:
                yield from self._walk(item, below, deep=True)

    def remove(self, session: UUID, *parts: str) -> None:
        """Delete these parts of the session's folder, or all of it."""
        for path in [self.folder(session) / part for part in parts] or [self.folder(session)]:
            shutil.rmtree(path, ignore_errors=True)


def _entry(item: Path, path: str) -> Entry:
    about = item.stat()
    return Entry(path, item.is_dir(), 0 if item.is_dir() else about.st_size, int(about.st_mtime))
