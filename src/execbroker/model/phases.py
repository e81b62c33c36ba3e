from enum import StrEnum


class LifecyclePhase(StrEnum):
    """Where an executable or a resource inside a session has got to."""

    INITIALIZING = "INITIALIZING"
    WAITING = "WAITING"
    PREPARING = "PREPARING"
    AVAILABLE = "AVAILABLE"
    RUNNING = "RUNNING"
    RELEASING = "RELEASING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Phase(StrEnum):
    """Where a session has got to; which moves are legal stands in `engine/lifecycle.py`."""

    INITIAL = "INITIAL"
    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    WAITING = "WAITING"
    PREPARING = "PREPARING"
    AVAILABLE = "AVAILABLE"
    RUNNING = "RUNNING"
    RELEASING = "RELEASING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        return self in FINAL

    @property
    def of_components(self) -> LifecyclePhase:
        """The phase of the session's components, unless one has a phase of its own."""
        if self in (Phase.INITIAL, Phase.OFFERED, Phase.ACCEPTED):
            return LifecyclePhase.INITIALIZING
        if self in (Phase.REJECTED, Phase.EXPIRED):
            return LifecyclePhase.CANCELLED
        return LifecyclePhase(self.value)


FINAL = frozenset({Phase.REJECTED, Phase.EXPIRED, Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED})
HOLDING = frozenset(Phase) - FINAL
"""The phases in which a session holds what it was offered."""
