"""Times liberal in and strict out."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execbroker.model.times import (
    DURATION_PATTERN,
    INSTANT_PATTERN,
    INTERVAL_PATTERN,
    Interval,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
)

seconds = st.integers(-(10**9), 10**10).map(lambda length: timedelta(seconds=length))
moments = st.integers(-62_135_510_400, 253_402_128_000).map(
    lambda second: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
)


@given(seconds)
def test_durations_go_out_as_published_and_come_back(length: timedelta) -> None:
    text = format_duration(length)
    assert re.fullmatch(DURATION_PATTERN.strip("^$"), text)
    assert parse_duration(text) == length


@given(moments)
def test_instants_go_out_as_published_and_come_back(moment: datetime) -> None:
    text = format_instant(moment)
    assert re.fullmatch(INSTANT_PATTERN.strip("^$"), text)
    assert parse_instant(text) == (moment, True)


@given(moments, st.integers(0, 10**8))
def test_intervals_go_out_as_published_and_come_back(start: datetime, length: int) -> None:
    try:
        interval = Interval(start, start + timedelta(seconds=length))
    except OverflowError:
        return
    assert re.fullmatch(INTERVAL_PATTERN.strip("^$"), str(interval))
    assert Interval.parse(str(interval)) == interval


@given(st.text(alphabet="PTYMWDHS0123456789-+:.,Z/ \u0663", max_size=40) | st.text(max_size=20))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    for read in (parse_duration, parse_instant, Interval.parse):
        try:
            read(text)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("PT0S", 0), ("P1H", 3600), ("PT1H30M", 5400), ("P1DT12H", 129600), ("P2W", 1209600), ("PT1.5S", 1.5), ("PT1,5S", 1.5),
        ("-PT1M", -60), (" PT1M ", 60), ("P99999999999Y", 365_000 * 86400), ("P" + "9" * 500 + "Y", 365_000 * 86400),
    ],
)  # fmt: skip
def test_durations(text: str, length: float) -> None:
    assert parse_duration(text).total_seconds() == length


@pytest.mark.parametrize(
    ("text", "start", "end", "zoned"),
    [
        ("2024-08-29T10:00:00Z/PT1H", "2024-08-29T10:00:00Z", "2024-08-29T11:00:00Z", True),
        ("2024-08-29T10:00ZPT1H", "2024-08-29T10:00:00Z", "2024-08-29T11:00:00Z", True),
        ("2023-08-14T11:30Z/T12:00Z", "2023-08-14T11:30:00Z", "2023-08-14T12:00:00Z", True),
        ("2023-08-14T11:30:00/2023-08-14T12:00:00", "2023-08-14T11:30:00Z", "2023-08-14T12:00:00Z", False),
        ("2023-08-14T11:30:00+02:00/PT1M", "2023-08-14T09:30:00Z", "2023-08-14T09:31:00Z", True),
        ("PT1H/2023-08-14T11:30:00Z", "2023-08-14T10:30:00Z", "2023-08-14T11:30:00Z", True),
        ("2023-08-14T11:30:00Z", "2023-08-14T11:30:00Z", "2023-08-14T11:30:00Z", True),
        ("2023-08-14T11:30:00Z/P9999Y", "2023-08-14T11:30:00Z", "3022-12-15T11:30:00Z", True),
        ("9999-12-31T00:00:00Z/P2D", "9999-12-31T00:00:00Z", "9999-12-31T23:59:59Z", True),
    ],
)
def test_intervals(text: str, start: str, end: str, zoned: bool) -> None:
    found = Interval.parse(text)
    assert (format_instant(found.start), format_instant(found.end), found.zoned) == (start, end, zoned)
