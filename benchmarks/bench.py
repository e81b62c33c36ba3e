"""What `make bench` prints: the scheduling by itself, what durability costs, and a real broker process over HTTP on loopback,
on a data folder of its own."""

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import cycle as cycle_through
from pathlib import Path
from typing import Any

import cycle
import door
import easy
import fresh
import replay
import swf
import together
import windows
from load import Connection, hammer
from together import Server

from execbroker.ledger.database import Database
from execbroker.ledger.sqlite import Sqlite

TRACES = Path(__file__).resolve().parents[2] / "shared" / "traces"

REQUEST = {
    "executable": {"kind": "docker-container", "image": {"locations": ["ghcr.io/example/image:1"]}},
    "compute": {"kind": "simple-compute-resource", "cores": {"min": 2}, "memory": {"min": 4}},
    "schedule": {"requested": {"duration": "PT30M"}},
}
POOL = [{"name": "pool", "type": "fake", "nodes": [{"count": 20, "cores": 64, "memory": 256, "storage": 1000}]}]
PROGRAM = "import time; time.sleep(3)\n"


@contextmanager
def broker(
    folder: Path, platforms: list[dict[str, Any]], database: str | None = None, **settings: Any
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any], float]]:
    """A broker process, where it listens and what opens it, and how long it took until it answered."""
    config = folder / "config.yaml"
    config.write_text(json.dumps({"platforms": platforms, "database": database, "data": {"folders": [str(folder)]}, **settings}))
    data, began = folder / "data", time.perf_counter()
    command = [sys.executable, "-m", "execbroker", "serve", "--config", str(config), "--port", "0", "--data", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("wb"))
    try:
        while not (data / "server.json").exists():
            if process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.01)
        where, token = json.loads((data / "server.json").read_text()), data / "token"
        where["credentials"] = f"Bearer {token.read_text().strip()}" if token.exists() else ""
        yield process, where, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(30)


def resident(pid: int) -> float:
    """MB of memory that a process has in RAM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def row(name: str, value: str, goal: str = "") -> None:
    print(f"| {name:<58} | {value:>26} | {goal:>16} |", flush=True)


def milliseconds(times: list[float], digits: int = 1) -> str:
    """Median and 99th percentile."""
    ordered = sorted(times)
    return f"{statistics.median(ordered) * 1e3:.{digits}f} / {ordered[int(len(ordered) * 0.99)] * 1e3:.{digits}f} ms"


def windows_rows() -> None:
    """Four windows in busy pools, each answer compared with the exact one."""
    for nodes, reservations in windows.SIZES:
        goals = ("<= 0.5 / 3 ms", "<= 0.3 ms", "<= 1 s") if reservations == 100_000 else ("", "", "")
        _windows(f"{reservations:,} on {nodes} node{'s' * (nodes > 1)}", windows.shared(nodes, reservations), *goals)
    found, size = windows.large(1000, 1_000_000)
    _windows("1,000,000 on 1000 nodes", found, "<= 3 / 15 ms", "", "<= 10 s")
    row("1,000,000 on 1000 nodes: memory of the timeline", f"{size:.0f} MB")


def _windows(name: str, found: windows.Measured, search: str, holds: str, load: str) -> None:
    row(f"{name}: answers that are exact", f"{found.asks - found.wrong} of {found.asks}", "all")
    row(f"{name}: four windows, median / p99", milliseconds(found.search, 2), search)
    row(f"{name}: hold and release four, median / p99", milliseconds(found.holds, 2), holds)
    row(f"{name}: load", f"{found.load:.2f} s", load)


def replay_rows() -> None:
    """Mean waits on logs of real machines."""
    for name, file, processors in (("KTH-SP2", "KTH-SP2-1996-2.1-cln", 100), ("NASA-iPSC", "NASA-iPSC-1993-3.1-cln", 128)):
        if not (path := TRACES / f"{file}.swf.gz").exists():
            row(f"{name}: mean wait", "the log is not here")
            continue
        jobs = swf.read(path, processors).jobs
        fixed, backfill = easy.fixed(jobs, processors, given_back=True), easy.easy(jobs, processors)
        began = time.perf_counter()
        ours = replay.pulled(jobs, processors)
        seconds = time.perf_counter() - began
        row(f"{name}, {len(jobs):,} jobs: mean wait, fixed bookings", f"{fixed.mean_wait:,.0f} s")
        row(f"{name}: mean wait, EASY backfill", f"{backfill.mean_wait:,.0f} s")
        ratio = f"{ours.mean_wait / backfill.mean_wait:.3f} x"
        row(f"{name}: mean wait, flexible, pulled forward", f"{ours.mean_wait:,.0f} s, {ratio}", "<= 1.10 x EASY")
        used = f"{ours.utilisation:.2%} / {backfill.utilisation:.2%}"
        row(f"{name}: utilisation, ours / EASY", used, "within 0.1 point")
        row(f"{name}: replayed in", f"{seconds:.1f} s")


def cycle_rows() -> None:
    """Four offers held, one accepted, three released."""
    for name, cycles, clients in (("one by one", 300, 1), ("batched", 3000, 64)):
        rates = cycle.compare(cycles, clients)
        each = " / ".join(f"{rate:,.0f}" for rate in rates)
        row(f"durable cycle, {name}: books / ledger / driver alone", f"{each} per s")
        ratios = f"{rates.books / rates.ledger:.2f}, {rates.books / rates.driver:.2f}"
        row(f"durable cycle, {name}: books to ledger, to driver", ratios, ">= 0.5")


def shared_rows() -> None:
    """The same by brokers that share a PostgreSQL, and what a client sees of it."""
    if Server.programs() is None:
        row("PostgreSQL", "it is not here")
        return
    server = Server(durable=True)
    try:
        for processes, clients in ((1, 1), (3, 1), (1, 16), (3, 16)):
            rates = together.compare(server, processes, clients)
            named = f"PostgreSQL, {processes} process{'es' * (processes > 1)} of {clients} client{'s' * (clients > 1)}"
            row(f"{named}: books / ledger alone", f"{rates.books:,.0f} / {rates.ledger:,.0f} per s")
            row(f"{named}: ratio", f"{rates.books / rates.ledger:.2f}", ">= 0.6")
        for brokers in (1, 3):
            server.create(f"http{brokers}", "empty")
            with ExitStack() as stack:
                wheres = []
                for _ in range(brokers):
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    _, where, _ = stack.enter_context(broker(folder, POOL, server.address(f"http{brokers}")))
                    wheres.append(where)
                asyncio.run(offers(wheres, 16, 1000, f"{brokers} on PostgreSQL, "))
        server.create("fresh", "empty")
        fresh_rows("PostgreSQL", server.database("fresh"), server.address("fresh"))
    finally:
        server.remove()


def fresh_rows(name: str, database: Database, address: str | None = None) -> None:
    """From the start of a broker to its first answer, with many bookings in its ledger."""
    nodes = [{"count": fresh.NODES, "cores": 64, "memory": 256, "storage": 1000}]
    booked = fresh.fill(database, "pool")
    with ExitStack() as stack:
        folder = Path(database.name).parents[1] if address is None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        began = time.perf_counter()
        _, where, _ = stack.enter_context(broker(folder, [{"name": "pool", "type": "fake", "nodes": nodes}], address))
        asyncio.run(ask(where))
        row(f"{name}, {booked:,} bookings: start to first answer", f"{time.perf_counter() - began:.2f} s", "<= 3 s")


async def ask(where: dict[str, Any]) -> None:
    host, port = where["url"].removeprefix("http://").split(":")
    async with Connection(host, int(port), where["credentials"]) as connection:
        await connection.call("POST", "/requests", REQUEST)


async def offers(wheres: list[dict[str, Any]], clients: int, requests: int, name: str = "") -> list[bytes]:
    """From each of these brokers in turn."""
    ports = cycle_through([(where["url"].removeprefix("http://").split(":"), where["credentials"]) for where in wheres])

    def connect() -> Connection:
        (host, port), credentials = next(ports)
        return Connection(host, int(port), credentials)

    body = json.dumps(REQUEST).encode()
    seconds, times, answers = await hammer(connect, clients, requests, "/requests", body)
    if any(len(json.loads(answer)["offers"]) != 4 for answer in answers):
        raise SystemExit("an answer without four offers")
    named = f"{name}POST /requests, {clients} client{'s' * (clients > 1)}"
    row(f"{named}: offersets per second", f"{requests / seconds:.0f}", ">= 200" if clients > 1 else "")
    row(f"{named}: p50 / p99", milliseconds(times))
    return answers


async def accepts(where: dict[str, Any], answers: list[bytes]) -> None:
    host, port = where["url"].removeprefix("http://").split(":")
    times = []
    async with Connection(host, int(port), where["credentials"]) as connection:
        for answer in answers:
            offer = json.loads(answer)["offers"][-1]["meta"]["uuid"]
            began = time.perf_counter()
            await connection.call("POST", f"/sessions/{offer}", update("ACCEPTED"))
            times.append(time.perf_counter() - began)
    row("accept, 1 client: p50 / p99", milliseconds(times), "p99 <= 20 ms")


@contextmanager
def flushes(folder: Path) -> Iterator[list[float]]:
    """Seconds that this disk takes, meanwhile, to flush 4 KiB: a broker answers no sooner."""
    times, over = list[float](), threading.Event()

    def work() -> None:
        with (folder / "flushed").open("wb", buffering=0) as file:
            while not over.wait(0.02):
                file.write(bytes(4096))
                began = time.perf_counter()
                os.fdatasync(file.fileno())
                times.append(time.perf_counter() - began)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join()


def update(phase: str) -> dict[str, str]:
    return {"kind": "uri:enum-value-update", "path": "phase", "value": phase}


async def start(where: dict[str, Any], folder: Path, runs: int) -> None:
    """From the answer to the acceptance of an offer whose start has come, to RUNNING as a client sees it."""
    host, port = where["url"].removeprefix("http://").split(":")
    (folder / "program.py").write_text(PROGRAM)
    request = {
        "executable": {"kind": "urn:execbroker:kind:executable:python-program", "location": f"file://{folder}/program.py"},
        "compute": {"kind": "simple-compute-resource", "cores": {"min": 1, "max": 1}, "memory": {"min": 1, "max": 1}},
        "schedule": {"requested": {"duration": "PT1M"}},
    }
    times = []
    async with Connection(host, int(port), where["credentials"]) as connection:
        for _ in range(runs):
            offer = (await connection.call("POST", "/requests", request))["offers"][0]
            starts = offer["schedule"]["available"]["start"].partition("/")[0]
            await asyncio.sleep(max(datetime.fromisoformat(starts).timestamp() - time.time(), 0))
            path = f"/sessions/{offer['meta']['uuid']}"
            began, phase = time.perf_counter(), "OFFERED"
            while phase != "RUNNING":
                document = update("ACCEPTED") if phase == "OFFERED" else None
                wait = path if document else f"{path}?wait=10&phase={phase}"
                phase = (await connection.call("POST" if document else "GET", wait, document))["phase"]
                if phase in ("FAILED", "COMPLETED"):
                    raise SystemExit(f"the session ended before it was seen to run: {phase}")
            times.append(time.perf_counter() - began)
            await connection.call("POST", path, update("CANCELLED"))
            while phase not in ("CANCELLED", "FAILED"):
                phase = (await connection.call("GET", f"{path}?wait=10&phase={phase}"))["phase"]
    seconds = f"{statistics.median(times):.2f} / {max(times):.2f} s"
    row(f"accept -> RUNNING of a process, {runs} runs: median / max", seconds, "<= 1 s")


def door_rows() -> None:
    """What somebody else notices of an attack, with the limits that there are where nothing is set. The data folder is in memory
    where that can be: how long a disk may take to flush says nothing about the door."""
    attacks = (
        (None, "nothing"),
        ("slow", "1,000 slow or half-open connections"),
        ("bombs", "16 clients with bodies that unpack to 1 GiB"),
        ("flood", "64 clients of one identity that flood"),
    )
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    for kind, name in attacks:
        with (
            tempfile.TemporaryDirectory(dir=memory) as folder,
            broker(Path(folder), POOL, auth=door.AUTH) as (process, where, _),
        ):
            with door.attacked(kind, where):
                times = asyncio.run(door.others(where))
            row(f"beside {name}: others' p50 / p99", milliseconds(times), "p99 <= 100 ms")
            row(f"beside {name}: memory", f"{resident(process.pid):.0f} MB")


def main() -> None:
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.release()}\n")
    row("what", "measured", "goal")
    row("-" * 58, "-" * 26, "-" * 16)
    windows_rows()
    cycle_rows()
    shared_rows()
    replay_rows()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").mkdir()
        fresh_rows("SQLite", Sqlite(Path(folder) / "data" / "ledger.sqlite"))
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder), POOL) as (process, where, seconds):
        row("start-up until the first answer", f"{seconds:.2f} s")
        time.sleep(1)
        row("memory at rest", f"{resident(process.pid):.0f} MB", "<= 120 MB")
        asyncio.run(offers([where], 1, 500))
        answers = asyncio.run(offers([where], 16, 2000))
        with flushes(Path(folder)) as flushed:
            asyncio.run(accepts(where, answers[:300]))
        row("a flush of the disk meanwhile: p50 / p99", milliseconds(flushed))
        row("memory after 2,500 offersets", f"{resident(process.pid):.0f} MB")
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder), [{"name": "local", "type": "local"}]) as (_, where, _s):
        asyncio.run(start(where, Path(folder), 10))
    door_rows()


if __name__ == "__main__":
    main()
