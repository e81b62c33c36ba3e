from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from execbroker.model.messages import MessageItem, reason
from execbroker.scheduling.timeline import Booking, core_seconds


@dataclass(frozen=True, slots=True)
class Caps:
    """How many core-hours may be held in offers that nobody has accepted yet; None where there is no limit."""

    owner: int | None = None
    all: int | None = None

    @property
    def any(self) -> bool:
        return self.owner is not None or self.all is not None

    def reasons_against(self, pieces: Iterable[Booking], owner: str, offered: Mapping[str, int]) -> list[MessageItem]:
        """Why an owner may not hold these too. `offered` are the core-seconds that each holds already."""
        if not self.any:
            return []
        more = core_seconds(pieces)
        over = [
            ("yours", offered.get(owner, 0), self.owner),
            ("everybody's", sum(offered.values()), self.all),
        ]
        return [
            reason("too-many-offers", "offers", "With these, {whose} offers would hold {held} core-hours, {over} more than the "
                   "{cap} that may be held unaccepted: accept or reject some, or ask again when they have expired",
                   whose=whose, held=_hours(held + more), over=_hours(held + more - cap * 3600), cap=cap)
            for whose, held, cap in over
            if more and cap is not None and held + more > cap * 3600
        ]  # fmt: skip


def _hours(seconds: int) -> str:
    return f"{seconds / 3600:.6g}"
