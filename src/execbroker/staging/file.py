import asyncio
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

from execbroker.model.messages import MessageItem, reason
from execbroker.staging.base import DataSettings, Fetcher, Forbidden, Found, Interrupted, Missing, Stream

BLOCK = 1 << 20


class FileFetcher(Fetcher):
    """Files of the broker's own machine, below the folders that the setting `data.folders` names."""

    schemes = ("file",)

    def __init__(self, settings: DataSettings) -> None:
        super().__init__(settings)
        self._folders = [Path(os.path.realpath(folder)) for folder in settings.folders]

    def reasons_against(self, url: str, path: str) -> list[MessageItem]:
        try:
            place = Path(os.path.normpath(self._path(url)))
            if not any(place.is_relative_to(folder) for folder in (*self.settings.folders, *self._folders)):
                raise Forbidden(self._outside())
        except Forbidden as error:
            return [reason("forbidden-url", path, "{url} at {path} cannot be fetched: {why}", url=url, why=error)]
        return []

    async def probe(self, url: str) -> Found:
        async with self._opened(url) as file:
            return Found(os.fstat(file.fileno()).st_size)

    @asynccontextmanager
    async def open(self, url: str, offset: int = 0, version: str | None = None) -> AsyncIterator[Stream]:
        async with self._opened(url) as file:
            status = os.fstat(file.fileno())
            found = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
            start = file.seek(offset if version == found and offset <= status.st_size else 0)
            yield Stream(start, status.st_size, found, _blocks(file))

    @asynccontextmanager
    async def _opened(self, url: str) -> AsyncIterator[FileIO]:
        # Whoever gives up does not wait for a file system that hangs; a file that opens after that is closed.
        opening = asyncio.ensure_future(asyncio.to_thread(self._open, url))
        try:
            file = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise
        with file:
            yield file

    def _path(self, url: str) -> str:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise Forbidden(f"it is not a URL ({error})") from error
        if parts.netloc not in ("", "localhost"):
            raise Forbidden(f"it names the host {parts.netloc}; only files of the broker's own machine can be read (file:///…)")
        if parts.query or parts.fragment:
            raise Forbidden("in a file: URL ? is written %3F and # is written %23")
        path = unquote(parts.path)
        if not path.startswith("/") or "\0" in path:
            raise Forbidden("a file: URL needs an absolute path, as in file:///data/image.fits")
        return path

    def _open(self, url: str) -> FileIO:
        """Raises Forbidden, Missing, Interrupted."""
        try:
            return self._open_below(Path(os.path.realpath(self._path(url), strict=True)))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Missing("there is no such file") from error
        except PermissionError as error:
            raise Forbidden("the broker is not permitted to read it") from error
        except OSError as error:
            raise Interrupted(f"it cannot be opened ({error.strerror})") from error

    def _open_below(self, real: Path) -> FileIO:
        # O_PATH touches nothing, not even a device or a fifo; what is then opened is exactly what was checked,
        # whoever exchanges folders for links meanwhile.
        handle = os.open(real, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            here = Path(f"/proc/self/fd/{handle}")
            self._check_below(here.readlink())
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                what = "a directory; name a file in it" if stat.S_ISDIR(mode) else "no regular file"
                raise Forbidden(f"it is {what}")
            return FileIO(os.open(here, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        finally:
            os.close(handle)

    def _check_below(self, path: Path) -> None:
        if not any(path.is_relative_to(folder) for folder in self._folders):
            raise Forbidden(self._outside())

    def _outside(self) -> str:
        if not self.settings.folders:
            return "no folder is open to file: URLs here (data.folders is empty)"
        return f"it is not below {' or '.join(map(str, self.settings.folders))} (data.folders)"


def _close(opening: asyncio.Future[FileIO]) -> None:
    if not opening.cancelled() and not opening.exception():
        opening.result().close()


async def _blocks(file: FileIO) -> AsyncGenerator[bytes, None]:
    try:
        while block := await asyncio.to_thread(file.read, BLOCK):
            yield block
    except OSError as error:
        raise Interrupted(f"it cannot be read ({error.strerror})") from error
