import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from execbroker.books.books import Books
from execbroker.config import OfferSettings
from execbroker.engine.callbacks import Callbacks
from execbroker.engine.feed import Feed, Followed, News
from execbroker.engine.lifecycle import EXTENDABLE
from execbroker.errors import Fault, Forbidden, Invalid, NoRoom, NotFound, Outdated
from execbroker.faces import face_of_offerset, face_of_session
from execbroker.ledger.ledger import Ledger
from execbroker.ledger.rows import OfferSetRow, SessionRow
from execbroker.model.components import AbstractComponent
from execbroker.model.identities import Identity
from execbroker.model.messages import MessageItem
from execbroker.model.options import AbstractUpdate, EnumValueUpdate, IntegerDeltaUpdate
from execbroker.model.phases import Phase
from execbroker.model.sessions import ExecutionRequest, OfferSetResponse, ScheduledExecutionSession
from execbroker.model.times import Clock, format_duration
from execbroker.model.waist import Capacity, Slot
from execbroker.offers.asking import understand
from execbroker.offers.calling import registered
from execbroker.offers.limiting import CostLimit, cost_limits
from execbroker.offers.offering import Answer
from execbroker.offers.wanting import Wanted
from execbroker.offers.weighing import Weighing
from execbroker.platforms.base import Platform
from execbroker.policies.rules import Policies, Rule
from execbroker.policies.standing import limits_of, longest_for, standing_of
from execbroker.profiles import profile_of
from execbroker.rendering import Renderer, owner_of
from execbroker.scheduling.moving import room_within
from execbroker.store import Entry, Store, Stream

_PHASE = {"phase", "/phase", "state", "/state"}
_ENDS = {"REJECTED", "CANCELLED"}
DURATION = "schedule.available.duration"
UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}
NOW = -math.inf
Known = Callable[[Any], bool]
"""Whether a caller has a document already, just as it is."""
MOST_EXTENSION = 36525 * 86400  # seconds


class Broker:
    """The desk: what a client may ask for. It talks to the ledger and the books, and never waits for a platform."""

    def __init__(
        self,
        ledger: Ledger,
        books: Books,
        platforms: Mapping[str, Platform],
        clock: Clock,
        store: Store,
        defaults: OfferSettings,
        answered: Callable[[Answer], None],
        feed: Feed,
        callbacks: Callbacks,
        policies: Mapping[str, Policies],
        *,
        public: bool = False,
    ) -> None:
        self._ledger, self._books, self._platforms = ledger, books, platforms
        self._clock, self._store, self._defaults, self._answered = clock, store, defaults, answered
        self._feed, self._callbacks = feed, callbacks
        self._policies, self._public = policies, public
        self._weighing = Weighing(platforms, policies, books.capacities, defaults)

    async def ask(self, request: ExecutionRequest, who: Identity, renderer: Renderer) -> OfferSetResponse:
        """Offers that are held, or NO with every reason. Raises Busy, StorageFull."""
        wanted = await self._wanted(request, who)
        answer = await self._books.offer(wanted)
        self._answered(answer)
        found = renderer.offerset(answer.offerset, answer.offers, wanted.plan.request)
        found.callbacks = registered(answer.callbacks)
        return found

    async def direct(self, request: ExecutionRequest, who: Identity, renderer: Renderer) -> ScheduledExecutionSession:
        """An accepted session at the first possible time, or a FAILED one with every reason. Raises Busy, StorageFull."""
        wanted = await self._wanted(request, who)
        answer: Answer = await self._books.direct(wanted)
        self._answered(answer)
        found = renderer.session(answer.offers[0], wanted.plan.request, answer.messages)
        found.callbacks = registered(answer.callbacks)
        return found

    async def _wanted(self, request: ExecutionRequest, who: Identity) -> Wanted:
        plan = understand(request, self._defaults, self._now())
        plan.reasons += self._callbacks.reasons_against(plan.request.callbacks or [])
        return await self._weighing.wanted(plan, who)

    async def offerset(
        self, uuid: UUID, who: Identity, renderer: Renderer, wait: float = 0, known: Known | None = None
    ) -> OfferSetResponse:
        """One offerset, its offers as they are now, or its face where it is another's; after `wait` seconds at most, or once it
        changes, or is not what the caller has `known`. Raises NotFound, Forbidden."""
        deadline, before = self._clock.monotonic() + wait if wait else NOW, None
        while True:
            changed = self._ledger.changes.watch(uuid)
            row = await self._ledger.offerset(uuid)
            if row is None:
                raise NotFound(f"There is no offerset {uuid}")
            self._check_seen(row.owner, who, f"The offerset {uuid}")
            offers = await self._ledger.offers(uuid)
            before = before or offers
            open_ = any(offer.phase is Phase.OFFERED for offer in offers)
            if not open_ or deadline == NOW:
                break
            if not known(await self._offerset_seen(row, offers, renderer, who)) if known else offers != before:
                break
            deadline = await self._later(changed, deadline)
        return await self._offerset_seen(row, offers, renderer, who)

    async def _offerset_seen(
        self, row: OfferSetRow, offers: list[SessionRow], renderer: Renderer, who: Identity
    ) -> OfferSetResponse:
        """Of another's its face."""
        request = _request(row)
        found = renderer.offerset(row, _shown(row, offers), request)
        found.callbacks = await self._callbacks.registered(row.uuid) if request.callbacks else None
        return found if row.owner == who.owner else face_of_offerset(found, _ENDS if who.admin else ())

    async def session(
        self,
        uuid: UUID,
        who: Identity,
        renderer: Renderer,
        wait: float = 0,
        unless: Phase | None = None,
        known: Known | None = None,
    ) -> ScheduledExecutionSession:
        """One session, or its face where it is another's; after `wait` seconds at most, or once it is in a phase other than
        `unless`; where that is left out, once it changes, or is not what the caller has `known`. Raises NotFound, Forbidden."""
        deadline, before = self._clock.monotonic() + wait if wait else NOW, None
        while True:
            changed = self._ledger.changes.watch(uuid)
            row, request = await self._found(uuid)
            self._check_seen(row.owner, who, f"The session {uuid}")
            messages = await self._ledger.messages(uuid)
            before = before or (row, messages)
            if row.phase.is_final or deadline == NOW or (unless is not None and row.phase is not unless):
                break
            if unless is None and known and not known(await self._session_seen(row, request, renderer, who, messages)):
                break
            if unless is None and not known and (row, messages) != before:
                break
            deadline = await self._later(changed, deadline)
        return await self._session_seen(row, request, renderer, who, messages)

    async def _session_seen(
        self, row: SessionRow, request: str, renderer: Renderer, who: Identity, messages: list[str]
    ) -> ScheduledExecutionSession:
        """Of another's its face."""
        session = await self._rendered(row, request, renderer, who, messages)
        return session if row.owner == who.owner else face_of_session(session, _ENDS if who.admin else ())

    async def _later(self, changed: asyncio.Event, deadline: float) -> float:
        """Wait until it is set, or until then; until when there is time still. What has changed may be known already: a broker is
        told of what it wrote itself, too."""
        if self._ledger.changes.closed:
            return NOW
        try:
            async with asyncio.timeout(deadline - self._clock.monotonic()):
                await changed.wait()
        except TimeoutError:
            return NOW
        return deadline

    def _check_seen(self, owner: str, who: Identity, what: str) -> None:
        """Raises Forbidden where not even its face is shown to others."""
        if owner != who.owner and not (self._public or who.admin):
            raise Forbidden(f"{what} is somebody else's")

    async def _found(self, uuid: UUID) -> tuple[SessionRow, str]:
        """A session with its request. Raises NotFound."""
        found = await self._ledger.session_and_request(uuid)
        if found is None:
            raise NotFound(f"There is no session {uuid}")
        return found

    async def _session(self, uuid: UUID, who: Identity) -> tuple[SessionRow, str]:
        """One that is theirs. Raises NotFound, Forbidden."""
        found = await self._found(uuid)
        if found[0].owner != who.owner:
            raise Forbidden(f"The session {uuid} is somebody else's")
        return found

    async def _rendered(
        self, row: SessionRow, request: str, renderer: Renderer, who: Identity, messages: list[str] | None = None
    ) -> ScheduledExecutionSession:
        texts = await self._ledger.messages(row.uuid) if messages is None else messages
        asked = ExecutionRequest.model_validate_json(request)
        session = renderer.session(row, asked, [MessageItem.model_validate_json(text) for text in texts], self._room(row, who))
        session.callbacks = await self._callbacks.registered(row.offerset) if asked.callbacks else None
        return session

    async def component(self, uuid: UUID, who: Identity, renderer: Renderer) -> AbstractComponent:
        """The session, the offerset, or the part of a session, that has this uuid. Raises NotFound."""
        whole = owner_of(uuid)
        if uuid == whole and await self._ledger.offerset(uuid):
            return await self.offerset(uuid, who, renderer)
        try:
            session = await self.session(whole, who, renderer)
        except NotFound:
            raise NotFound(f"There is no component {uuid}") from None
        for part in _parts(session):
            if part.meta and part.meta.uuid == uuid:
                return part
        raise NotFound(f"There is no component {uuid}")

    async def offersets(
        self, who: Identity, renderer: Renderer, phases: Iterable[Phase], after: int | None, limit: int
    ) -> list[OfferSetResponse]:
        """The newest first."""
        rows = await self._ledger.offersets(who.owner, phases, after, limit)
        return [renderer.offerset(row, _shown(row, await self._ledger.offers(row.uuid)), _request(row)) for row in rows]

    async def sessions(
        self, who: Identity, renderer: Renderer, phases: Iterable[Phase], after: int | None, limit: int
    ) -> list[ScheduledExecutionSession]:
        """The newest first."""
        rows = await self._ledger.sessions(who.owner, phases, after, limit)
        return [await self._rendered(row, request, renderer, who) for row, request in rows]

    async def update(
        self, uuid: UUID, change: AbstractUpdate, who: Identity, renderer: Renderer, expected: Known | None = None
    ) -> ScheduledExecutionSession:
        """Accept, reject, cancel, or move the end, where the session is as `expected` until it is changed.

        An admin may end what is another's. Raises NotFound, Forbidden, Outdated, IllegalMove, NoRoom, and Invalid for an update
        that no session has.
        """
        row, request = await self._found(uuid)
        ends = isinstance(change, EnumValueUpdate) and change.path in _PHASE and change.value.upper() in _ENDS
        if row.owner != who.owner and not (who.admin and ends):
            raise Forbidden(f"The session {uuid} is somebody else's")
        if expected and not expected(await self._session_seen(row, request, renderer, who, await self._ledger.messages(uuid))):
            raise Outdated
        mine, version = row.owner == who.owner, row.version if expected else None
        match change:
            case EnumValueUpdate() if change.path in _PHASE:
                row = await self._choose(uuid, change.value.upper(), "its owner" if mine else "an admin", version)
            case IntegerDeltaUpdate() if change.path.lstrip("/") == DURATION:
                row = await self._extend(uuid, change, request, who, version)
            case EnumValueUpdate() | IntegerDeltaUpdate():
                known = "phase" if isinstance(change, EnumValueUpdate) else DURATION
                raise Invalid(faults=(Fault("path", "unknown-path", f"the path that can be updated so is {known}", change.path),))
            case _:
                kinds = "uri:enum-value-update and uri:integer-delta-update"
                raise Invalid(faults=(Fault("kind", "unknown-update", f"only {kinds} are known here", change.kind),))
        if written := await self._ledger.session(uuid):
            row = replace(row, slot=written.slot)  # it may have been pulled forward at once
        session = await self._rendered(row, request, renderer, who)
        return session if mine else face_of_session(session, _ENDS)

    async def _choose(self, uuid: UUID, choice: str, by: str, version: int | None) -> SessionRow:
        verbs: dict[str, Callable[[UUID, int | None], Awaitable[SessionRow]]] = {
            "ACCEPTED": self._books.accept,
            "REJECTED": self._books.reject,
            "CANCELLED": partial(self._books.cancel, by=by),
        }
        if choice not in verbs:
            raise Invalid(faults=(Fault("value", "unknown-value", f"the values there are: {', '.join(verbs)}", choice),))
        return await verbs[choice](uuid, version)

    async def _extend(
        self, uuid: UUID, change: IntegerDeltaUpdate, request: str, who: Identity, version: int | None
    ) -> SessionRow:
        scale = UNITS.get(change.units or "minutes")
        if scale is None:
            raise Invalid(faults=(Fault("units", "unknown-units", f"the units there are: {', '.join(UNITS)}", change.units),))
        if not change.delta or abs(seconds := change.delta * scale) > MOST_EXTENSION:
            raise Invalid(
                faults=(Fault("delta", "out-of-range", "a number of time other than 0, a century at most", change.delta),)
            )
        if seconds > (most := int(self._defaults.extension.total_seconds())):
            raise NoRoom(f"A session can be made {most} s longer at a time, not {seconds} s", seconds=most)
        row = await self._ledger.session(uuid)
        if row and row.phase is Phase.RUNNING and row.slot and not self._extendable(row.slot):
            raise NoRoom(f"{row.slot.platform} cannot change the end of a session that runs")
        longest, quotas = longest_for(self._policies, who, row) if row and row.slot and seconds > 0 else (None, ())
        found = cost_limits(ExecutionRequest.model_validate_json(request))
        limits = tuple((limit.currency, limit.most) for limit in found if isinstance(limit, CostLimit))
        return await self._books.extend(uuid, seconds, limits, quotas, longest, version)

    def _extendable(self, slot: Slot) -> bool:
        platform = self._platforms.get(slot.platform)
        return platform is not None and platform.extendable

    def _room(self, row: SessionRow, who: Identity) -> tuple[int, int] | None:
        """By how many seconds its owner can move a session's end now, back and on; None where they cannot."""
        now, slot = self._now(), row.slot
        if slot is None or row.phase not in EXTENDABLE or now >= slot.end:
            return None
        if row.phase is Phase.RUNNING and not self._extendable(slot):
            return None
        least = slot.end - max(now, slot.start) - 1
        try:
            longest, quotas = longest_for(self._policies, who, row)
        except Forbidden:
            return max(least, 0), 0
        most = min(int(self._defaults.extension.total_seconds()), room_within(longest, slot))
        return max(least, 0), self._books.room_after(slot, most, quotas)

    def events(self, who: Identity, after: int | None) -> AsyncGenerator[News, None]:
        """What happens to all that is theirs, from now on, or after that number."""
        return self._feed.follow(Followed(who.owner), after)

    async def session_events(self, uuid: UUID, who: Identity, after: int | None) -> AsyncGenerator[News, None] | None:
        """What has happened and happens to one session of theirs, all of it, or after that number; None where that was all.

        Raises NotFound, Forbidden.
        """
        async with self._feed.readers:
            row, _ = await self._session(uuid, who)
            if after is not None and row.phase.is_final and await self._feed.knows_all(str(uuid), after):
                return None
        return self._feed.follow(Followed(who.owner, str(uuid)), after or 0, over=row.phase.is_final)

    async def output(self, uuid: UUID, who: Identity, stream: Stream, offset: int, end: int | None = None) -> bytes:
        """What the session wrote, from byte `offset` until before `end`. Raises NotFound."""
        await self._session(uuid, who)
        return await asyncio.to_thread(self._store.read_output, uuid, stream, offset, end)

    async def output_size(self, uuid: UUID, who: Identity, stream: Stream) -> int:
        await self._session(uuid, who)
        return await asyncio.to_thread(self._store.output_size, uuid, stream)

    async def files(self, uuid: UUID, who: Identity, path: str, *, deep: bool) -> list[Entry]:
        """What is in a folder of the session's results. Raises NotFound."""
        await self._session(uuid, who)
        return await asyncio.to_thread(lambda: self._store.entries(uuid, path, deep=deep))

    async def file(self, uuid: UUID, who: Identity, path: str) -> int | None:
        """A file of the session's results, open for reading, the caller's to close; None for a folder. Raises NotFound."""
        await self._session(uuid, who)
        return await asyncio.to_thread(self._store.open, uuid, path)

    async def me(self, who: Identity) -> dict[str, Any]:
        """Who somebody is, what they may have of each platform that is for them, and what is left. Raises Busy."""
        await self._books.expire()  # and so hear of what others have written
        return standing_of(who, self._weighing.rules(who).values(), self._books.timeline.accounts, self._now())

    def platforms(self, who: Identity) -> list[dict[str, Any]]:
        """What somebody may ask for here: each platform, its nodes, and how it keeps sessions to what they were given."""
        return [self._platform(self._platforms[name], rule) for name, rule in self._weighing.rules(who).items()]

    def _platform(self, platform: Platform, rule: Rule) -> dict[str, Any]:
        reachable = platform.name in self._books.capacities
        capacity = self._books.capacities.get(platform.name, Capacity(()))
        prices = platform.settings.prices
        return {
            "name": platform.name,
            "type": platform.settings.type,
            **profile_of(platform, capacity),
            "reachable": reachable,
            "nodes": [
                {"name": node.name, "cores": node.cores, "memory": node.memory, "storage": node.storage, "units": "GiB"}
                | ({"accelerators": dict(node.accelerators)} if node.accelerators else {})
                for node in capacity.nodes
            ],
            "flavours": [asdict(one) | {"accelerators": dict(one.accelerators)} for one in capacity.flavours],
            "pools": dict(capacity.pools),
            "prices": prices.model_dump(mode="json", by_alias=True, exclude_defaults=True) if prices else {},
            "release": format_duration(timedelta(seconds=platform.settings.release.total_seconds())),
            "notes": list(capacity.notes),
            "limits": limits_of(rule),
        }

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def _request(row: OfferSetRow) -> ExecutionRequest:
    return ExecutionRequest.model_validate_json(row.request)


def _shown(row: OfferSetRow, offers: list[SessionRow]) -> list[SessionRow]:
    """A direct request that was refused has a FAILED session, which is no offer."""
    return offers if row.result == "YES" else []


def _parts(session: ScheduledExecutionSession) -> Iterable[AbstractComponent]:
    yield session
    computes = (session.compute, *(session.further_compute or []))
    for part in (session.executable, *computes, *(session.storage or []), *(session.data or [])):
        if part:
            yield part
    if session.compute:
        yield from session.compute.volumes or []
