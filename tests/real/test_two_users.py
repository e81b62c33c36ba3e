"""Two people with accounts at one broker, on one machine: what one of them runs, the other does not find."""

import json
import signal
import time
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
import websocket
from test_sessions import call, follow, output, program, run, texts

from execbroker.platforms.network import own_addresses
from people import ADMIN, ALICE, BOB
from processsite import Site

SPY = (Path(__file__).parents[1] / "conform" / "spy.py").read_text()
EMPTY = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def person(site: Site, who: tuple[str, str]) -> Any:
    """The broker as this one reaches it."""
    return SimpleNamespace(url=site.url, authorization="Basic " + b64encode(":".join(who).encode()).decode())


def lab_of(site: Any, session: dict[str, Any]) -> tuple[str, str]:
    """The address of its JupyterLab, once it answers, and the token of that."""
    deadline = time.monotonic() + 60
    while (lab := session["connectors"][0])["status"] != "AVAILABLE" or lab["kind"] != "urn:execbroker:connector:http":
        assert time.monotonic() < deadline, lab
        session = call(site, "GET", f"/sessions/{session['meta']['uuid']}?wait=5")
    address, _, token = lab["location"].partition("?token=")
    return address.partition("/lab")[0], token


def ask_lab(base: str, token: str, method: str, path: str) -> bytes:
    with urlopen(Request(f"{base}/api/{path}", method=method, headers={"Authorization": f"token {token}"}), timeout=30) as answer:
        content: bytes = answer.read()
    return content


def computed(base: str, token: str, code: str) -> str:
    """What a kernel prints, asked over its WebSocket (the messages are those of the Jupyter protocol 5.3)."""
    kernel = json.loads(ask_lab(base, token, "POST", "kernels"))["id"]
    header = {"msg_id": uuid4().hex, "msg_type": "execute_request", "username": "", "session": uuid4().hex, "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    address = f"{base.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels?token={token}"
    line = websocket.create_connection(address, timeout=60)
    try:
        line.send(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}))
        while (message := json.loads(line.recv()))["header"]["msg_type"] != "stream":
            assert message["header"]["msg_type"] != "error", message
    finally:
        line.close()
    return str(message["content"]["text"])


def test_a_notebook_works_and_is_nobody_elses(shared: Site, programs: Path) -> None:
    alice, bob = person(shared, ALICE), person(shared, BOB)
    for name, password in (ALICE, BOB):
        call(person(shared, ADMIN), "POST", "/admin/identities", {"username": name, "password": password})
    (programs / "empty.ipynb").write_text(json.dumps(EMPTY))
    session = run(alice, {"kind": "jupyter-notebook", "location": f"file://{programs}/empty.ipynb"}, duration="PT10M")
    session = follow(alice, session, "RUNNING")
    assert session["phase"] == "RUNNING", texts(session)
    base, token = lab_of(alice, session)
    assert computed(base, token, "import platform; print(6 * 7)") == "42\n"
    with pytest.raises(HTTPError, match="403"):
        urlopen(f"{base}/api/contents", timeout=30)

    told = {"mark": token, "uuid": session["meta"]["uuid"], "ports": [urlsplit(base).port], "udp": [], "shm": 1}
    told |= {"roots": ["/"], "but": [], "home": "/", "pids": [], "paths": [str(shared.data / "sessions")]}
    told["addresses"] = ["198.18.0.2", "198.18.0.3", *own_addresses()]
    arguments = {"arguments": [json.dumps(told)[::-1]]}
    spying = follow(bob, run(bob, program(programs, "spy.py", SPY) | arguments, duration="PT2M"))
    assert (spying["phase"], output(bob, spying)) == ("COMPLETED", "[]"), texts(spying)

    shared.stop(signal.SIGKILL)
    shared.start()
    alice = person(shared, ALICE)
    assert computed(base, token, "print('still here')") == "still here\n"
    ask_lab(base, token, "POST", "shutdown")
    session = follow(alice, call(alice, "GET", f"/sessions/{session['meta']['uuid']}"))
    assert session["phase"] == "COMPLETED", texts(session)
    assert session["connectors"][0]["status"] == "FINISHED"
