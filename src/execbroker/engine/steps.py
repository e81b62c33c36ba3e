import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from uuid import UUID

import structlog

from execbroker.books.books import Books
from execbroker.engine.lifecycle import Call, Move, Verb, Wait, after_poll, step, too_late
from execbroker.engine.writing import RELEASE_TRIES, Writer
from execbroker.errors import BrokerError, PlatformFailure, Unreachable
from execbroker.faults import reach
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import SessionRow
from execbroker.lowering import folders_of, job_of
from execbroker.model.messages import MessageItem, message
from execbroker.model.phases import Phase
from execbroker.model.sessions import ExecutionRequest
from execbroker.model.waist import Job, Status
from execbroker.platforms.base import Platform
from execbroker.store import Store, Stream

VERB = 60  # seconds that a platform's verb may take before it counts as unreachable
log = structlog.get_logger()


class Steps:
    """The steps of a session: each calls a verb of its platform, and writes down what follows."""

    def __init__(self, ledger: Ledger, books: Books, platforms: Mapping[str, Platform], store: Store, writer: Writer) -> None:
        self._ledger, self._books, self._platforms = ledger, books, platforms
        self._store, self._writer = store, writer
        self._jobs: dict[UUID, Job] = {}

    async def advance(self, row: SessionRow) -> None:
        """Take steps until one has to wait."""
        following: SessionRow | None = row
        while following is not None:
            row = following
            assert row.slot is not None
            match step(row.phase, row.slot, self._writer.now()):
                case Wait(until):
                    await self._writer.again(row, until)
                    return
                case Move() as move:
                    following = await self._writer.move(row, move)
                case Call(verb):
                    following = await self._call(row, verb)

    async def _call(self, row: SessionRow, verb: Verb) -> SessionRow | None:
        """Call a verb and write down what follows; None where the session has to wait, or is no longer ours."""
        assert row.slot is not None
        if verb == "tidy":
            await self._tidy(row)
            return None
        if verb == "hasten":
            return await self._hasten(row)
        platform = self._platforms.get(row.slot.platform)
        if platform is None:
            await self._without_platform(row, verb)
            return None
        reach(f"{verb}.before")
        try:
            job = await self._job(row)
            async with asyncio.timeout(VERB):
                return await getattr(self, f"_{verb}")(row, platform, job)  # type: ignore[no-any-return]
        except (Unreachable, TimeoutError) as error:
            await self._writer.unreachable(row, str(error) or f"{verb} took more than {VERB} s")
        except PlatformFailure as error:
            return await self._writer.failed(row, "platform", str(error))
        except BrokerError:
            raise
        except Exception as error:
            log.exception("engine.verb_failed", verb=verb, session=str(row.uuid))
            return await self._writer.failed(row, "internal", f"{verb} failed in an unexpected way: {error}")
        return None

    async def _prepare(self, row: SessionRow, platform: Platform, job: Job) -> SessionRow | None:
        await asyncio.to_thread(self._store.make, row.uuid, [mount.source for mount in job.mounts])
        progress = await platform.prepare(job)
        reach("prepare.after")
        if progress.done:
            return await self._writer.move(row, Move(Phase.AVAILABLE), state=replace(row.state, doing="", unreachable_since=None))
        of = f" of {progress.total}" if progress.total else ""
        fetched = f", {progress.bytes}{of} bytes" if 0 < progress.bytes != progress.total else ""
        doing = progress.doing + fetched
        await self._writer.again(row, self._writer.now() + 1, state=replace(row.state, doing=doing, unreachable_since=None))
        return None

    async def _hasten(self, row: SessionRow) -> SessionRow | None:
        """Start a flexible session as soon as it is ready: what it needs it holds already."""
        assert row.slot is not None
        if hastened := await self._books.hasten(row):
            return hastened
        await self._writer.again(row, row.slot.start)
        return None

    async def _start(self, row: SessionRow, platform: Platform, job: Job) -> SessionRow | None:
        await platform.start(job)
        reach("start.after")
        assert row.slot is not None
        state = replace(row.state, started=self._writer.now(), told=row.slot.end, unreachable_since=None)
        return await self._writer.move(row, Move(Phase.RUNNING), state=state)

    async def _adopt(self, row: SessionRow, platform: Platform, job: Job) -> SessionRow | None:
        """Its time is over, and whether it was started was never written down: the platform knows."""
        if not await self._was_started(platform, job):
            return await self._writer.move(row, too_late())
        state = replace(row.state, started=self._writer.now(), unreachable_since=None)
        return await self._writer.move(row, Move(Phase.RUNNING), state=state)

    async def _was_started(self, platform: Platform, job: Job) -> bool:
        return (await platform.poll([job])).get(job.uuid, Status("unknown")).state != "unknown"

    async def poll(self, name: str, rows: list[SessionRow]) -> None:
        """Look at all that runs on one platform in one call."""
        platform = self._platforms.get(name)
        if platform is None:
            for row in rows:
                await self._without_platform(row, "poll")
            return
        reach("poll.before")
        jobs = {row.uuid: job for row in rows if (job := await self._job_or_fail(row))}
        rows = [row for row in rows if row.uuid in jobs]
        try:
            async with asyncio.timeout(VERB):
                await asyncio.gather(*(self._tell_end(row, platform, jobs[row.uuid]) for row in rows))
                statuses = await platform.poll(jobs.values())
        except Exception as error:
            if not isinstance(error, Unreachable | TimeoutError):
                log.exception("engine.poll_failed", platform=name)
            for row in rows:
                await self._writer.unreachable(row, str(error) or type(error).__name__)
            return
        reach("poll.after")
        unknown = Status("unknown")
        await asyncio.gather(*(self._after_poll(row, jobs[row.uuid], platform, statuses.get(row.uuid, unknown)) for row in rows))

    async def _tell_end(self, row: SessionRow, platform: Platform, job: Job) -> None:
        """Where the session was made longer or shorter, the platform has to know before its time is over."""
        assert row.slot is not None
        if row.state.told in (None, row.slot.end):
            return
        try:
            await platform.extend(job)
        except PlatformFailure as error:
            log.warning("platform.extend_failed", session=str(row.uuid), error=str(error))

    async def _job_or_fail(self, row: SessionRow) -> Job | None:
        """One that can no longer be understood, its kind uninstalled say, must not stand in the way of the others."""
        try:
            return await self._job(row)
        except Exception as error:
            log.exception("engine.job_failed", session=str(row.uuid))
            await self._writer.failed(row, "internal", f"It cannot be understood any more: {error}")
            return None

    async def _after_poll(self, row: SessionRow, job: Job, platform: Platform, status: Status) -> None:
        assert row.slot is not None
        try:
            async with asyncio.timeout(VERB):
                await self._copy_output(platform, job)
        except Exception:  # what cannot be copied now is copied later, at release at the latest
            log.exception("engine.output_failed", session=str(row.uuid))
        connectors = tuple(asdict(one) for one in status.connectors)
        told = row.slot.end if row.state.told else None
        state = replace(row.state, connectors=connectors, told=told, unreachable_since=None)
        move = after_poll(status, row.slot, self._writer.now())
        if move is None:
            interval = int(platform.settings.poll.total_seconds())
            now = self._writer.now()
            await self._writer.again(row, min(now + max(interval, 1), max(row.slot.end, now + 1)), state=state)
        elif following := await self._writer.move(row, move, state=state):
            await self.advance(following)

    async def _copy_output(self, platform: Platform, job: Job) -> None:
        """Bring what the session wrote since the last time to the broker's disk, where it is read."""
        for stream in ("stdout", "stderr"):
            await self._copy_stream(platform, job, stream)

    async def _copy_stream(self, platform: Platform, job: Job, stream: Stream) -> None:
        offset = await asyncio.to_thread(self._store.output_size, job.uuid, stream)
        while content := await platform.output(job, stream, offset):
            if not await asyncio.to_thread(self._store.append_output, job.uuid, stream, offset, content):
                return
            offset += len(content)

    async def _release(self, row: SessionRow, platform: Platform, job: Job) -> SessionRow | None:
        if row.state.started is None and await self._was_started(platform, job):
            return await self._writer.move(row, Move(Phase.RELEASING), state=replace(row.state, started=self._writer.now()))
        said = await self._last_output(row, platform, job) if row.state.started is not None else ()
        if not await platform.release(job):
            await self._writer.again(row, self._writer.now() + 1)
            return None
        reach("release.after")
        await asyncio.to_thread(self._store.remove, row.uuid, "staging")
        finished = tuple({**one, "status": "FINISHED"} for one in row.state.connectors)
        await self._writer.end(row, said, replace(row.state, connectors=finished, ended=self._writer.now()))
        self._jobs.pop(row.uuid, None)
        return None

    async def _last_output(self, row: SessionRow, platform: Platform, job: Job) -> tuple[MessageItem, ...]:
        """Copy the rest of the output; where the disk does not take it, the last tries are for the release alone."""
        try:
            await self._copy_output(platform, job)
        except OSError as error:
            if row.state.failures < RELEASE_TRIES // 2:
                raise
            return (message("WARN", "output-lost", "Its output could not be kept: {text}", text=error),)
        return ()

    async def _tidy(self, row: SessionRow) -> None:
        """Delete the storage of an ended session whose lifetime is over."""
        assert row.slot is not None
        now = self._writer.now()
        folders = list(folders_of(await self._request(row)).values())[: len(row.slot.storages)]
        over = [folder for folder, (_, until) in zip(folders, row.slot.storages, strict=True) if until <= now]
        if over:
            await asyncio.to_thread(self._store.remove, row.uuid, *over)
        due = min((until for _, until in row.slot.storages if until > now), default=None)
        if due is None:
            await self._books.let_go(row.uuid)
        await self._writer.again(row, due, state=replace(row.state, tidied=now))

    async def _without_platform(self, row: SessionRow, verb: Verb) -> None:
        """What runs there still does, and holds what it holds: nothing is known of it until the platform is named again."""
        assert row.slot is not None
        if verb == "release" and row.state.started is None:
            await self._writer.end(row, (), replace(row.state, ended=self._writer.now()))
        else:
            await self._writer.unreachable(row, f"{row.slot.platform} is not in the configuration any more")

    async def _request(self, row: SessionRow) -> ExecutionRequest:
        offerset = await self._ledger.offerset(row.offerset)
        assert offerset is not None
        return ExecutionRequest.model_validate_json(offerset.request)

    async def _job(self, row: SessionRow) -> Job:
        assert row.slot is not None
        known = self._jobs.get(row.uuid)
        if known is None or known.end.timestamp() != row.slot.end or known.start.timestamp() != row.slot.start:
            known = self._jobs[row.uuid] = job_of(row, await self._request(row), self._store.folder(row.uuid))
        return known
