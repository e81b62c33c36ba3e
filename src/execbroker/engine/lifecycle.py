from dataclasses import dataclass
from typing import Literal

from execbroker.model.messages import MessageItem, message
from execbroker.model.phases import FINAL, Phase
from execbroker.model.waist import Slot, Status

P = Phase

MOVES: dict[Phase, frozenset[Phase]] = {
    P.INITIAL: frozenset({P.OFFERED, P.REJECTED, P.EXPIRED, P.FAILED}),
    P.OFFERED: frozenset({P.ACCEPTED, P.REJECTED, P.EXPIRED}),
    P.ACCEPTED: frozenset({P.WAITING, P.RELEASING}),
    P.WAITING: frozenset({P.PREPARING, P.RELEASING}),
    P.PREPARING: frozenset({P.AVAILABLE, P.RELEASING}),
    P.AVAILABLE: frozenset({P.RUNNING, P.RELEASING}),
    P.RUNNING: frozenset({P.RELEASING}),
    P.RELEASING: frozenset({P.COMPLETED, P.FAILED, P.CANCELLED}),
    **{phase: frozenset() for phase in FINAL},
}
"""Every legal move. Failure and cancellation go through RELEASING, so that nothing is left behind."""

CHOICES: dict[Phase, tuple[Phase, ...]] = {
    P.OFFERED: (P.ACCEPTED, P.REJECTED),
    **dict.fromkeys((P.ACCEPTED, P.WAITING, P.PREPARING, P.AVAILABLE, P.RUNNING), (P.CANCELLED,)),
}
"""What the owner of a session may ask for in each phase."""

EXTENDABLE = (P.ACCEPTED, P.WAITING, P.PREPARING, P.AVAILABLE, P.RUNNING)
"""The phases in which the end of a session can be moved."""

Verb = Literal["prepare", "hasten", "start", "adopt", "poll", "release", "tidy"]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`."""

    until: int


@dataclass(frozen=True, slots=True)
class Call:
    """Call this verb of the platform; to `hasten` a flexible session, which is ready before its time, is the books' own."""

    verb: Verb


@dataclass(frozen=True, slots=True)
class Move:
    """Go to another phase; `outcome` is how the session will end once it is released."""

    to: Phase
    outcome: Phase | None = None
    messages: tuple[MessageItem, ...] = ()


Step = Wait | Call | Move


def step(phase: Phase, slot: Slot, now: int) -> Step:
    """What is to be done with a session next. Pure: the same phase, slot and time give the same step."""
    if phase in (P.WAITING, P.PREPARING) and now >= slot.end:
        return too_late()
    match phase:
        case P.ACCEPTED:
            return Move(P.WAITING)
        case P.WAITING:
            return Wait(slot.prepare) if now < slot.prepare else Move(P.PREPARING)
        case P.PREPARING:
            return Call("prepare")
        case P.AVAILABLE if now >= slot.end:
            return Call("adopt")
        case P.AVAILABLE if slot.floor is not None and slot.floor <= now < slot.start:
            return Call("hasten")
        case P.AVAILABLE:
            return Wait(slot.start) if now < slot.start else Call("start")
        case P.RUNNING:
            return Call("poll")
        case P.RELEASING:
            return Call("release")
        case _:
            return Call("tidy")


def after_poll(status: Status, slot: Slot, now: int) -> Move | None:
    """What the platform's answer about a running session means: None where it just goes on."""
    warnings = tuple(message("WARN", "platform", "{text}", text=text) for text in status.warnings)
    if status.state == "unknown":
        return fail("lost", "The platform does not know this session any more", *warnings)
    if status.on_time_limit or (status.state == "running" and now >= slot.end):
        over = message("WARN", "time-limit", "Its time was over and it was stopped")
        return Move(P.RELEASING, P.COMPLETED, (*warnings, over))
    if status.state == "running":
        return None
    if status.complaint:
        return fail("platform", status.complaint, *warnings)
    if status.exit_code is None:
        return fail("no-exit-code", "It ended, and the platform does not know how", *warnings)
    if status.exit_code:
        return fail("exit-code", f"It ended with exit code {status.exit_code}", *warnings)
    return Move(P.RELEASING, P.COMPLETED, (*warnings, message("INFO", "ended", "It ended by itself, exit code 0")))


def too_late() -> Move:
    return fail("too-late", "Its time was over before it could be started")


def fail(name: str, text: str, *others: MessageItem) -> Move:
    """The way to FAILED, with the reason."""
    return Move(P.RELEASING, P.FAILED, (*others, message("ERROR", name, "{text}", text=text)))
