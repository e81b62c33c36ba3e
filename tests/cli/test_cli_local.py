import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from processsite import DEADLINE, Site, environment

PROGRAM = """
import pathlib, sys
print("first line", flush=True)
pathlib.Path("results/answer.txt").write_text("42")
pathlib.Path("plain.txt").write_text("home")
print("worried", file=sys.stderr)
print("no end", end="")
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def laptop(own_broker: Site, tmp_path: Path) -> Site:
    """A broker that runs programs on this machine."""
    (tmp_path / "program.py").write_text(PROGRAM)
    own_broker.settings = {
        "platforms": [{"name": "here", "type": "local", "nodes": [{"cores": 2, "memory": 2, "storage": 10}]}],
        "data": {"folders": [str(tmp_path)]},
    }
    return own_broker.start()


def options(folder: Path, code: int = 0) -> list[str]:
    words = ["--program", str(folder / "program.py"), "--arg", str(code), "--duration", "1m", "--storage", "results=1"]
    return [*words, "--cores", "1", "--memory", "1"]


def test_run_shows_the_output_and_get_fetches_the_results(laptop: Site, tmp_path: Path) -> None:
    done = laptop("run", *options(tmp_path))
    assert done.code == 0, done.out
    assert all(f"  │ {line}\n" in done.out for line in ("first line", "worried", "no end"))
    uuid = done.out.split()[1]
    fetched = laptop("get", uuid, str(tmp_path / "got"))
    paths = {Path(line) for line in fetched.out.splitlines()}
    assert paths == {tmp_path / "got" / name for name in ("home/plain.txt", "home/program.py", "storage/results/answer.txt")}
    assert (tmp_path / "got/storage/results/answer.txt").read_text() == "42"


def test_a_session_that_fails_ends_with_1_and_says_why(laptop: Site, tmp_path: Path) -> None:
    done = laptop("run", *options(tmp_path, code=3))
    assert done.code == 1
    assert "exit code 3" in done.out


def test_a_terminal_gets_a_live_line_and_ctrl_c_only_detaches(laptop: Site, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import time\nprint('here it goes', flush=True)\ntime.sleep(8)\n")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "execbroker", "run", *options(tmp_path), "--data", str(laptop.data)]
    process = subprocess.Popen(command, env=environment(TERM="xterm"), stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = read_until(master, b"here it goes")
    process.send_signal(signal.SIGINT)
    seen += read_until(master, None)
    os.close(master)
    assert process.wait(DEADLINE) == 130
    text = seen.decode()
    assert "RUNNING" in text
    assert "\x1b[" in text
    uuid = text.split("execbroker logs -f ")[1].split()[0]
    assert laptop("logs", "-f", uuid).out == "here it goes\n"
    assert laptop("show", uuid, "--json").document["phase"] == "COMPLETED"


def read_until(terminal: int, what: bytes | None) -> bytes:
    """What is written to the terminal, until `what` is in it or, for None, the other side has closed it."""
    seen, deadline = b"", time.monotonic() + DEADLINE
    while what is None or what not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            chunk = b""
            with suppress(OSError):  # Linux says EIO where a terminal has no other side any more
                chunk = os.read(terminal, 4096)
            if not chunk:
                break
            seen += chunk
    return seen
