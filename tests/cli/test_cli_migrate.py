from pathlib import Path

import pytest

import stores
from processsite import SITE, Site, execbroker

pytestmark = pytest.mark.postgres
TABLES = ("offersets", "sessions", "bookings", "events", "capacities")


def rows(site: Site) -> list[list[tuple[object, ...]]]:
    """What a ledger on the server has, table by table."""
    return [sorted(stores.execute(site.data, f"SELECT * FROM {table}"), key=str) for table in TABLES]


def taken(site: Site) -> str:
    """A session that is accepted and waits for its start."""
    asked = (
        "ask",
        "--notebook",
        "https://example.org/a.ipynb",
        "--cores",
        "2-2",
        "--start",
        "2100-01-01T00:00:00Z/P1D",
        "--json",
    )
    session: str = site(*asked).document["offers"][1]["meta"]["uuid"]
    assert site("accept", session).code == 0
    return session


@pytest.fixture
def moving(own_broker: Site) -> tuple[Site, str]:
    """A broker that is stopped, with a session in its file."""
    own_broker.settings = {"platforms": [SITE], "database": None}
    own_broker.start()
    session = taken(own_broker)
    own_broker.stop()
    return own_broker, session


def test_what_was_promised_is_kept_on_postgresql(moving: tuple[Site, str]) -> None:
    site, session = moving
    done = site("migrate")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Moved: ")
    assert "4 sessions" in done.out
    assert not (site.data / "ledger.sqlite").exists()
    assert (site.data / "ledger.moved.sqlite").exists()
    site.settings = {"platforms": [SITE]}
    site.start()
    assert site("show", session, "--json").document["phase"] == "WAITING"
    assert taken(site) != session  # the counters go on after the last
    assert site("audit").out == "2 holds looked at: nothing is wrong\n"


def test_a_move_that_was_interrupted_before_its_end_is_made_once_more(moving: tuple[Site, str]) -> None:
    site, _ = moving
    assert site("migrate").code == 0
    moved = rows(site)
    (site.data / "ledger.moved.sqlite").rename(site.data / "ledger.sqlite")
    assert site("migrate").code == 0
    assert rows(site) == moved


def test_a_ledger_that_is_in_use_is_not_written_over(moving: tuple[Site, str], tmp_path: Path) -> None:
    site, _ = moving
    assert site("migrate").code == 0
    site.settings = {"platforms": [SITE]}
    site.start()
    taken(site)
    before = rows(site)
    other = Site(tmp_path / "other", {"platforms": [SITE], "database": None}).start()
    taken(other)
    other.stop()
    done = execbroker("migrate", "--data", str(other.data), EXECBROKER_DATABASE=stores.address(site.data) or "")
    assert done.code == 2
    assert "has rows already" in done.err
    assert "nothing was moved" in done.err
    assert rows(site) == before
    assert (other.data / "ledger.sqlite").exists()


def test_a_broker_at_work_is_not_moved_away_from_under_itself(own_broker: Site) -> None:
    own_broker.settings = {"platforms": [SITE], "database": None}
    own_broker.start()
    done = own_broker("migrate")
    assert done.code == 2
    assert "in use by another broker" in done.err


def test_where_to_and_where_from_are_asked_for(tmp_path: Path) -> None:
    done = execbroker("migrate", "--data", str(tmp_path))
    assert done.code == 2
    assert "EXECBROKER_DATABASE" in done.err
    done = execbroker("migrate", "--data", str(tmp_path), EXECBROKER_DATABASE=stores.address(tmp_path) or "")
    assert done.code == 2
    assert "There is no ledger at" in done.err
