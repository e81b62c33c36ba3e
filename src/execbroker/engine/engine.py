import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, TypeVar
from uuid import UUID, uuid4

import structlog
from sqlalchemy import update

from execbroker.books import Books
from execbroker.config import RetentionSettings
from execbroker.engine.lifecycle import Call, Move, Verb, Wait, after_poll, fail, step, too_late
from execbroker.errors import BrokerError, PlatformFailure, Unreachable
from execbroker.faults import reach
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import SessionRow, State
from execbroker.ledger.tables import sessions
from execbroker.ledger.transaction import Transaction
from execbroker.lowering import folders_of, job_of
from execbroker.model.messages import MessageItem, message
from execbroker.model.phases import Phase
from execbroker.model.sessions import ExecutionRequest
from execbroker.model.times import Clock
from execbroker.model.waist import Job, Status
from execbroker.platforms.base import Platform
from execbroker.store import Store, Stream

T = TypeVar("T")

LEASE = 90  # seconds; a verb is given VERB, so that no lease runs out under one that works
VERB = 60
AT_ONCE = 64
REFRESH = 60  # seconds between two looks at what the platforms have
HOUSEKEEPING = 3600
RELEASE_TRIES = 10
log = structlog.get_logger()


class Engine:
    """Leases the sessions that are due, takes the next step of each, writes it down, and gives the lease back.

    A restart is nothing special: whatever was under way is due, and every verb may be called again.
    """

    def __init__(
        self,
        ledger: Ledger,
        books: Books,
        platforms: Mapping[str, Platform],
        clock: Clock,
        store: Store,
        retention: RetentionSettings,
    ) -> None:
        self._ledger, self._books, self._platforms = ledger, books, platforms
        self._clock, self._store, self._retention = clock, store, retention
        self._tasks: dict[asyncio.Task[None], tuple[UUID, ...]] = {}
        self._jobs: dict[UUID, Job] = {}
        self._refreshed = self._cleaned = self._turned = 0
        self._stopping = False
        self._loop: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._ledger.break_leases()
        await self._refresh()

    def run(self) -> None:
        """Go on until `close`."""
        self._loop = asyncio.create_task(self._run(), name="engine")

    async def close(self) -> None:
        """Take no new step and finish those under way; sessions go on without the broker."""
        self._stopping = True
        self._ledger.changes.due.set()
        await asyncio.gather(*filter(None, [self._loop]), return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Do all that is due now, until nothing is: the loop without the waiting, for a clock that stands still."""
        while await self.turn() or self._tasks:
            await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        while not self._stopping:
            self._ledger.changes.due.clear()
            try:
                busy = await self.turn()
            except BrokerError as error:
                log.error("engine.ledger", error=error.detail)
                busy = False
            except Exception:  # whatever it is, the engine goes on: without it nothing would ever run again
                log.exception("engine.turn_failed")
                busy = False
            if not busy:
                await self._pause()

    async def _pause(self) -> None:
        """Until something becomes due or finishes; a second at most, so that a stepped clock is noticed."""
        waker = asyncio.create_task(self._ledger.changes.due.wait())
        await asyncio.wait({waker, *self._tasks}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        waker.cancel()

    async def turn(self) -> bool:
        """Begin whatever is due; False where nothing was."""
        now = self._now()
        if (expiry := self._books.next_expiry) is not None and expiry <= now:
            await self._books.expire()
        if abs(now - self._refreshed) >= REFRESH:
            self._refreshed = now
            self._begin(self._refresh())
        if abs(now - self._cleaned) >= HOUSEKEEPING:
            self._cleaned = now
            self._begin(self._guarded(self._clean(now)))
        if now < self._turned:
            await self._ledger.recall(now)
        self._turned = now
        room = AT_ONCE - len(self._tasks)
        due = await self._ledger.next_due() if room > 0 else None
        if due is None or due > now:
            return False
        under_way = {uuid for uuids in self._tasks.values() for uuid in uuids}  # a clock that jumps must not end their lease
        rows = await self._books.write(
            lambda transaction, _: self._ledger.lease(transaction, now, now + LEASE, str(uuid4()), room, under_way)
        )
        running = [row for row in rows if row.phase is Phase.RUNNING]
        for platform in {row.slot.platform for row in running if row.slot}:
            here = [row for row in running if row.slot and row.slot.platform == platform]
            self._begin(self._guarded(self._poll(platform, here), *here), *here)
        for row in rows:
            if row.phase is not Phase.RUNNING:
                self._begin(self._guarded(self._advance(row), row), row)
        return bool(rows)

    def _begin(self, work: Any, *rows: SessionRow) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = tuple(row.uuid for row in rows)
        task.add_done_callback(self._tasks.pop)

    async def _guarded(self, work: Awaitable[None], *rows: SessionRow) -> None:
        """A ledger that cannot be written, or a bug, costs this step, never the engine."""
        try:
            await work
            return
        except BrokerError as error:
            log.error("engine.step", sessions=[str(row.uuid) for row in rows], error=error.detail)
        except Exception:
            log.exception("engine.step_failed", sessions=[str(row.uuid) for row in rows])
        await asyncio.sleep(1)
        with suppress(BrokerError):  # the leases then end by themselves
            for row in rows:
                await self._leave_off(row)

    async def _advance(self, row: SessionRow) -> None:
        """Take steps until one has to wait."""
        now: int | None = None
        following: SessionRow | None = row
        while following is not None:
            row, now = following, self._now()
            assert row.slot is not None
            match step(row.phase, row.slot, now):
                case Wait(until):
                    await self._again(row, until)
                    return
                case Move() as move:
                    following = await self._move(row, move)
                case Call(verb):
                    following = await self._call(row, verb)

    async def _call(self, row: SessionRow, verb: Verb) -> SessionRow | None:
        """Call a verb and write down what follows; None where the session has to wait, or is no longer ours."""
        assert row.slot is not None
        if verb == "tidy":
            await self._tidy(row)
            return None
        platform = self._platforms.get(row.slot.platform)
        if platform is None:
            return await self._without_platform(row, verb)
        reach(f"{verb}.before")
        try:
            job = await self._job(row)
            async with asyncio.timeout(VERB):
                return await getattr(self, f"_{verb}")(row, platform, job)  # type: ignore[no-any-return]
        except (Unreachable, TimeoutError) as error:
            await self._unreachable(row, str(error) or f"{verb} took more than {VERB} s")
        except PlatformFailure as error:
            return await self._failed(row, "platform", str(error))
        except BrokerError:
            raise
        except Exception as error:
            log.exception("engine.verb_failed", verb=verb, session=str(row.uuid))
            return await self._failed(row, "internal", f"{verb} failed in an unexpected way: {error}")
        return None

    async def _prepare(self, row: SessionRow, platform: Platform, job: Job) -> SessionRow | None:
        await asyncio.to_thread(self._store.make, row.uuid, [mount.source for mount in job.mounts])
        progress = await platform.prepare(job)
        reach("prepare.after")
        if progress.done:
            return await self._move(row, Move(Phase.AVAILABLE), state=replace(row.state, doing="", unreachable_since=None))
        of = f" of {progress.total}" if progress.total else ""
        fetched = f", {progress.bytes}{of} bytes" if 0 < progress.bytes != progress.total else ""
        doing = progress.doing + fetched
        await self._again(row, self._now() + 1, state=replace(row.state, doing=doing, unreachable_since=None))
        return None

    async def _start(self, row: SessionRow, platform: Platform, job: Job) -> SessionRow | None:
        await platform.start(job)
        reach("start.after")
        state = replace(row.state, started=self._now(), unreachable_since=None)
        return await self._move(row, Move(Phase.RUNNING), state=state)

    async def _adopt(self, row: SessionRow, platform: Platform, job: Job) -> SessionRow | None:
        """Its time is over, and whether it was started was never written down: the platform knows."""
        if not await self._was_started(platform, job):
            return await self._move(row, too_late())
        state = replace(row.state, started=self._now(), unreachable_since=None)
        return await self._move(row, Move(Phase.RUNNING), state=state)

    async def _was_started(self, platform: Platform, job: Job) -> bool:
        return (await platform.poll([job])).get(job.uuid, Status("unknown")).state != "unknown"

    async def _poll(self, name: str, rows: list[SessionRow]) -> None:
        """Look at all that runs on one platform in one call."""
        platform = self._platforms.get(name)
        if platform is None:
            for row in rows:
                if following := await self._without_platform(row, "poll"):
                    await self._advance(following)
            return
        reach("poll.before")
        try:
            jobs = [await self._job(row) for row in rows]
            async with asyncio.timeout(VERB):
                statuses = await platform.poll(jobs)
        except (Unreachable, TimeoutError) as error:
            for row in rows:
                await self._guarded(self._unreachable(row, str(error)), row)
            return
        except Exception:
            log.exception("engine.poll_failed", platform=name)
            for row in rows:
                await self._guarded(self._unreachable(row, "asking how it is doing failed; the broker's log says why"), row)
            return
        reach("poll.after")
        for row, job in zip(rows, jobs, strict=True):
            status = statuses.get(row.uuid, Status("unknown"))
            self._begin(self._guarded(self._after_poll(row, job, platform, status), row), row)

    async def _after_poll(self, row: SessionRow, job: Job, platform: Platform, status: Status) -> None:
        assert row.slot is not None
        try:
            async with asyncio.timeout(VERB):
                await self._copy_output(platform, job)
        except Exception:  # what cannot be copied now is copied later, at release at the latest
            log.exception("engine.output_failed", session=str(row.uuid))
        state = replace(row.state, connectors=tuple(asdict(one) for one in status.connectors), unreachable_since=None)
        move = after_poll(status, row.slot, self._now())
        if move is None:
            interval = int(platform.settings.poll.total_seconds())
            await self._again(row, min(self._now() + max(interval, 1), max(row.slot.end, self._now() + 1)), state=state)
        elif following := await self._move(row, move, state=state):
            await self._advance(following)

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
            return await self._move(row, Move(Phase.RELEASING), state=replace(row.state, started=self._now()))
        said = await self._last_output(row, platform, job) if row.state.started is not None else ()
        if not await platform.release(job):
            await self._again(row, self._now() + 1)
            return None
        reach("release.after")
        finished = tuple({**one, "status": "FINISHED"} for one in row.state.connectors)
        await self._end(row, said, replace(row.state, connectors=finished, ended=self._now()))
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

    async def _end(self, row: SessionRow, said: tuple[MessageItem, ...], state: State) -> None:
        self._jobs.pop(row.uuid, None)
        await self._books.settle(row, self._now(), said, state=state, leased_until=None, lease=None)
        reach("settled")

    async def _tidy(self, row: SessionRow) -> None:
        """Delete the storage of an ended session whose lifetime is over."""
        assert row.slot is not None
        now = self._now()
        folders = list(folders_of(await self._request(row)).values())[: len(row.slot.storages)]
        over = [folder for folder, (_, until) in zip(folders, row.slot.storages, strict=True) if until <= now]
        if over:
            await asyncio.to_thread(self._store.remove, row.uuid, *over)
        due = min((until for _, until in row.slot.storages if until > now), default=None)
        if due is None:
            await self._books.let_go(row.uuid)
        await self._again(row, due, state=replace(row.state, tidied=now))

    async def _move(self, row: SessionRow, move: Move, **values: Any) -> SessionRow | None:
        """Write a move down. None, and the lease given back, where the session now has to wait, be polled, or was moved by
        somebody else."""
        now, outcome = self._now(), move.outcome or row.outcome
        due = self._free_until(row, move.to, now)
        free = {"leased_until": now + LEASE} if due is None else {"due": due, "leased_until": None, "lease": None}

        async def operation(transaction: Transaction, _: int) -> bool:
            moved = await transaction.move(row, move.to, now, move.messages, row.lease, outcome=outcome, **free, **values)
            reach(f"{move.to}.writing")
            return moved

        moved = await self._books.write(operation)
        reach(f"{move.to}.written")
        if not moved:
            await self._leave_off(row)
        if not moved or due is not None:
            return None
        return replace(row, phase=move.to, outcome=outcome, state=values.get("state", row.state))

    def _free_until(self, row: SessionRow, phase: Phase, now: int) -> int | None:
        """When a session that comes to `phase` now is to be looked at again; None where its next step can be taken at once."""
        assert row.slot is not None
        match step(phase, row.slot, now):
            case Wait(until):
                return until
            case Call("poll"):
                return now
            case _:
                return None

    async def _again(self, row: SessionRow, due: int | None, said: tuple[MessageItem, ...] = (), **values: Any) -> None:
        """Give the lease back, and come again at `due`."""
        values = {key: value for key, value in values.items() if value != getattr(row, key)}
        if not said and not values:
            await self._leave_off(row, due=due)
            return
        unleased = {"due": due, "leased_until": None, "lease": None}

        async def operation(transaction: Transaction, _: int) -> bool:
            return await transaction.move(row, row.phase, self._now(), said, row.lease, **unleased, **values)

        if not await self._books.write(operation):
            await self._leave_off(row)

    async def _leave_off(self, row: SessionRow, **values: Any) -> None:
        """Give the lease back where it is still ours. A due time is only set where the session is still where it was."""
        lease = update(sessions).where(sessions.c.uuid == str(row.uuid), sessions.c.lease == row.lease)
        free = {"leased_until": None, "lease": None}
        here = lease.where(sessions.c.phase == row.phase.value)

        async def operation(transaction: Transaction, _: int) -> bool:
            if values and await transaction.execute(here.values(**free, **values)):
                return False
            await transaction.execute(lease.values(**free))
            return True

        if await self._books.write(operation):
            self._ledger.changes.due.set()

    async def _failed(self, row: SessionRow, name: str, text: str) -> SessionRow | None:
        if row.phase is not Phase.RELEASING:
            return await self._move(row, fail(name, text))
        tries = row.state.failures + 1
        if tries < RELEASE_TRIES:
            await self._again(row, self._now() + min(2**tries, 60), state=replace(row.state, failures=tries))
            return None
        said = message("ERROR", "not-released", "It could not be released: {text}", text=text)
        await self._end(replace(row, outcome=Phase.FAILED), (said,), replace(row.state, ended=self._now()))
        return None

    async def _unreachable(self, row: SessionRow, text: str) -> None:
        now = self._now()
        since = row.state.unreachable_since
        said = () if since else (message("WARN", "unreachable", "The platform cannot be reached: {text}", text=text),)
        state = replace(row.state, unreachable_since=since or now)
        await self._again(row, now + min(max(now - (since or now), 1), 60), said, state=state)

    async def _without_platform(self, row: SessionRow, verb: Verb) -> SessionRow | None:
        assert row.slot is not None
        text = f"The platform {row.slot.platform} is not configured any more"
        if verb == "release":
            await self._end(row, (), replace(row.state, ended=self._now()))
            return None
        return await self._move(row, fail("no-platform", text))

    async def _request(self, row: SessionRow) -> ExecutionRequest:
        offerset = await self._ledger.offerset(row.offerset)
        assert offerset is not None
        return ExecutionRequest.model_validate_json(offerset.request)

    async def _job(self, row: SessionRow) -> Job:
        if row.uuid not in self._jobs:
            self._jobs[row.uuid] = job_of(row, await self._request(row), self._store.folder(row.uuid))
        return self._jobs[row.uuid]

    async def _refresh(self) -> None:
        self._refreshed = self._now()
        await asyncio.to_thread(self._ledger.reserve.restore)
        await asyncio.gather(*(self._look_at(platform) for platform in self._platforms.values()))

    async def _look_at(self, platform: Platform) -> None:
        try:
            async with asyncio.timeout(VERB):
                self._books.set_capacity(platform.name, await platform.capacity())
        except (Unreachable, TimeoutError) as error:
            log.warning("platform.unreachable", platform=platform.name, error=str(error))
        except Exception:
            log.exception("platform.capacity_failed", platform=platform.name)

    async def _clean(self, now: int) -> None:
        """Delete what the retention settings say is old: files first, so that none is left without its row."""
        before = now - int(self._retention.sessions.total_seconds())
        while old := await self._ledger.old_sessions(before):
            for uuid in old:
                await asyncio.to_thread(self._store.remove, uuid)
            await self._ledger.forget(old)
        await self._ledger.purge(before, now - int(self._retention.offersets.total_seconds()))

    def _now(self) -> int:
        return int(self._clock.now().timestamp())
