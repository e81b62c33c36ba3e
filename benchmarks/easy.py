"""How long the jobs of a log wait on P equal processors: under EASY backfill, and with a fixed booking for each.

In both a job runs for its real run time, and so may end before its estimate. In one second ends come before
submissions, and all submissions before anything is started.
"""

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import NamedTuple

from swf import Job


class Outcome(NamedTuple):
    """Where each job starts, and what that comes to."""

    starts: list[int]
    mean_wait: float
    """Seconds from submission to start."""
    utilisation: float
    """The part of all processors that ran jobs, from the first submission to the last real end."""


def outcome(jobs: Sequence[Job], starts: list[int], processors: int) -> Outcome:
    """What any schedule of `jobs` comes to, one start for each."""
    if not jobs:
        raise ValueError("there is no job to schedule")
    pairs = list(zip(jobs, starts, strict=True))
    span = max(start + job.run for job, start in pairs) - min(job.submit for job in jobs)
    waited = sum(start - job.submit for job, start in pairs)
    return Outcome(starts, waited / len(jobs), sum(job.run * job.processors for job in jobs) / (processors * span))


def easy(jobs: Sequence[Job], processors: int) -> Outcome:
    """EASY backfill, the aggressive one: only the head of the first-come-first-served queue has a reservation.

    `jobs` are in order of submission. Source: D. Lifka, The ANL/IBM SP Scheduling System, JSSPP 1995.
    """
    _check(jobs, processors)
    machine, starts, queue, coming = _Machine(processors), [0] * len(jobs), list[int](), 0
    while coming < len(jobs) or queue:
        now = min(machine.next_end(), jobs[coming].submit if coming < len(jobs) else _NEVER)
        machine.end(now)
        while coming < len(jobs) and jobs[coming].submit == now:
            queue.append(coming)
            coming += 1
        for index in _started(jobs, queue, machine, now):
            starts[index] = now
    return outcome(jobs, starts, processors)


def fixed(jobs: Sequence[Job], processors: int, *, given_back: bool) -> Outcome:
    """A booking for each job when it is submitted: the earliest window of its estimate that is free. None is ever moved.

    `jobs` are in order of submission. Where `given_back`, the rest of a booking is free for those who come after the
    job's real end; otherwise it is held until the booked end.
    """
    _check(jobs, processors)
    bookings, starts, early = _Bookings(processors), list[int](), list[tuple[int, int, int]]()
    for job in jobs:
        while early and early[0][0] <= job.submit:
            end, booked_end, held = heapq.heappop(early)
            bookings.take(end, booked_end, -held)
        bookings.forget(job.submit)
        start = bookings.earliest(job.submit, job.estimate, job.processors)
        bookings.take(start, start + job.estimate, job.processors)
        starts.append(start)
        if given_back:
            heapq.heappush(early, (start + job.run, start + job.estimate, job.processors))
    return outcome(jobs, starts, processors)


class _Machine:
    """What runs now: by real ends, to let time pass, and by estimated ends, to look ahead."""

    def __init__(self, processors: int) -> None:
        self.free = processors
        self._real: list[tuple[int, int, int]] = []
        self._estimated: list[tuple[int, int]] = []

    def start(self, job: Job, now: int) -> None:
        self.free -= job.processors
        heapq.heappush(self._real, (now + job.run, now + job.estimate, job.processors))
        insort(self._estimated, (now + job.estimate, job.processors))

    def next_end(self) -> int:
        return self._real[0][0] if self._real else _NEVER

    def end(self, now: int) -> None:
        """What ends by `now` gives its processors back."""
        while self.next_end() <= now:
            _, estimated, processors = heapq.heappop(self._real)
            self.free += processors
            del self._estimated[bisect_left(self._estimated, (estimated, processors))]

    def shadow(self, processors: int) -> tuple[int, int]:
        """When `processors`, more than are free, will be free by the estimates, and how many are left over then."""
        free = self.free
        for position, (end, given_back) in enumerate(self._estimated):
            free += given_back
            last_of_its_second = position + 1 == len(self._estimated) or self._estimated[position + 1][0] > end
            if free >= processors and last_of_its_second:
                return end, free - processors
        raise AssertionError("a job larger than the machine")


def _started(jobs: Sequence[Job], queue: list[int], machine: _Machine, now: int) -> list[int]:
    """What starts now, and leaves `queue`: first from its head on, then whatever does not delay the first that must wait."""
    heads = 0
    while heads < len(queue) and jobs[queue[heads]].processors <= machine.free:
        machine.start(jobs[queue[heads]], now)
        heads += 1
    started, queue[:] = queue[:heads], queue[heads:]
    if not queue or not machine.free:
        return started
    filling = set(_backfilled(jobs, queue, machine, now))
    queue[:] = [index for index in queue if index not in filling]
    return [*started, *filling]


def _backfilled(jobs: Sequence[Job], queue: list[int], machine: _Machine, now: int) -> list[int]:
    shadow, extra = machine.shadow(jobs[queue[0]].processors)
    started = []
    for index in queue[1:]:
        job = jobs[index]
        ends_before = now + job.estimate <= shadow
        if job.processors <= (machine.free if ends_before else min(machine.free, extra)):
            machine.start(job, now)
            extra -= 0 if ends_before else job.processors
            started.append(index)
    return started


class _Bookings:
    """How many processors are free from each time on; the last number holds for ever."""

    def __init__(self, processors: int) -> None:
        self._times, self._free = [0], [processors]

    def forget(self, before: int) -> None:
        past = bisect_right(self._times, before) - 1
        del self._times[:past], self._free[:past]

    def earliest(self, since: int, duration: int, processors: int) -> int:
        """The first start, not before `since`, of a window in which `processors` are free throughout."""
        start = since
        for time, next_time, free in zip(self._times, [*self._times[1:], _NEVER], self._free, strict=True):
            if time >= start + duration:
                break
            if free < processors:
                start = max(start, next_time)
        return start

    def take(self, start: int, end: int, processors: int) -> None:
        """Fewer than 0 processors are given back. What is forgotten stays so."""
        start, end = max(start, self._times[0]), max(end, self._times[0])
        first, last = self._cut(start), self._cut(end)
        self._free[first:last] = [free - processors for free in self._free[first:last]]

    def _cut(self, time: int) -> int:
        """The index of the step that begins at `time`, made where there is none."""
        index = bisect_left(self._times, time)
        if index == len(self._times) or self._times[index] != time:
            self._times.insert(index, time)
            self._free.insert(index, self._free[index - 1])
        return index


def _check(jobs: Sequence[Job], processors: int) -> None:
    for before, job in zip([None, *jobs], jobs, strict=False):
        if not 1 <= job.processors <= processors:
            raise ValueError(f"job {job.number} wants {job.processors} processors: there are {processors}")
        if before and before.submit > job.submit:
            raise ValueError(f"job {job.number} was submitted before job {before.number}: sort the jobs by submission")


_NEVER = 1 << 62
