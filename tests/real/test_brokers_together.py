"""Several broker processes on one database and one data folder: whichever is there goes on with what the others began."""

import json
import signal
from pathlib import Path

import pytest
from test_sessions import follow, output, run, texts

from processsite import Site

SLOW = {
    "cells": [
        {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None,
         "source": "import time\nprint('begun', flush=True)\ntime.sleep(20)\nprint('done', flush=True)"},
    ],
    "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
}  # fmt: skip


@pytest.mark.postgres
def test_accepted_at_one_started_by_another_read_at_a_third(three: list[Site], programs: Path) -> None:
    first, second, third = three
    (programs / "slow.ipynb").write_text(json.dumps(SLOW))
    first.start()
    second.start()
    session = run(first, {"kind": "jupyter-notebook", "location": f"file://{programs}/slow.ipynb", "mode": "batch"})
    first.stop(signal.SIGKILL)
    session = follow(second, session, "RUNNING")
    assert session["phase"] == "RUNNING", texts(session)
    third.start()
    second.stop(signal.SIGKILL)
    session = follow(third, session)
    said = output(third, session) + output(third, session, "stderr")
    assert session["phase"] == "COMPLETED", texts(session) + said
    assert "begun" in said
    assert "done" in said
    assert third("audit").out == "0 holds looked at: nothing is wrong\n"
