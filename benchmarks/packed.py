"""Busy pools of any size with exact answers, made by the recipe of the shared workloads `packed-N-M.npz`.

Nothing here uses the broker's own scheduling: it is what that is measured against. Times are seconds from 0.
"""

import os
import resource
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

Array = NDArray[np.int32] | NDArray[np.int64]
Integers = NDArray[np.int64]

NODE = (64, 384, 8, 4000)
"""Cores, memory in GiB, accelerators, scratch in GB."""
HOUR, DAY = 3600, 86400
ASKS, WINDOWS = 400, 4
_NEVER = 1 << 40


@dataclass(frozen=True, slots=True)
class Asks:
    """What is asked of a pool: the demand, for how long, from when on."""

    demand: Array
    duration: Array
    since: Array


@dataclass(frozen=True, slots=True)
class Workload:
    """The arrays of a `packed-N-M.npz`, with its names."""

    capacity: Array
    node: Array
    start: Array
    duration: Array
    demand: Array
    ask_demand: Array
    ask_duration: Array
    ask_from: Array
    answer_start: Array

    @property
    def asks(self) -> Asks:
        return Asks(self.ask_demand, self.ask_duration, self.ask_from)

    @property
    def pool(self) -> "Pool":
        return Pool(self.capacity, self.node, self.start, self.duration, self.demand)


def load(path: Path) -> Workload:
    """A workload as it is stored. Raises ValueError where the file lacks an array."""
    with np.load(path, allow_pickle=False) as arrays:
        missing = {field.name for field in fields(Workload)} - set(arrays)
        if missing:
            raise ValueError(f"{path} has no {', '.join(sorted(missing))}: it is not a packed workload")
        return Workload(**{field.name: arrays[field.name] for field in fields(Workload)})


def cached(nodes: int, reservations: int, seed: int, folder: Path | None = None) -> Workload:
    """`generate`, made once and kept in `folder`, by default the user's cache."""
    folder = folder or platformdirs.user_cache_path("execbroker") / "benchmarks"
    path = folder / f"packed-{nodes}-{reservations}-{seed}.npz"
    if not path.exists():
        _save(generate(nodes, reservations, seed), path)
    return load(path)


def _save(workload: Workload, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, **{field.name: getattr(workload, field.name) for field in fields(Workload)})
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def generate(nodes: int, reservations: int, seed: int) -> Workload:
    """A pool that is nearly full for two weeks, 400 asks, and their exact answers. The shared workloads are of seed 1."""
    if nodes < 1 or reservations < 1:
        raise ValueError(f"a pool has at least one node and one reservation, not {nodes} and {reservations}")
    random = np.random.default_rng(seed)
    demand, duration = _sizes(random, reservations)
    capacity = np.tile(_node_size(nodes, demand, duration), (nodes, 1))
    node = random.integers(nodes, size=reservations, dtype=np.int32)
    later = _whole_minutes(28 * DAY * 0.85 * random.random(reservations) ** 1.3)
    wished = np.where(random.random(reservations) < 0.8, 0, later)
    start = _place(capacity, node, wished, duration, demand)
    ask_demand, ask_duration = _sizes(random, ASKS)
    ask_from = np.where(random.random(ASKS) < 0.7, 0, _whole_minutes(DAY * random.random(ASKS)))
    asks = Asks(ask_demand, ask_duration, ask_from)
    answer = answers(Pool(capacity, node, start, duration, demand), asks)
    return Workload(capacity, node, start, duration, demand, ask_demand, ask_duration, ask_from, answer)


def _sizes(random: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Demands and durations of `count` requests."""
    cores = random.choice([1, 2, 4, 8, 16, 32], count, p=[0.25, 0.20, 0.20, 0.18, 0.12, 0.05])
    memory = cores * random.choice([2, 4, 8], count)
    accelerators = random.choice([0, 1, 2, 4], count, p=[0.85, 0.08, 0.05, 0.02])
    scratch = random.choice([0, 10, 50, 100, 500], count)
    minutes = np.rint(np.clip(random.lognormal(np.log(3 * HOUR), 1, count), HOUR // 4, DAY) / 60)
    return np.stack([cores, memory, accelerators, scratch], axis=1).astype(np.int32), (minutes * 60).astype(np.int32)


def _whole_minutes(seconds: NDArray[np.float64]) -> Integers:
    return seconds.astype(np.int64) // 60 * 60


def _node_size(nodes: int, demand: Array, duration: Array) -> NDArray[np.int32]:
    """A node, scaled up by a common factor where the reservations would not fit four weeks at 70 % load."""
    wanted = (demand * duration[:, None].astype(np.int64)).sum(axis=0)
    load_of_four_weeks = wanted / (nodes * 28 * DAY * 0.7 * np.array(NODE))
    return (np.array(NODE) * max(1.0, float(load_of_four_weeks.max()))).astype(np.int32)


def _place(capacity: Array, node: Array, wished: Integers, duration: Array, demand: Array) -> Integers:
    """Each reservation, in order, at the earliest fit on its node after its wished time."""
    start = np.empty(len(node), np.int64)
    by_node = np.argsort(node, kind="stable")
    for mine in np.split(by_node, np.searchsorted(node[by_node], np.arange(1, len(capacity)))):
        if mine.size:
            plan = Plan(capacity[node[mine[0]]], len(mine))
            for index in mine:
                start[index] = plan.place(int(wished[index]), int(duration[index]), demand[index])
    return start


class Plan:
    """What is free on one node, being filled: step `i` lasts from `times[i]` to `times[i + 1]`."""

    def __init__(self, capacity: Array, reservations: int) -> None:
        self._times = np.full(2 * reservations + 2, _NEVER, np.int64)
        self._times[0] = 0
        self._free = np.empty((len(capacity), 2 * reservations + 2), np.int32)
        self._free[:, 0] = capacity
        self._steps = 1

    def place(self, wished: int, duration: int, demand: Array) -> int:
        """Hold `demand` for `duration` from the earliest time on, not before `wished`, at which it fits."""
        first = int(self._times[: self._steps].searchsorted(wished, "right")) - 1
        short = first + np.flatnonzero((self._free[:, first : self._steps] < demand[:, None]).any(axis=0))
        begins = np.empty(short.size + 1, np.int64)
        begins[0], begins[1:] = wished, self._times[short + 1]
        ends = np.append(self._times[short], _NEVER)
        start = int(begins[(ends - begins >= duration).argmax()])
        begin = self._cut(start)
        self._free[:, begin : self._cut(start + duration)] -= demand[:, None]
        return start

    def _cut(self, time: int) -> int:
        """The index of the step that begins at `time`, made where there is none."""
        steps = self._steps
        index = int(self._times[:steps].searchsorted(time))
        if self._times[index] != time:
            self._times[index + 1 : steps + 1] = self._times[index:steps]
            self._free[:, index : steps + 1] = self._free[:, index - 1 : steps]
            self._times[index] = time
            self._steps += 1
        return index


class Pool:
    """What is free on all nodes, as one array of steps, node after node: the plain way, with no index of any kind."""

    def __init__(self, capacity: Array, node: Array, start: Array, duration: Array, demand: Array) -> None:
        nodes = np.arange(len(capacity))
        where = np.concatenate([nodes, node, node])
        when = np.concatenate([np.zeros(len(capacity), np.int64), start, start.astype(np.int64) + duration])
        change = np.concatenate([capacity, -demand, demand]).astype(np.int64)
        order = np.lexsort([when, where])
        where, when, change = where[order], when[order], change[order]
        last = np.append((where[1:] != where[:-1]) | (when[1:] != when[:-1]), True)
        total = change.cumsum(axis=0)[last]
        where = where[last]
        before = np.concatenate([np.zeros((1, capacity.shape[1]), np.int64), capacity.cumsum(axis=0)[:-1]])
        self.free = total - before[where]
        """Per step what is free; below 0 where the reservations exceed a node."""
        self.begins = when[last]
        self.ends = np.where(np.append(where[1:] != where[:-1], True), _NEVER, np.append(self.begins[1:], 0))

    def gaps(self, demand: Array) -> tuple[Integers, Integers]:
        """When each stretch of time begins and ends in which `demand` fits on one node, and on the same throughout."""
        fits = (self.free >= demand).all(axis=1)
        joined = fits[1:] & fits[:-1] & (self.ends[:-1] != _NEVER)
        return self.begins[fits & ~np.append(False, joined)], self.ends[fits & ~np.append(joined, False)]


def answers(pool: Pool, asks: Asks) -> Integers:
    """Per ask the earliest four windows, each on any one node and beginning no earlier than the one before it ends.

    As no two of them overlap, none takes anything from another. −1 where there is none.
    """
    found = np.full((len(asks.since), WINDOWS), -1, np.int64)
    for row, demand, duration, since in zip(found, asks.demand, asks.duration, asks.since, strict=True):
        begins, ends = pool.gaps(demand)
        time = int(since)
        for window in range(WINDOWS):
            possible = np.maximum(begins, time)
            possible = possible[ends - possible >= duration]
            if possible.size:
                row[window] = possible.min()
                time = int(row[window] + duration)
    return found


def main() -> None:
    """`packed.py NODES RESERVATIONS`: make such a pool in the cache, and say what that took."""
    nodes, reservations = (int(argument) for argument in sys.argv[1:3])
    began = time.perf_counter()
    cached(nodes, reservations, seed=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"packed-{nodes}-{reservations}: {time.perf_counter() - began:.1f} s, at most {peak:.0f} MB of memory")


if __name__ == "__main__":
    main()
