"""Logs of real machines in the Standard Workload Format, version 2.2 (Feitelson, Parallel Workloads Archive)."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FIELDS = 18
_SUBMIT, _RUN, _USED, _REQUESTED, _ESTIMATE = 1, 3, 4, 7, 8


class Job(NamedTuple):
    """What a log says of a job: seconds from the log's beginning, and seconds; `estimate` is never below `run`."""

    number: int
    submit: int
    run: int
    processors: int
    estimate: int


class Log(NamedTuple):
    """The usable jobs by their time of submission, equal times as in the log, and how many jobs the log has in all."""

    processors: int
    jobs: list[Job]
    records: int


def read(path: Path, processors: int | None = None, step: int = 1) -> Log:
    """The jobs that ran for more than 0 s on 1 to `processors` processors, requested where given, else used.

    `processors` is the header's `MaxProcs` unless given. A requested time that is missing or below the run time
    counts as the run time. All times are rounded up to whole `step`s, in seconds. Raises ValueError, which names
    file and line, for what is not such a log.
    """
    header: dict[str, str] = {}
    jobs = [_job(fields, where) for fields, where in _records(path, header)]
    if processors is None:
        if not header.get("MaxProcs", "").isdecimal():
            raise ValueError(f"{path}: the header has no `; MaxProcs: <number>`: say how many processors there are")
        processors = int(header["MaxProcs"])
    usable = [job for job in jobs if job.run > 0 and 1 <= job.processors <= processors]
    rounded = [_rounded_up(job, step) for job in usable]
    return Log(processors, sorted(rounded, key=lambda job: job.submit), len(jobs))


def _rounded_up(job: Job, step: int) -> Job:
    submit, run, estimate = (-(-time // step) * step for time in (job.submit, job.run, job.estimate))
    return job._replace(submit=submit, run=run, estimate=estimate)


def _records(path: Path, header: dict[str, str]) -> Iterator[tuple[list[str], str]]:
    """The fields of each job and where they are; the lines of the header go into `header`."""
    for number, line in enumerate(_lines(path), 1):
        if line.startswith(";"):
            key, _, value = line[1:].partition(":")
            header.setdefault(key.strip(), value.strip())
        elif line.strip():
            yield line.split(), f"{path}, line {number}"


def _lines(path: Path) -> Iterator[str]:
    zipped = path.suffix == ".gz"
    with (gzip.open if zipped else open)(path, "rt", encoding="utf-8", errors="replace") as file:
        try:
            yield from file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file: {error}") from error


def _job(fields: list[str], where: str) -> Job:
    if len(fields) != _FIELDS:
        raise ValueError(f"{where}: a job has {_FIELDS} fields, not {len(fields)}")
    try:
        submit, run, used, requested, estimate = (int(fields[i]) for i in (_SUBMIT, _RUN, _USED, _REQUESTED, _ESTIMATE))
        return Job(int(fields[0]), submit, run, requested if requested > 0 else used, max(estimate, run))
    except ValueError as error:
        raise ValueError(f"{where}: times and processors are whole numbers: {error}") from error
