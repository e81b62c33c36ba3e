"""The whole path on this machine: real programs and notebooks, run by `execbroker serve` and seen through its API."""

import json
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lacking import need
from processsite import Site

FINAL = ("COMPLETED", "FAILED", "CANCELLED")
SMALL = {"kind": "simple-compute-resource", "cores": {"min": 1, "max": 1}, "memory": {"min": 1, "max": 1}}


def call(site: Site, method: str, path: str, document: Any = None) -> Any:
    """The answer's document, or its bytes where it is none."""
    url = path if path.startswith("http") else site.url + path
    body = None if document is None else json.dumps(document).encode()
    headers = {"Authorization": site.authorization, "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=90) as answer:
        content = answer.read()
    return json.loads(content) if answer.headers["Content-Type"] == "application/json" else content


def follow(site: Site, session: dict[str, Any], *until: str, seconds: float = 240) -> dict[str, Any]:
    """The session once it is in one of these phases, or has ended."""
    deadline = time.monotonic() + seconds
    while session["phase"] not in (*until, *FINAL):
        assert time.monotonic() < deadline, session
        session = call(site, "GET", f"/sessions/{session['meta']['uuid']}?wait=20&phase={session['phase']}")
    return session


def texts(session: dict[str, Any]) -> str:
    return "\n".join(item["message"] for item in session["meta"].get("messages", []))


def program(programs: Path, name: str, text: str) -> dict[str, Any]:
    (programs / name).write_text(text)
    return {"kind": "urn:execbroker:kind:executable:python-program", "location": f"file://{programs}/{name}"}


def run(site: Site, executable: dict[str, Any], duration: str = "PT2M", **more: Any) -> dict[str, Any]:
    """Accept the first offer for it, and give the accepted session."""
    request = {"executable": executable, "compute": SMALL, "schedule": {"requested": {"duration": duration}}, **more}
    answer = call(site, "POST", "/requests", request)
    assert answer["result"] == "YES", texts(answer)
    update = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
    return call(site, "POST", f"/sessions/{answer['offers'][0]['meta']['uuid']}", update)  # type: ignore[no-any-return]


def output(site: Site, session: dict[str, Any], stream: str = "stdout") -> str:
    return str(call(site, "GET", f"/sessions/{session['meta']['uuid']}/{stream}").decode())


def mounted(path: str, resource: str, mode: str = "READONLY") -> dict[str, Any]:
    return {**SMALL, "volumes": [{"kind": "simple-volume-mount", "path": path, "resource": resource, "mode": mode}]}


NOTEBOOK = {
    "cells": [
        {"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "source": "brightest = 'nobody'",
         "outputs": [], "execution_count": None},
        {"cell_type": "code", "id": "b", "metadata": {}, "outputs": [], "execution_count": None,
         "source": "rows = open('sky/stars.csv').read().split()\n"
                   "open('results/found.txt', 'w').write(brightest)\nprint(len(rows), 'rows, brightest', brightest)"},
    ],
    "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
}  # fmt: skip


def test_a_batch_notebook_reads_its_data_and_leaves_its_results(here: Site, programs: Path, sky: str) -> None:
    (programs / "stars.ipynb").write_text(json.dumps(NOTEBOOK))
    executable = {
        "kind": "jupyter-notebook",
        "location": f"file://{programs}/stars.ipynb",
        "mode": "batch",
        "parameters": {"brightest": "Vega"},
    }
    volumes = mounted("sky", "stars")["volumes"] + mounted("results", "out", "READWRITE")["volumes"]
    data = [{"kind": "simple-data-resource", "meta": {"name": "stars"}, "location": f"{sky}/stars.csv"}]
    storage = [{"kind": "simple-storage-resource", "meta": {"name": "out"}, "size": {"min": 1}, "lifetime": "PT1H"}]
    session = run(here, executable, compute={**SMALL, "volumes": volumes}, data=data, storage=storage)
    session = follow(here, session)
    assert session["phase"] == "COMPLETED", texts(session) + output(here, session, "stderr")
    assert "3 rows, brightest Vega" in output(here, session) + output(here, session, "stderr")
    kept = next(item for item in session["storage"] if item["meta"]["name"] == "out")
    files = call(here, "GET", kept["location"])["files"]
    assert [Path(one["path"]).name for one in files] == ["found.txt"]
    assert call(here, "GET", files[0]["url"]) == b"Vega"
    home = call(here, "GET", f"/sessions/{session['meta']['uuid']}/files/home?deep=true")["files"]
    executed = next(one for one in home if one["path"].endswith("stars-executed.ipynb"))
    assert (
        b"3 rows, brightest Vega"
        in urllib.request.urlopen(
            urllib.request.Request(
                executed["url"], headers={"Authorization": f"Bearer {(here.data / 'token').read_text().strip()}"}
            )
        ).read()
    )


def test_a_notebook_is_opened_in_jupyterlab_and_ends_when_it_is_shut_down(here: Site, programs: Path) -> None:
    (programs / "open.ipynb").write_text(json.dumps(NOTEBOOK))
    session = run(here, {"kind": "jupyter-notebook", "location": f"file://{programs}/open.ipynb"}, duration="PT10M")
    session = follow(here, session, "RUNNING")
    deadline = time.monotonic() + 60
    while (lab := session["connectors"][0])["status"] != "AVAILABLE" or lab["kind"] != "urn:execbroker:connector:http":
        assert time.monotonic() < deadline, lab
        session = call(here, "GET", f"/sessions/{session['meta']['uuid']}?wait=5")
    address, _, token = lab["location"].partition("?token=")
    assert lab["protocol"] == "HTTP"
    assert address.endswith("/lab/tree/open.ipynb")
    base = address.partition("/lab")[0]
    with urllib.request.urlopen(lab["location"], timeout=30) as page:
        assert page.status == 200
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{base}/api/contents", timeout=30)
    asked = urllib.request.Request(f"{base}/api/shutdown", method="POST", headers={"Authorization": f"token {token}"})
    urllib.request.urlopen(asked, timeout=30).close()
    session = follow(here, session)
    assert session["phase"] == "COMPLETED", texts(session)
    assert session["connectors"][0]["status"] == "FINISHED"


def test_a_program_gets_its_requirements_arguments_and_environment(here: Site, programs: Path) -> None:
    text = "import os, sys, packaging\nprint(packaging.__name__, sys.argv[1:], os.environ['BAND'], len(os.environ) < 20)"
    executable = program(programs, "wants.py", text) | {
        "requirements": ["packaging"],
        "arguments": ["-n", "two words", "$HOME"],
        "environment": {"BAND": "V"},
    }
    session = follow(here, run(here, executable))
    assert output(here, session) == "packaging ['-n', 'two words', '$HOME'] V True\n", texts(session)


def test_data_is_seen_at_an_absolute_path(here: Site, programs: Path, sky: str) -> None:
    need("bubblewrap")
    executable = program(programs, "absolute.py", "print(open('/my-data/stars.csv').read())\nopen('/my-data/new', 'w')")
    data = [{"kind": "simple-data-resource", "meta": {"name": "stars"}, "location": f"{sky}/stars.csv"}]
    session = follow(here, run(here, executable, compute=mounted("/my-data", "stars"), data=data))
    assert "Vega,0.03" in output(here, session)
    assert "Read-only file system" in output(here, session, "stderr")
    assert session["phase"] == "FAILED"
    assert "exit code 1" in texts(session)


def test_a_session_sees_neither_the_broker_nor_others(here: Site, programs: Path) -> None:
    need("bubblewrap")
    text = f"""import os, pathlib
for path in ("{here.data}/token", "{here.data}/ledger.sqlite", "{here.data}/sessions"):
    print(os.path.exists(path))
print([int(name) for name in os.listdir("/proc") if name.isdigit()][:9], len(os.listdir("/home")))
"""
    session = follow(here, run(here, program(programs, "spy.py", text)))
    assert session["phase"] == "COMPLETED", texts(session)
    lines = output(here, session).splitlines()
    assert lines[:3] == ["False"] * 3
    assert max(json.loads(lines[3].partition("]")[0] + "]")) < 20  # its own processes only


def test_the_end_of_the_schedule_is_the_end(here: Site, programs: Path) -> None:
    executable = program(programs, "long.py", "import time\nprint('on it', flush=True)\ntime.sleep(600)")
    session = follow(here, run(here, executable, duration="PT4S"))
    assert session["phase"] == "COMPLETED"
    assert [item["kind"] for item in session["meta"]["messages"] if item["level"] == "WARN"] == [
        "urn:execbroker:message:time-limit"
    ]
    assert output(here, session) == "on it\n"


def test_a_redirect_to_a_private_address_is_no(here: Site, sky: str) -> None:
    location = f"{sky}/away"
    executable = {"kind": "jupyter-notebook", "location": location}
    answer = call(here, "POST", "/requests", {"executable": executable})
    assert answer["result"] == "NO"
    assert "127.0.0.2 is a private address" in texts(answer)


def test_a_killed_broker_loses_nothing_and_runs_nothing_twice(own: Site, programs: Path, tmp_path: Path) -> None:
    text = (
        "import time\nfor number in range(8):\n    print(number, flush=True)\n    time.sleep(1)\nopen('ran', 'a').write('once')"
    )
    own.start()
    session = follow(own, run(own, program(programs, "slow.py", text)), "RUNNING")
    own.stop(signal.SIGKILL)
    own.start()
    session = follow(own, call(own, "GET", f"/sessions/{session['meta']['uuid']}"))
    assert session["phase"] == "COMPLETED", texts(session)
    assert output(own, session).split() == [str(number) for number in range(8)]
    assert call(own, "GET", f"/sessions/{session['meta']['uuid']}/files/home/ran") == b"once"


def test_sigterm_leaves_sessions_running(own: Site, programs: Path) -> None:
    text = "import time\ntime.sleep(4)\nprint('still here')"
    own.start()
    session = follow(own, run(own, program(programs, "patient.py", text)), "RUNNING")
    assert own.stop()[0] == 0
    own.start()
    session = follow(own, call(own, "GET", f"/sessions/{session['meta']['uuid']}"))
    assert (session["phase"], output(own, session)) == ("COMPLETED", "still here\n")
