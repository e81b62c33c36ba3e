import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from uuid import UUID

from execbroker.errors import PlatformFailure
from execbroker.model.messages import MessageItem, reason, warning
from execbroker.model.times import Clock
from execbroker.model.waist import Job, Progress, Source
from execbroker.staging import disk
from execbroker.staging.base import DataSettings, Estimate, Fetcher, Found, Interrupted
from execbroker.staging.checksums import read_checksum
from execbroker.staging.disk import on_disk
from execbroker.staging.guard import scheme_of, shown
from execbroker.staging.probes import Outcome, Probes
from execbroker.staging.rates import Rates
from execbroker.staging.transfer import Patience, Transfer, origin

AT_ONCE = 4
WAIT = 0.5
USUAL_RATE = 10e6
USUAL_ANSWER = 0.2
UNKNOWN_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Staging:
    """A job's sources on their way."""

    transfers: tuple[Transfer, ...]
    task: asyncio.Task[None]

    def progress(self, done: bool) -> Progress:
        totals = [transfer.total for transfer in self.transfers]
        total = None if None in totals else sum(filter(None, totals))
        return Progress(done, sum(transfer.received for transfer in self.transfers), total, "" if done else self._doing())

    def _doing(self) -> str:
        missing = [transfer for transfer in self.transfers if not transfer.done]
        names = ", ".join(transfer.path.rpartition("/")[2] for transfer in missing if transfer.active)
        return f"fetching {names or 'data'} ({len(self.transfers) - len(missing)} of {len(self.transfers)} files are here)"


class Stager:
    """Brings sources to disk, by the fetcher of their scheme."""

    def __init__(
        self,
        fetchers: Mapping[str, Fetcher],
        settings: DataSettings,
        rates: Rates,
        clock: Clock,
        patience: Patience = Patience(),  # noqa: B008 - it is frozen
    ) -> None:
        self.rates = rates
        self._fetchers, self._settings, self._patience = fetchers, settings, patience
        self._probes = Probes(fetchers, clock)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._stagings: dict[UUID, Staging] = {}

    def reasons_against(self, source: Source, path: str) -> list[MessageItem]:
        """What forbids a source (of the field `path` of the request), as far as can be said without asking anyone."""
        against = []
        scheme = scheme_of(source.url)
        if fetcher := self._fetchers.get(scheme):
            against += fetcher.reasons_against(source.url, path)
        else:
            known = ", ".join(sorted(self._fetchers))
            template = "{url} at {path} cannot be fetched: only URLs of the schemes {known} can"
            against.append(reason("unknown-scheme", path, template, url=shown(source.url), known=known))
        against += self._too_large(source, source.size, path)
        try:
            disk.check_relative(source.path)
            if source.checksum is not None:
                read_checksum(source.checksum)
        except ValueError as error:
            against.append(reason("bad-source", path, "{url} at {path}: {why}", url=shown(source.url), why=error))
        return against

    async def estimate(self, sources: Iterable[tuple[str, Source]]) -> Estimate:
        """How long staging will take, within two seconds; each source with the path of the field it came from.

        Its reasons include those of `reasons_against`; what these forbid is not looked for.
        """
        asked = [(path, source, self.reasons_against(source, path)) for path, source in sources]
        if not asked:
            return Estimate()
        outcomes = await self._probes.look(source.url for _, source, against in asked if not against)
        parts = [
            Estimate(reasons=tuple(against)) if against else self._judge(source, path, outcomes[source.url])
            for path, source, against in asked
        ]
        return Estimate(
            sum(part.seconds for part in parts),
            tuple(chain.from_iterable(part.warnings for part in parts)),
            tuple(chain.from_iterable(part.reasons for part in parts)),
            sum(part.size for part in parts),
        )

    async def stage(self, job: Job) -> Progress:
        """Bring the job's sources and files into its folder; asked again until it is `done`, each time for half a second.

        `job.folder/staging` is the stager's own. Raises PlatformFailure, which names the URL and says why.
        """
        staging = self._stagings.get(job.uuid) or self._begin(job)
        await asyncio.wait({staging.task}, timeout=WAIT)
        if not staging.task.done():
            return staging.progress(False)
        if self._stagings.get(job.uuid) is staging:
            del self._stagings[job.uuid]
        if staging.task.cancelled():
            raise PlatformFailure("staging was called off")
        staging.task.result()
        return staging.progress(True)

    async def forget(self, uuid: UUID) -> None:
        """Stop staging this job; after that nothing of it is open. What was fetched so far stays, and can be gone on with."""
        if staging := self._stagings.pop(uuid, None):
            staging.task.cancel()
            await asyncio.gather(staging.task, return_exceptions=True)

    async def close(self) -> None:
        """Stop everything; what was fetched so far is gone on with after the next start."""
        for uuid in list(self._stagings):
            await self.forget(uuid)
        await self._probes.close()
        for fetcher in set(self._fetchers.values()):
            await fetcher.close()

    def _too_large(self, source: Source, size: int | None, path: str) -> list[MessageItem]:
        limit = self._settings.max_size
        if size is None or limit is None or size <= limit:
            return []
        template = "{url} at {path} has {size} bytes; files of up to {limit} bytes can be fetched"
        return [reason("too-large", path, template, url=shown(source.url), size=size, limit=limit)]

    def _judge(self, source: Source, path: str, outcome: Outcome) -> Estimate:
        url = shown(source.url)
        if isinstance(outcome, Interrupted):
            template = "{url} at {path} could not be looked at ({why}); fetching it is assumed to take {seconds} s"
            seconds = self._seconds(source.url, source.size)
            return Estimate(seconds, (warning("unprobed", path, template, url=url, why=outcome, seconds=round(seconds, 1)),))
        if not isinstance(outcome, Found):
            return Estimate(
                reasons=(reason("not-fetchable", path, "{url} at {path} cannot be fetched: {why}", url=url, why=outcome),)
            )
        if source.size is not None and outcome.size not in (None, source.size):
            template = "{url} at {path} was said to have {declared} bytes; it has {size}"
            return Estimate(reasons=(reason("wrong-size", path, template, url=url, declared=source.size, size=outcome.size),))
        if against := self._too_large(source, outcome.size, path):
            return Estimate(reasons=tuple(against))
        size = outcome.size if outcome.size is not None else source.size
        seconds = self._seconds(source.url, size)
        template = "the size of {url} at {path} is not known; fetching it is assumed to take {seconds} s"
        unsure = (warning("unknown-size", path, template, url=url, seconds=round(seconds, 1)),) if size is None else ()
        return Estimate(seconds, unsure, size=size or 0)

    def _seconds(self, url: str, size: int | None) -> float:
        whose = origin(url)
        answer = self.rates.seconds(f"answer {whose}") or USUAL_ANSWER
        return answer + (UNKNOWN_SECONDS if size is None else size / (self.rates.rate(whose) or USUAL_RATE))

    def _begin(self, job: Job) -> Staging:
        transfers = tuple(self._transfers(job))
        staging = Staging(transfers, asyncio.create_task(self._bring(job, transfers), name=f"stage {job.uuid}"))
        self._stagings[job.uuid] = staging
        return staging

    def _transfers(self, job: Job) -> Iterable[Transfer]:
        limit = self._settings.max_size
        for source in job.launch.sources:
            yield Transfer(source, job.folder, f"home/{source.path}", limit=limit, mode=0o600)
        for source in job.sources:
            yield Transfer(source, job.folder, source.path, limit=limit, mode=0o600 if _may_change(job, source.path) else 0o444)

    async def _bring(self, job: Job, transfers: Iterable[Transfer]) -> None:
        _check_paths([f"home/{path}" for path in job.launch.files] + [transfer.path for transfer in transfers])
        for transfer in transfers:
            if against := self.reasons_against(transfer.source, transfer.path):
                raise PlatformFailure(against[0].message)
        await on_disk(_write_files, job)
        try:
            async with asyncio.TaskGroup() as group:
                for transfer in transfers:
                    fetcher = self._fetchers[scheme_of(transfer.source.url)]
                    group.create_task(transfer.run(fetcher, self._slots, self.rates, self._patience))
        except ExceptionGroup as failures:
            for transfer in transfers:
                if not transfer.done:
                    await on_disk(transfer.discard)
            raise failures.exceptions[0] from None


def _may_change(job: Job, path: str) -> bool:
    """Whether some mount lets the session write to a file."""
    return any(not mount.readonly and f"{path}/".startswith(f"{mount.source}/") for mount in job.mounts)


def _check_paths(paths: list[str]) -> None:
    for path in paths:
        try:
            disk.check_relative(path)
        except ValueError as error:
            raise PlatformFailure(str(error)) from error
    for path, count in Counter(map(os.path.normpath, paths)).items():
        if count > 1:
            raise PlatformFailure(f"two files are to be staged to {path}; give one of them another name or place")


def _write_files(job: Job) -> None:
    try:
        for folder in ("staging", "home"):
            os.close(disk.open_folder(job.folder, folder))
        for path, text in job.launch.files.items():
            disk.write_below(job.folder, f"home/{path}", text.encode(), job.folder / "staging" / "file.new")
    except OSError as error:
        raise PlatformFailure(f"the session's folder cannot be written: {error.strerror}") from error
