from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from statistics import median

REMEMBERED = 20


class Rates:
    """How fast things went, from which the next estimates are made.

    Medians of the last twenty notes, so that one stalled transfer does not spoil what the others showed. `load` is what
    was noted in earlier lives, oldest first; `on_note` is called with every new note, so that it can be kept.
    """

    def __init__(
        self, load: Iterable[tuple[str, float, float]] = (), on_note: Callable[[str, float, float], None] | None = None
    ) -> None:
        self._notes: dict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._on_note = on_note
        for what, seconds, amount in load:
            self._notes[what].append((seconds, amount))

    def note(self, what: str, seconds: float, amount: float = 1) -> None:
        """`amount` of `what` (bytes of a transfer, say) took `seconds`."""
        seconds = max(seconds, 1e-6)
        self._notes[what].append((seconds, amount))
        if self._on_note:
            self._on_note(what, seconds, amount)

    def rate(self, what: str) -> float | None:
        """Amount per second; None where nothing was noted yet."""
        return median(amount / seconds for seconds, amount in self._notes[what]) if what in self._notes else None

    def seconds(self, what: str) -> float | None:
        """Seconds per note; None where nothing was noted yet."""
        return median(seconds for seconds, _ in self._notes[what]) if what in self._notes else None
