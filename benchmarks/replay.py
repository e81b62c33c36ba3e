"""A log of a real machine, asked of the broker's own scheduling: one flexible request per job when it was submitted.

A job holds the earliest window of its estimate. When one ends early, the jobs that wait are pulled forward, those first that
were to start first. In one second ends come before submissions, as in `easy`.
"""

import heapq
from bisect import insort
from collections.abc import Sequence
from dataclasses import replace

from easy import Outcome, outcome
from swf import Job

from execbroker.model.waist import Capacity, Node, Slot
from execbroker.scheduling.asks import FOREVER, Ask, Candidate, Part, Range
from execbroker.scheduling.moving import replaced
from execbroker.scheduling.objectives import first_of
from execbroker.scheduling.timeline import Timeline, bookings_of

MACHINE = "machine"


def pulled(jobs: Sequence[Job], processors: int) -> Outcome:
    """Where each job starts."""
    return outcome(jobs, _Replay(jobs, processors).run(), processors)


class _Replay:
    def __init__(self, jobs: Sequence[Job], processors: int) -> None:
        self.jobs = jobs
        self.timeline = Timeline()
        self.timeline.set_capacity(MACHINE, Capacity((Node("all", processors, 0),)))
        self.slots: list[Slot] = []
        self.waiting: list[tuple[int, int]] = []
        self.running: list[tuple[int, int]] = []

    def run(self) -> list[int]:
        for index, job in enumerate(self.jobs):
            self._until(job.submit)
            self.timeline.forget(job.submit)
            self._submit(index, job)
        self._until(FOREVER)
        return [slot.start for slot in self.slots]

    def _submit(self, index: int, job: Job) -> None:
        part = Part(Range(job.processors, job.processors), Range(0, 0))
        ask = Ask((part,), (), job.estimate, job.submit, FOREVER, (Candidate(MACHINE, 0, 0),), 1, batch=True)
        slot = first_of(self.timeline, ask, job.submit)
        assert slot is not None
        slot = replace(slot, floor=job.submit)
        self.timeline.take(bookings_of(slot))
        self.slots.append(slot)
        self._await(index, job.submit)

    def _await(self, index: int, now: int) -> None:
        start = self.slots[index].start
        if start <= now:
            heapq.heappush(self.running, (start + self.jobs[index].run, index))
        else:
            insort(self.waiting, (start, index))

    def _until(self, now: int) -> None:
        """Let all happen that does by `now`: what is due starts, what is done ends and gives back what it held too long."""
        while self.running or self.waiting:
            starts = self.waiting[0][0] if self.waiting else FOREVER
            ends = self.running[0][0] if self.running else FOREVER
            if min(starts, ends) > now:
                return
            if starts < ends:
                self._await(self.waiting.pop(0)[1], starts)
            else:
                self._end(ends)

    def _end(self, now: int) -> None:
        freed = False
        while self.running and self.running[0][0] == now:
            slot = self.slots[heapq.heappop(self.running)[1]]
            if slot.end > now:
                self.timeline.give(piece._replace(start=now) for piece in bookings_of(slot))
                freed = True
        if freed:
            self._pull(now)

    def _pull(self, now: int) -> None:
        waiting, self.waiting = self.waiting, []
        for _, index in waiting:
            slot = self.slots[index]
            held = bookings_of(slot)
            self.timeline.give(held)
            found = replaced(self.timeline, slot, now, slot.start - 1) or slot
            self.timeline.take(held if found is slot else bookings_of(found))
            self.slots[index] = found
            self._await(index, now)
