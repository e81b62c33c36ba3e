"""How fast, and how exactly, four windows are found in busy pools: the shared workloads, and a larger one made alike."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import packed

from execbroker.model.waist import Capacity, Node, Slot
from execbroker.scheduling.amounts import Amounts
from execbroker.scheduling.asks import FOREVER, Ask, Candidate, Part, Range, StorageAsk
from execbroker.scheduling.objectives import find
from execbroker.scheduling.timeline import Booking, Place, Timeline, bookings_of

SHARED = Path(__file__).resolve().parents[2] / "shared" / "bench"
SIZES = ((1, 10_000), (100, 10_000), (100, 100_000))
POOL, GPU = "pool", "gpu"


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of each search and of each four holds with their releases, the seconds that loading took, and how many answers
    were not the exact ones."""

    search: list[float]
    holds: list[float]
    load: float
    wrong: int
    asks: int


def empty(workload: packed.Workload) -> Timeline:
    """The workload's nodes, with nothing held."""
    timeline = Timeline()
    nodes = tuple(
        Node(str(number), cores, memory, scratch, ((GPU, accelerators),))
        for number, (cores, memory, accelerators, scratch) in enumerate(workload.capacity.tolist())
    )
    timeline.set_capacity(POOL, Capacity(nodes))
    return timeline


def bookings(workload: packed.Workload) -> list[Booking]:
    columns = (workload.node.tolist(), workload.start.tolist(), workload.duration.tolist(), workload.demand.tolist())
    return [
        Booking(Place(POOL, str(node)), start, start + duration, Amounts(cores, memory, scratch, _counts(accelerators)))
        for node, start, duration, (cores, memory, accelerators, scratch) in zip(*columns, strict=True)
    ]


def _counts(accelerators: int) -> tuple[tuple[str, int], ...]:
    return ((GPU, accelerators),) if accelerators else ()


def asks(workload: packed.Workload) -> list[Ask]:
    columns = (workload.ask_demand.tolist(), workload.ask_duration.tolist(), workload.ask_from.tolist())
    return [
        Ask(
            parts=(Part(_exactly(cores), _exactly(memory), tuple((kind, _exactly(n)) for kind, n in _counts(accelerators))),),
            storages=(StorageAsk(_exactly(scratch), 0),) if scratch else (),
            duration=duration,
            earliest=since,
            latest=FOREVER,
            candidates=(Candidate(POOL, 0, 0),),
            limit=4,
        )
        for (cores, memory, accelerators, scratch), duration, since in zip(*columns, strict=True)
    ]


def _exactly(amount: int) -> Range:
    return Range(amount, amount)


def measure(timeline: Timeline, workload: packed.Workload, load: float, *, count: int = 400) -> Measured:
    """Ask, compare, hold and release, one ask after the other."""
    search, holds, wrong = [], [], 0
    for ask, answer in list(zip(asks(workload), workload.answer_start.tolist(), strict=True))[:count]:
        began = time.perf_counter()
        slots = [choice.slot for choice in find(timeline, ask, 0)]
        search.append(time.perf_counter() - began)
        wrong += [slot.start for slot in slots] != [start for start in answer if start >= 0]
        holds.append(_hold_and_release(timeline, slots))
    return Measured(search, holds, load, wrong, len(search))


def _hold_and_release(timeline: Timeline, slots: list[Slot]) -> float:
    pieces = [bookings_of(slot) for slot in slots]
    began = time.perf_counter()
    for piece in pieces:
        timeline.take(piece)
    for piece in pieces:
        timeline.give(piece)
    return time.perf_counter() - began


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def shared(nodes: int, reservations: int) -> Measured:
    """One of the shared workloads; where they are not there, the same made here."""
    path = SHARED / f"packed-{nodes}-{reservations}.npz"
    workload = packed.load(path) if path.exists() else packed.cached(nodes, reservations, 1)
    timeline, held = empty(workload), bookings(workload)
    return measure(timeline, workload, timed(lambda: timeline.rebuild(held)))


def large(nodes: int, reservations: int) -> tuple[Measured, float]:
    """A pool that is made for it, and the MB that its timeline takes."""
    workload = packed.cached(nodes, reservations, 1)
    before = resident()
    timeline = empty(workload)

    def load() -> None:
        site = timeline.site(POOL)
        order = workload.node.argsort(kind="stable")
        bounds = np.searchsorted(workload.node[order], np.arange(nodes + 1))
        start, rows = workload.start[order], workload.demand[order].T[[0, 1, 3, 2]].astype(np.int32)
        end = start + workload.duration[order]
        for number in range(nodes):
            here = slice(bounds[number], bounds[number + 1])
            site.load(str(number), start[here], end[here], rows[:, here])
        site.begin(0)

    seconds = timed(load)
    return measure(timeline, workload, seconds), resident() - before


def resident() -> float:
    """MB in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
