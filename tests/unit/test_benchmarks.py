"""What the benchmarks measure against, itself against the plainest thing that can be right, and against known figures."""

import gzip
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import easy
import packed
import swf

ROOT = Path(__file__).parents[2]
PROCESSORS = 5
HORIZON = 400
LOG = """\
; MaxJobs: 7
; MaxProcs: 100
; Note: a log
   15 599850 192180 3477 4 -1 -1 -1 53940 -1 1 12 12 -1 -1 -1 -1 -1
   16 599850      0   50 3 -1 -1  8    -1 -1 1 12 12 -1 -1 -1 -1 -1
   17 600000      0    0 3 -1 -1  8    60 -1 1 12 12 -1 -1 -1 -1 -1

   18 600001      0   -1 3 -1 -1  8    60 -1 1 12 12 -1 -1 -1 -1 -1
   19 600002      0   10 3 -1 -1 101   60 -1 1 12 12 -1 -1 -1 -1 -1
   20 600003      0   10 -1 -1 -1 -1   60 -1 1 12 12 -1 -1 -1 -1 -1
   21 599000      0   70 3 -1 -1 100   60 -1 1 12 12 -1 -1 -1 -1 -1
"""


def shared(name: str) -> Path:
    path = ROOT.parent / "shared" / name
    if not path.exists():
        what = f"{path} is missing: the logs are in the Parallel Workloads Archive, the pools come with the project's benchmarks"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(what)
    return path


def job(number: int, submit: int, run: int, processors: int, estimate: int) -> swf.Job:
    return swf.Job(number, submit, run, processors, estimate)


sizes = st.tuples(st.sampled_from([0, 0, 0, 1, 4]), st.integers(1, 9), st.integers(1, PROCESSORS), st.integers(0, 6))


@st.composite
def some_jobs(draw: st.DrawFn) -> list[swf.Job]:
    jobs, now = list[swf.Job](), 0
    for number, (gap, run, processors, spare) in enumerate(draw(st.lists(sizes, min_size=6, max_size=20))):
        now += gap
        jobs.append(job(number, now, run, processors, run + spare))
    return jobs


def test_which_jobs_of_a_log_count(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "log.swf", tmp_path / "log.swf.gz"
    plain.write_text(LOG)
    zipped.write_bytes(gzip.compress(LOG.encode()))
    log = swf.read(plain)
    assert log == swf.read(zipped)
    assert (log.processors, log.records) == (100, 7)
    assert log.jobs == [job(21, 599000, 70, 100, 70), job(15, 599850, 3477, 4, 53940), job(16, 599850, 50, 8, 50)]
    assert [one.number for one in swf.read(plain, processors=8).jobs] == [15, 16]
    assert swf.read(plain, step=60).jobs[0] == job(21, 599040, 120, 100, 120)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("; Version: 2.2\n", "the header has no `; MaxProcs: <number>`"),
        ("; MaxProcs: 8\n1 2 3\n", r"log.swf, line 2: a job has 18 fields, not 3"),
        ("; MaxProcs: 8\n\n1 2 3 x" + " 0" * 14, r"log.swf, line 3: times and processors are whole numbers: .*'x'"),
    ],
)
def test_what_is_no_log_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "log.swf").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        swf.read(tmp_path / "log.swf")


def test_half_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "log.swf.gz").write_bytes(gzip.compress(LOG.encode())[:-20])
    with pytest.raises(ValueError, match=r"log\.swf\.gz is not a whole gzip file"):
        swf.read(tmp_path / "log.swf.gz")


def test_easy_as_worked_out_by_hand() -> None:
    jobs = [
        job(0, 0, 10, 2, 20),  # starts at once, and ends 10 s early
        job(1, 0, 5, 4, 5),  # the head waits for job 0: promised for 20, with 1 processor to spare then
        job(2, 1, 19, 1, 19),  # ends at 20 by its estimate, when the head is promised
        job(3, 2, 30, 2, 30),  # fits now, but would delay the head; has to wait for its end at 25
        job(4, 3, 18, 1, 18),  # one second too long, but on the processor to spare
        job(5, 3, 18, 1, 18),  # and that is taken now; it gets the same one from 21 on
    ]
    assert easy.easy(jobs, PROCESSORS).starts == [0, 20, 1, 25, 3, 21]


def test_figures_of_a_schedule() -> None:
    found = easy.outcome([job(0, 10, 6, 2, 6), job(1, 12, 4, 4, 9)], [10, 16], PROCESSORS)
    assert (found.mean_wait, found.utilisation) == (2.0, (6 * 2 + 4 * 4) / (PROCESSORS * 10))


@pytest.mark.parametrize(
    ("jobs", "complaint"),
    [
        ([], "there is no job"),
        ([job(1, 0, 5, 6, 5)], "job 1 wants 6 processors: there are 5"),
        ([job(1, 3, 5, 1, 5), job(2, 2, 5, 1, 5)], "job 2 was submitted before job 1"),
    ],
)
def test_jobs_that_cannot_be_scheduled(jobs: list[swf.Job], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        easy.easy(jobs, PROCESSORS)
    with pytest.raises(ValueError, match=complaint):
        easy.fixed(jobs, PROCESSORS, given_back=True)


def easy_by_the_second(jobs: list[swf.Job]) -> list[int]:
    """EASY with an array of what is free by the estimates, looked at anew after every start."""
    starts: dict[int, int] = {}
    for now in range(HORIZON):
        free = np.full(2 * HORIZON, PROCESSORS)
        for index, start in starts.items():
            if start + jobs[index].run > now:
                free[: start + jobs[index].estimate] -= jobs[index].processors
        promised = None
        for index, one in enumerate(jobs):
            if index in starts or one.submit > now:
                continue
            if promised is None and free[now] < one.processors:
                promised = int(np.argmax(free >= one.processors))
                spare = free[promised] - one.processors
            elif promised is None or (
                free[now] >= one.processors and (now + one.estimate <= promised or one.processors <= spare)
            ):
                starts[index] = now
                free[: now + one.estimate] -= one.processors
                if promised is not None and now + one.estimate > promised:
                    spare -= one.processors
    return [starts[index] for index in range(len(jobs))]


@settings(max_examples=400)
@given(some_jobs())
def test_easy_against_every_second(jobs: list[swf.Job]) -> None:
    assert easy.easy(jobs, PROCESSORS).starts == easy_by_the_second(jobs)


@given(some_jobs(), st.booleans())
def test_fixed_bookings_against_every_second(jobs: list[swf.Job], given_back: bool) -> None:
    starts: list[int] = []
    for one in jobs:
        free = np.full(HORIZON, PROCESSORS)
        for before, start in zip(jobs, starts, strict=False):
            over = given_back and start + before.run <= one.submit
            free[start : start + (before.run if over else before.estimate)] -= before.processors
        fits = (free[since : since + one.estimate].min() >= one.processors for since in range(one.submit, HORIZON))
        starts.append(one.submit + list(fits).index(True))
    assert easy.fixed(jobs, PROCESSORS, given_back=given_back).starts == starts


def test_the_known_figures_of_kth() -> None:
    path = shared("traces/KTH-SP2-1996-2.1-cln.swf.gz")
    minutes, seconds = swf.read(path, step=60), swf.read(path)
    assert (minutes.processors, len(minutes.jobs)) == (100, 28467)
    assert round(easy.easy(minutes.jobs, 100).mean_wait) == 6851
    assert round(easy.easy(seconds.jobs, 100).mean_wait) == 6805


def test_the_known_figures_of_nasa() -> None:
    log = swf.read(shared("traces/NASA-iPSC-1993-3.1-cln.swf.gz"))
    assert (log.processors, len(log.jobs), log.records) == (128, 18066, 18239)


WORKLOADS = ["packed-1-10000", "packed-100-10000", "packed-100-100000"]


def same(one: packed.Workload, other: packed.Workload) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in packed.Workload.__slots__)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_known_answers(name: str) -> None:
    workload = packed.load(shared(f"bench/{name}.npz"))
    assert workload.pool.free.min() >= 0
    assert np.array_equal(packed.answers(workload.pool, workload.asks), workload.answer_start)


@pytest.mark.parametrize("name", WORKLOADS[:2])
def test_the_recipe_makes_the_known_pools(name: str) -> None:
    nodes, reservations = (int(part) for part in name.split("-")[1:])
    assert same(packed.generate(nodes, reservations, seed=1), packed.load(shared(f"bench/{name}.npz")))


def test_a_pool_is_made_once(tmp_path: Path) -> None:
    made = packed.cached(3, 200, seed=7, folder=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_mtime_ns
    again = packed.cached(3, 200, seed=7, folder=tmp_path / "cache")
    assert same(made, again)
    assert file.stat().st_mtime_ns == written
    assert not same(made, packed.cached(3, 200, seed=8, folder=tmp_path / "cache"))


def test_what_is_no_workload_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", node=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz has no answer_start, .*: it is not a packed workload"):
        packed.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="at least one node and one reservation, not 0 and 5"):
        packed.generate(0, 5, seed=1)


LONG = 100
demands = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda pair: np.array(pair, np.int32))
reservations = st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(1, 8), demands)
CAPACITY = np.array([[4, 5], [5, 4]], np.int32)


def earliest(free: Any, since: int, duration: int, demand: Any) -> int:
    """On one node whose free amounts are given for each second."""
    fits = (free >= demand).all(axis=1)
    return next((start for start in range(since, LONG) if fits[start : start + duration].all()), LONG)


@settings(max_examples=200)
@given(st.lists(reservations, max_size=12), st.lists(reservations, min_size=1, max_size=5))
def test_placing_and_answers_against_every_second(placed: list[Any], asked: list[Any]) -> None:
    plans = [packed.Plan(capacity, len(placed)) for capacity in CAPACITY]
    free = np.repeat(CAPACITY[:, None], 2 * LONG, axis=1)
    starts = []
    for node, wished, duration, demand in placed:
        starts.append(plans[node].place(wished, duration, demand))
        assert starts[-1] == earliest(free[node], wished, duration, demand)
        free[node, starts[-1] : starts[-1] + duration] -= demand
    node, _, duration, demand = columns(placed)
    pool = packed.Pool(CAPACITY, node, np.array(starts, np.int64), duration, demand)
    _, since, duration, demand = columns(asked)
    answers = packed.answers(pool, packed.Asks(demand, duration, since))
    for row, (_, first, wanted, amounts) in zip(answers, asked, strict=True):
        time = first
        for found in row:
            assert found == min(earliest(one, time, wanted, amounts) for one in free)
            time = found + wanted


def columns(rows: list[Any]) -> tuple[Any, Any, Any, Any]:
    node, when, duration, demand = zip(*rows, strict=True) if rows else ((), (), (), ())
    return (*(np.array(column, np.int64) for column in (node, when, duration)), np.array(demand, np.int32).reshape(-1, 2))


def test_what_fits_no_node_has_no_answer() -> None:
    node, start, duration, demand = columns([(0, 0, 5, (4, 5))])
    pool = packed.Pool(CAPACITY, node, start, duration, demand)
    asks = packed.Asks(np.array([[5, 5], [5, 4]]), np.array([3, 3]), np.array([2, 2]))
    assert packed.answers(pool, asks).tolist() == [[-1] * 4, [2, 5, 8, 11]]
