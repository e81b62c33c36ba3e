import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from processsite import DEADLINE, Site, environment

NOTEBOOK = ("--notebook", "https://example.org/a.ipynb", "--batch", "--start", "2031-01-01T00:00Z/P7D")
DEAR = (*NOTEBOOK, "--on", "pool", "--cores", "8", "--duration", "2h", "--max-cost", "4")


def test_no_says_why_and_each_way_to_a_yes(pool: Site) -> None:
    done = pool("ask", *DEAR)
    first, reason, heading, *ways, hint = done.out.splitlines()
    assert (done.code, first, heading) == (1, "NO", "It would be YES with:")
    assert "4 more than costs[0].max allows" in reason
    assert [way.split("  (")[0].strip() for way in ways] == [
        "1. 4 cores",
        "2. a duration of 1 h",
        "3. the platform sizes",
        "4. a limit of 8",
    ]
    assert "--nearest" in hint


def test_changes_that_belong_together_stand_together(pool: Site) -> None:
    done = pool("ask", *NOTEBOOK, "--cores", "64", "--memory", "512", "--on", "sizes")
    *_, way, _ = done.out.splitlines()
    assert "1. 12 cores and 48 GiB of memory" in way
    assert "compute.cores.min, compute.memory.min" in way


def test_a_no_that_nothing_helps_suggests_nothing(pool: Site) -> None:
    done = pool("ask", *NOTEBOOK, "--licence", "matlab", "--nearest")
    assert done.code == 1
    assert done.out.splitlines()[0] == "NO"
    assert "It would be" not in done.out
    assert "--nearest" not in done.out


def test_long_reasons_are_folded_at_words_in_a_narrow_terminal(pool: Site) -> None:
    words = ("ask", *NOTEBOOK, "--cores", "64", "--memory", "512")
    lines = pool(*words, COLUMNS="50").out.splitlines()
    assert all(len(line) <= 50 for line in lines[:-1])
    assert " ".join(" ".join(lines).split()) == " ".join(pool(*words).out.split())


def test_the_nearest_change_is_made_and_said(pool: Site) -> None:
    done = pool("ask", *DEAR, "--nearest")
    assert done.code == 0
    assert "Asked again with 4 cores  (compute.cores.min)" in done.out
    assert "execbroker accept" in done.out


def test_the_payload_is_the_last_answer_alone(pool: Site) -> None:
    done = pool("ask", *DEAR, "--nearest", "--json")
    assert done.document["result"] == "YES"
    assert done.document["offers"][0]["compute"]["cores"]["min"] == 4
    assert "Asked again with 4 cores" in done.err


def test_a_request_of_a_file_is_changed_too_and_the_file_is_not(pool: Site, tmp_path: Path) -> None:
    file = tmp_path / "request.yaml"
    file.write_text(yaml.safe_dump({"executable": {"kind": "jupyter-notebook", "location": "https://example.org/a"},
                                    "compute": {"kind": "simple-compute-resource", "cores": {"min": 99}}}))  # fmt: skip
    before = file.read_bytes()
    assert pool("ask", str(file), "--nearest").code == 0
    assert file.read_bytes() == before


def test_run_goes_on_with_the_nearest(own_broker: Site) -> None:
    own_broker.start()
    done = own_broker("run", "--notebook", "https://example.org/a.ipynb", "--batch", "--cores", "99", "--nearest")
    assert done.code == 0
    assert "Asked again with 8 cores" in done.out
    assert "COMPLETED" in done.out


def in_a_terminal(pool: Site, typed: str | None) -> tuple[int, str]:
    """The exit code and the screen of `ask --nearest` in a terminal where this is typed; None is Ctrl-C."""
    screen, terminal = pty.openpty()
    words = [sys.executable, "-m", "execbroker", "ask", *DEAR, "--nearest", "--data", str(pool.data)]
    process = subprocess.Popen(
        words, stdin=terminal, stdout=terminal, stderr=terminal, env=environment(COLUMNS="80", TERM="xterm")
    )
    os.close(terminal)
    seen = b""
    while b"n for no: " not in seen:
        seen += os.read(screen, 4096)
    if typed is None:
        process.send_signal(signal.SIGINT)
    else:
        os.write(screen, typed.encode())
    try:
        while more := os.read(screen, 4096):
            seen += more
    except OSError:  # the other side has closed it
        pass
    os.close(screen)
    return process.wait(DEADLINE), seen.decode()


@pytest.mark.parametrize(
    ("typed", "code", "says"),
    [("\n", 0, "Asked again with 4 cores"), ("2\n", 0, "Asked again with a duration of 1 h"), ("3\n", 0, "flavour")],
)
def test_a_person_picks_one(pool: Site, typed: str, code: int, says: str) -> None:
    ended, screen = in_a_terminal(pool, typed)
    assert "Ask again with which of them, 1 to 4?" in screen
    assert (ended, says in screen) == (code, True)


@pytest.mark.parametrize(("typed", "code"), [("n\n", 1), ("9\n", 1), ("\x04", 1), (None, 130)])
def test_a_person_who_wants_none_of_it_gets_none(pool: Site, typed: str | None, code: int) -> None:
    ended, screen = in_a_terminal(pool, typed)
    assert ended == code
    assert "Asked again" not in screen
    assert screen.count("It would be YES") == 1
