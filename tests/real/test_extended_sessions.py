"""A real process whose session is made longer runs beyond its first end; one whose session is made shorter is stopped early."""

from datetime import datetime
from pathlib import Path
from typing import Any

from test_sessions import call, follow, output, program, run, texts

from execbroker.model.times import parse_duration
from processsite import Site

TICKS = "import time\nwhile True:\n    print(time.time(), flush=True)\n    time.sleep(0.2)"
GRACE = 10  # seconds that a busy machine may take to notice an end and to stop what runs


def moved(site: Site, session: dict[str, Any], seconds: int) -> dict[str, Any]:
    update = {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": seconds, "units": "seconds"}
    return call(site, "POST", f"/sessions/{session['meta']['uuid']}", update)  # type: ignore[no-any-return]


def end_of(session: dict[str, Any]) -> float:
    """When it is to end, in seconds since 1970."""
    available = session["schedule"]["available"]
    start = datetime.fromisoformat(available["start"].partition("/")[0])
    return (start + parse_duration(available["duration"])).timestamp()


def last_tick(site: Site, session: dict[str, Any]) -> float:
    return float(output(site, session).splitlines()[-1])


def test_a_longer_session_runs_until_its_new_end(here: Site, programs: Path) -> None:
    session = follow(here, run(here, program(programs, "longer.py", TICKS), duration="PT15S"), "RUNNING")
    first, session = end_of(session), moved(here, session, 10)
    assert end_of(session) == first + 10
    session = follow(here, session)
    assert session["phase"] == "COMPLETED", texts(session)
    assert "Its time was over" in texts(session)
    assert first + 5 < last_tick(here, session) < first + 10 + GRACE


def test_a_shorter_session_is_stopped_early(here: Site, programs: Path) -> None:
    session = follow(here, run(here, program(programs, "shorter.py", TICKS), duration="PT5M"), "RUNNING")
    first, session = end_of(session), moved(here, session, -275)
    assert end_of(session) == first - 275
    session = follow(here, session, seconds=60)
    assert session["phase"] == "COMPLETED", texts(session)
    assert "Its time was over" in texts(session)
    assert last_tick(here, session) < first - 275 + GRACE


def test_a_killed_broker_knows_the_new_end(own: Site, programs: Path) -> None:
    """Whether or not the supervisor had been told of it when the broker died."""
    own.start()
    session = follow(own, run(own, program(programs, "survivor.py", TICKS), duration="PT20S"), "RUNNING")
    first, session = end_of(session), moved(own, session, 12)
    own.stop(9)
    own.start()
    session = follow(own, call(own, "GET", f"/sessions/{session['meta']['uuid']}"))
    assert session["phase"] == "COMPLETED", texts(session)
    assert first + 6 < last_tick(own, session) < first + 12 + GRACE
