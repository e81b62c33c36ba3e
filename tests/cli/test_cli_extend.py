from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execbroker.cli.reading import read_change
from execbroker.cli.visit import Stop
from execbroker.client import Client, ClientError
from execbroker.model.times import format_duration
from processsite import Site

NOTEBOOK = ("--notebook", "https://example.org/a.ipynb", "--duration", "1h")


@pytest.fixture
def session(pool: Site) -> Any:
    """A session that runs, or is about to."""
    offers = pool("ask", *NOTEBOOK, "--on", "sizes", "--json").document["offers"]
    uuid = offers[0]["meta"]["uuid"]
    assert pool("accept", uuid).code == 0
    yield uuid
    pool("cancel", uuid)


def test_a_session_becomes_longer_and_shorter(pool: Site, session: str) -> None:
    done = pool("extend", session, "30m")
    assert done.code == 0
    assert "after 1 h 30 min" in done.out
    assert "after 1 h 20 min" in pool("extend", session, "-10m").out
    assert "after 1 h 20 min 5 s" in pool("extend", session, "PT5S").out
    document = pool("extend", "--json", session, "-PT5S").document
    assert document["schedule"]["available"]["duration"] == "PT1H20M"
    assert "up to" in pool("show", session).out


def test_what_is_not_free_is_refused_with_4(pool: Site, session: str) -> None:
    done = pool("extend", session, "-2h")
    assert (done.code, done.out) == (4, "")
    assert "no room" in done.err
    assert pool("extend", "00000000-0000-0000-0000-000000000000", "5m").code == 4


@pytest.mark.parametrize("text", ["soon", "0m", "", "30", "-0s", "PT0.5S"])
def test_a_time_that_is_none_ends_with_2(pool: Site, session: str, text: str) -> None:
    done = pool("extend", session, text)
    assert (done.code, done.out) == (2, "")
    assert "30m" in done.err


@given(st.timedeltas(timedelta(seconds=1), timedelta(days=4000)), st.booleans())
def test_by_how_much_is_read_as_it_is_written(span: timedelta, shorter: bool) -> None:
    change = -timedelta(seconds=int(span.total_seconds())) if shorter else timedelta(seconds=int(span.total_seconds()))
    text = format_duration(change)
    assert read_change(text) == change
    assert read_change(text.replace("P", "").replace("T", "").lower()) == change


def test_minutes_without_a_unit_are_not_guessed() -> None:
    with pytest.raises(Stop, match="30m"):
        read_change("30")


def test_the_client_extends_by_seconds(pool: Site, session: str) -> None:
    with Client(folder=pool.data) as client:
        assert client.extend(session, 90).schedule.available.duration == timedelta(hours=1, seconds=90)
        assert client.extend(session, -30).schedule.available.duration == timedelta(hours=1, seconds=60)
        with pytest.raises(ClientError) as caught:
            client.extend(session, -7200)
        assert caught.value.status == 409
