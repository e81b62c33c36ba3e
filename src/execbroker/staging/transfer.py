import asyncio
import errno
import hashlib
import json
import os
import random
import time
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from urllib.parse import urlsplit

from execbroker.errors import PlatformFailure
from execbroker.model.waist import Source
from execbroker.staging import disk
from execbroker.staging.base import Fetcher, Forbidden, Interrupted, Missing, Stream
from execbroker.staging.checksums import checksum_of, read_checksum
from execbroker.staging.disk import on_disk
from execbroker.staging.guard import shown
from execbroker.staging.rates import Rates

BLOCK = 1 << 20
LEAST = 64 << 10
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a transfer is worth trying. Waits are in seconds and double from try to try, with jitter."""

    tries: int = 5
    """So many in a row that come no megabyte further."""
    first_wait: float = 0.5
    longest_wait: float = 60
    """What a server asks for in `Retry-After` is cut to this."""
    stall: float = 60
    """A try that brings less than 64 KiB in this time is given up."""

    def wait(self, tries: int, after: float | None) -> float:
        wait = self.first_wait * 2.0 ** (tries - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter is no secret
        return min(max(wait, after or 0), self.longest_wait)


@dataclass(slots=True)
class Record:
    """What the bytes on disk are: of which `url`, in which `version`, of how many in `total`, and whether `complete`."""

    url: str
    version: str | None = None
    total: int | None = None
    complete: bool = False


def differ(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


def origin(url: str) -> str:
    """Whose speed a transfer shows: scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


class Transfer:
    """One source on its way to `path` below `root`.

    Until it is whole and verified it lies in the folder `staging` below `root`, with a record of what it is, so that it
    can be resumed by another process: the record is on disk before the bytes that it speaks of, and says `complete`
    before the file is moved to its place. `received` counts the bytes of `total` that are here.
    """

    def __init__(self, source: Source, root: Path, path: str, *, limit: int | None, mode: int) -> None:
        self.source, self.path = source, path
        self.received, self.total = 0, source.size
        self.active = self.done = False
        self._root, self._limit, self._mode = root, limit, mode
        stem = root / "staging" / hashlib.sha256(path.encode()).hexdigest()[:32]
        self._part, self._sidecar = stem.with_suffix(".part"), stem.with_suffix(".json")
        self._resumed = False

    async def run(self, fetcher: Fetcher, slots: asyncio.Semaphore, rates: Rates, patience: Patience) -> None:
        """Fetch until the file is in its place. Raises PlatformFailure."""
        try:
            await self._insist(fetcher, slots, rates, patience)
        except OSError as error:
            why = "the broker's disk is full" if error.errno in FULL else error.strerror
            raise PlatformFailure(f"{shown(self.source.url)} could not be stored at {self.path}: {why}") from error

    async def _insist(self, fetcher: Fetcher, slots: asyncio.Semaphore, rates: Rates, patience: Patience) -> None:
        tries = furthest = 0
        while not await on_disk(self._settled):
            try:
                async with slots:
                    await self._try(fetcher, rates, patience.stall)
            except (Forbidden, Missing) as error:
                raise self._failure(str(error)) from error
            except Interrupted as error:
                tries = 1 if self.received > furthest + BLOCK else tries + 1
                furthest = max(furthest, self.received)
                if tries >= patience.tries:
                    raise self._failure(f"{error}; tried {tries} times without getting further") from error
                await asyncio.sleep(patience.wait(tries, error.after))

    async def _try(self, fetcher: Fetcher, rates: Rates, stall: float) -> None:
        self.active = True
        try:
            record = await on_disk(self._begin)
            if record.total is None or self.received != record.total:
                await self._fetch(fetcher, rates, stall, record)
            await self._verify()
            await on_disk(self._complete)
        finally:
            self.active = False

    def _failure(self, why: str) -> PlatformFailure:
        return PlatformFailure(f"{shown(self.source.url)} could not be fetched: {why}")

    def _load(self) -> Record:
        with suppress(OSError, ValueError, TypeError):
            record = Record(**json.loads(self._sidecar.read_bytes()))
            if record.url == self.source.url:
                return record
        return Record(self.source.url)

    def _save(self, record: Record) -> None:
        disk.write(self._sidecar, json.dumps(asdict(record)).encode())

    def _settled(self) -> bool:
        """Whether the file is in its place, which it takes if all but that was done."""
        record = self._load()
        if not record.complete:
            return False
        if self._part.exists():
            self._part.chmod(self._mode)
            disk.move(self._part, self._root, self.path)
        self.done = os.path.lexists(self._root / self.path)
        self.received = self.total = record.total or 0
        return self.done

    def _begin(self) -> Record:
        """What is here already and can be gone on with."""
        os.close(disk.open_folder(self._root, "staging"))
        if not self._part.exists():
            self.received = 0
            return Record(self.source.url)
        self.received = self._part.stat().st_size
        self._resumed = self.received > 0
        return self._load()

    async def _fetch(self, fetcher: Fetcher, rates: Rates, stall: float, record: Record) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(stall) as patience, fetcher.open(self.source.url, self.received, record.version) as stream:
                rates.note(f"answer {origin(self.source.url)}", time.monotonic() - began)
                with FileIO(self._part, "r+", opener=_open_private) as file:
                    await on_disk(self._accept, stream, record, file)
                    began, start = time.monotonic(), self.received
                    await self._copy(stream, file, patience, stall)
        except TimeoutError as error:
            raise Interrupted(f"less than {LEAST >> 10} KiB came within {stall:g} s") from error
        if self.received - start >= BLOCK:
            rates.note(origin(self.source.url), time.monotonic() - began, self.received - start)

    def _accept(self, stream: Stream, record: Record, file: FileIO) -> None:
        """Make the part ready for what the stream brings."""
        other = (stream.offset, stream.version) != (self.received, record.version) or differ(stream.total, record.total)
        if stream.offset and other:
            self.discard()
            raise Interrupted("what is there is not what it was before")
        self._check_limits(stream.total or 0, stream.total)
        self._resumed = stream.offset > 0
        if not self._resumed:
            # The old bytes go before the record of the new ones comes: they never stand beside each other.
            file.truncate(0)
            os.fsync(file.fileno())
            self._save(Record(self.source.url, stream.version, stream.total))
        self.received, self.total = file.seek(stream.offset), stream.total if stream.total is not None else self.source.size

    async def _copy(self, stream: Stream, file: FileIO, patience: asyncio.Timeout, stall: float) -> None:
        buffer, mark = bytearray(), self.received
        try:
            async with aclosing(stream.chunks):
                async for chunk in stream.chunks:
                    buffer += chunk
                    self.received += len(chunk)
                    self._check_limits(self.received, None)
                    if self.received - mark >= LEAST:
                        mark = self.received
                        patience.reschedule(asyncio.get_running_loop().time() + stall)
                    if len(buffer) >= BLOCK:
                        await on_disk(_write_all, file, bytes(buffer))
                        buffer.clear()
        finally:
            await on_disk(_write_all, file, bytes(buffer))
        if stream.total not in (None, self.received):
            raise Interrupted(f"it ended after {self.received} of {stream.total} bytes")
        await on_disk(os.fsync, file.fileno())

    def _check_limits(self, size: int, total: int | None) -> None:
        declared = self.source.size
        if self._limit is not None and size > self._limit:
            raise self._failure(f"it is larger than the {self._limit} bytes allowed here (data.max_size)")
        if declared is not None and (size > declared or total not in (None, declared)):
            found = f"{total} bytes" if total is not None else "more"
            raise self._failure(f"its size was given as {declared} bytes, and it has {found}")

    async def _verify(self) -> None:
        """Raises PlatformFailure; Interrupted where the bytes came in several tries, one of which may be to blame."""
        why = None
        if self.source.size not in (None, self.received):
            why = f"its size was given as {self.source.size} bytes, and it has {self.received}"
        elif self.source.checksum:
            algorithm, expected = read_checksum(self.source.checksum)
            if (found := await checksum_of(self._part, algorithm)) != expected:
                why = f"its {algorithm} was given as {expected}, and it is {found}"
        if why and self._resumed:
            await on_disk(self.discard)
            raise Interrupted(why)
        if why:
            raise self._failure(why)

    def _complete(self) -> None:
        self._save(Record(self.source.url, self._load().version, self.received, complete=True))

    def discard(self) -> None:
        """Leave nothing half-fetched behind. Raises OSError."""
        self._sidecar.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
