import secrets
from dataclasses import dataclass, replace
from uuid import UUID

from pydantic import TypeAdapter

from execbroker.ledger.rows import CallbackRow, OfferSetRow, SessionRow
from execbroker.model.messages import MessageItem
from execbroker.model.phases import Phase
from execbroker.model.waist import Slot
from execbroker.offers.calling import rows_of
from execbroker.offers.quoting import quote_text
from execbroker.offers.wanting import Wanted
from execbroker.scheduling.objectives import Choice
from execbroker.scheduling.timeline import Booking

COMPONENTS = 1 << 16
_MESSAGES = TypeAdapter(list[MessageItem])


@dataclass(frozen=True, slots=True)
class Answer:
    """What was committed: the offerset and its offers, in order."""

    offerset: OfferSetRow
    offers: tuple[SessionRow, ...]
    messages: tuple[MessageItem, ...]
    callbacks: tuple[CallbackRow, ...] = ()


def answer_to(wanted: Wanted, choices: list[Choice], now: int, reasons: list[MessageItem]) -> Answer:
    messages = (*reasons, *wanted.warnings)
    offerset = OfferSetRow(
        uuid=new_uuid(),
        owner=wanted.owner,
        created=now,
        modified=now,
        expires=now + wanted.expires,
        result="YES" if choices else "NO",
        request=wanted.request,
        messages=_MESSAGES.dump_json(list(messages), exclude_none=True).decode() if messages else "[]",
    )
    offers = tuple(
        session_of(offerset, _promised(wanted, choice.slot), rank, now, quote_of(wanted, choice), wanted.groups)
        for rank, choice in enumerate(choices)
    )
    callbacks = tuple(rows_of(wanted.plan.request.callbacks or (), offerset.uuid)) if offers else ()
    return Answer(offerset, offers, messages, callbacks)


def session_of(
    offerset: OfferSetRow, slot: Slot | None, rank: int, now: int, quote: str | None = None, groups: tuple[str, ...] = ()
) -> SessionRow:
    return SessionRow(
        uuid=new_uuid(),
        offerset=offerset.uuid,
        owner=offerset.owner,
        rank=rank,
        phase=Phase.OFFERED,
        created=now,
        modified=now,
        expires=min(offerset.expires, slot.end) if slot else offerset.expires,
        slot=slot,
        secret=secrets.token_urlsafe(24),
        quote=quote,
        groups=groups,
    )


def _promised(wanted: Wanted, slot: Slot) -> Slot:
    """With what the platform's settings and the request say of pulling it forward."""
    if not wanted.plan.flexible:
        return slot
    candidate = next(one for one in wanted.candidates if one.platform == slot.platform)
    return replace(slot, floor=min(wanted.plan.start[0], slot.start), priority=candidate.priority)


def quote_of(wanted: Wanted, choice: Choice) -> str:
    candidate = next(one for one in wanted.candidates if one.platform == choice.slot.platform)
    least = sum(node.cores.min for node in wanted.plan.nodes)
    return quote_text(choice, candidate, least, objective=bool(wanted.plan.request.objectives))


def new_uuid() -> UUID:
    """A random uuid whose last 16 bits are zero: they number the components of the thing it names."""
    return UUID(bytes=secrets.token_bytes(14) + bytes(2), version=4)


def ended(slot: Slot, now: int, *, used: bool) -> Slot:
    """What a session that is over holds still: its storage, if it was ever used, for its lifetime from now, but no longer
    than was booked, however late it is over."""
    storages = tuple((size, now + min(until - slot.done, max(until - now, 0)) if used else now) for size, until in slot.storages)
    return replace(slot, prepare=min(slot.prepare, now), done=now, storages=storages, staging=0)


def clip(pieces: list[Booking], now: int) -> list[Booking]:
    """What of these is still to come."""
    return [piece._replace(start=max(piece.start, now)) for piece in pieces if piece.end > now]
