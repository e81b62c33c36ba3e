"""Price lists as people write them, and which tariff is in force when, against the clock on the wall."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from execbroker.model.prices import DAY, WEEKDAYS, Prices

HALF_HOURS = [f"{hour:02}:{minute:02}" for hour in range(24) for minute in (0, 30)]
CHANGES = {
    "Europe/Madrid": ("2026-03-29T01:00Z", "2026-10-25T01:00Z"),
    "America/New_York": ("2026-03-08T07:00Z", "2026-11-01T06:00Z"),
    "America/Santiago": ("2026-04-05T03:00Z", "2026-09-06T04:00Z"),
    "Australia/Lord_Howe": ("2026-04-04T15:00Z", "2026-10-03T15:30Z"),
}
"""When clocks are put forward or back: at night, at midnight, and by half an hour."""


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def read(text: str) -> Prices:
    return Prices.model_validate(yaml.safe_load(text))


def holds(tariff: dict[str, Any], wall: datetime) -> bool:
    """What the documentation says, word by word, of one instant on the wall."""
    begin, until, clock = tariff.get("from", "00:00"), tariff.get("until", "24:00"), f"{wall:%H:%M}"
    if begin < until:
        return begin <= clock < until and on(tariff, wall.date())
    return (clock >= begin and on(tariff, wall.date())) or (clock < until and on(tariff, wall.date() - timedelta(days=1)))


def on(tariff: dict[str, Any], day: date) -> bool:
    spans = [text.partition("/") for text in tariff.get("dates", [f"{day}"])]
    dated = any(first <= f"{day}" <= (last or first) for first, _, last in spans)
    return dated and WEEKDAYS[day.weekday()] in tariff.get("days", WEEKDAYS)


def in_force(document: dict[str, Any], time: int) -> int:
    """The number of the first tariff that holds, or how many there are."""
    wall = datetime.fromtimestamp(time, ZoneInfo(document["zone"]))
    tariffs = document["money"]["tariffs"]
    return next((number for number, tariff in enumerate(tariffs) if holds(tariff, wall)), len(tariffs))


def state_at(prices: Prices, time: int) -> int:
    return prices.calendars["money"].steps(time, time + 1).seconds(time, time + 1).index(1)


hours = st.sampled_from(HALF_HOURS)
whens = st.fixed_dictionaries(
    {},
    optional={
        "from": hours,
        "until": hours | st.just("24:00"),
        "days": st.lists(st.sampled_from(WEEKDAYS), min_size=1),
        "dates": st.lists(
            st.dates(date(2026, 3, 1), date(2026, 11, 30)).flatmap(
                lambda day: st.sampled_from([f"{day}", f"{day}/{day + timedelta(days=40)}"])
            ),
            min_size=1,
            max_size=3,
        ),
    },
).filter(bool)


@settings(deadline=None)
@given(
    zone=st.sampled_from(sorted(CHANGES)),
    change=st.integers(0, 1),
    whens=st.lists(whens, max_size=4),
    away=st.integers(-9 * 96, 9 * 96),
)
def test_tariffs_follow_the_clock_on_the_wall(zone: str, change: int, whens: list[dict[str, Any]], away: int) -> None:
    document = {"zone": zone, "money": {"tariffs": [{**when, "factor": 2} for when in whens]}}
    prices = Prices.model_validate(document)
    begin = seconds(CHANGES[zone][change]) + away * 900
    for time in range(begin - DAY, begin + DAY, 1800):
        for second in (time - 1, time):
            assert state_at(prices, second) == in_force(document, second)


def test_steps_of_years_are_those_of_days() -> None:
    prices = read("{zone: Europe/Madrid, carbon: {tariffs: [{from: '07:00', until: '01:00', days: [mon, sat], factor: 0}]}}")
    begin = seconds("2026-01-01T00:00Z")
    calendar = prices.calendars["carbon"]
    whole = calendar.steps(begin, begin + 1500 * DAY).seconds(begin, begin + 1500 * DAY)
    days = [calendar.steps(day, day + DAY).seconds(day, day + DAY) for day in range(begin, begin + 1500 * DAY, DAY)]
    assert whole == [sum(column) for column in zip(*days, strict=True)]


@pytest.mark.parametrize(
    ("zone", "day", "window", "charged"),
    [
        ("Europe/Madrid", "2026-03-29", ("02:00", "03:00"), 0),
        ("Europe/Madrid", "2026-03-29", ("01:30", "03:30"), 3600),
        ("Europe/Madrid", "2026-03-28", ("20:00", "06:00"), 9 * 3600),
        ("Europe/Madrid", "2026-10-25", ("02:00", "03:00"), 2 * 3600),
        ("Europe/Madrid", "2026-10-25", ("02:30", "02:45"), 2 * 900),
        ("Europe/Madrid", "2026-10-24", ("20:00", "06:00"), 11 * 3600),
        ("America/New_York", "2026-03-08", ("02:15", "02:45"), 0),
        ("America/New_York", "2026-03-08", ("00:00", "24:00"), 23 * 3600),
        ("America/New_York", "2026-11-01", ("01:00", "02:00"), 2 * 3600),
        ("America/New_York", "2026-11-01", ("00:00", "00:00"), 25 * 3600),
        ("America/New_York", "2026-06-01", ("06:00", "06:00"), 24 * 3600),
    ],
)
def test_days_on_which_the_clock_changes(zone: str, day: str, window: tuple[str, str], charged: int) -> None:
    tariff = {"from": window[0], "until": window[1], "dates": [day], "factor": 2}
    prices = Prices.model_validate({"zone": zone, "money": {"tariffs": [tariff]}})
    noon = int(datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=UTC).timestamp())
    assert prices.calendars["money"].steps(noon - 5 * DAY, noon + 5 * DAY).seconds(noon - 5 * DAY, noon + 5 * DAY)[0] == charged


def test_hours_after_midnight_belong_to_the_day_before() -> None:
    prices = read("money: {tariffs: [{name: weekend, from: '20:00', until: '06:00', days: [fri], factor: 0.5}]}")
    friday = seconds("2026-07-24T00:00Z")
    expected = {2: 1, 19: 1, 20: 0, 23: 0, 24: 0, 29: 0, 30: 1, 44: 1}
    assert {hour: state_at(prices, friday + hour * 3600) for hour in expected} == expected


def test_dates_as_yaml_reads_them_and_as_spans() -> None:
    prices = read("money: {tariffs: [{dates: [2026-12-24, 2026-12-31/2027-01-01], factor: 0}]}")
    days = {"2026-12-23": 1, "2026-12-24": 0, "2026-12-25": 1, "2026-12-30": 1, "2026-12-31": 0, "2027-01-01": 0, "2027-01-02": 1}
    assert {day: state_at(prices, seconds(f"{day}T12:00Z")) for day in days} == days


def test_rates_under_a_tariff() -> None:
    money = read("""
        money:
          hour: 1
          core_hour: 0.5
          accelerator_hour: {a100: 2.5, "*": 1}
          tariffs:
            - {name: night, from: "20:00", until: "06:00", factor: 0.5, hour: 3, accelerator_hour: {a100: 2}}
            - {name: sunday, days: [sun], accelerator_hour: 0.25, core_hour: 0}
    """).of("money")
    night, sunday, outside = money.rates
    assert (night.hour, night.core_hour, night.accelerator("a100"), night.accelerator("l4")) == (3, 0.25, 2, 0.5)
    assert (sunday.hour, sunday.core_hour, sunday.accelerator("a100"), sunday.accelerator("l4")) == (1, 0, 0.25, 0.25)
    assert (outside.hour, outside.accelerator("a100"), outside.accelerator("l4")) == (1, 2.5, 1)


def test_an_accelerator_without_a_price_is_free() -> None:
    assert read("money: {accelerator_hour: {a100: 2.5}}").of("money").accelerator("l4") == 0


def test_units_and_zone_have_defaults() -> None:
    prices = read("{money: {}, energy: {}, carbon: {units: g CO2e}}")
    assert prices.zone == "UTC"
    assert [prices.of(currency).units for currency in ("money", "energy", "carbon")] == ["EUR", "kWh", "g CO2e"]


def test_what_is_written_is_read_again() -> None:
    text = "money: {hour: 2, tariffs: [{from: '20:00', until: '24:00', days: [mon], dates: [2026-12-24], factor: 0.5}]}"
    prices = read(text)
    assert Prices.model_validate(prices.model_dump(mode="json", by_alias=True, exclude_unset=True)) == prices


@pytest.mark.parametrize(
    ("text", "place", "right"),
    [
        ("zone: Europe/Madird", "zone", "Europe/Madrid"),
        ("zone: Europe", "zone", "an IANA name is needed"),
        ("zone: ../../etc/passwd", "zone", "an IANA name is needed"),
        ("money: {core_hour: -1}", "money.core_hour", "greater than or equal to 0"),
        ("money: {core_hour: .nan}", "money.core_hour", "finite number"),
        ("money: {core_hours: 1}", "money.core_hours", "not permitted"),
        ("energy: {accelerator_hour: {a100: -2}}", "energy.accelerator_hour.a100", "greater than or equal to 0"),
        ("energy: {accelerator_hour: [1]}", "energy.accelerator_hour", "a100: 2.5"),
        ("money: {tariffs: [{from: 20:00, factor: 2}]}", "money.tariffs.0.from", '"20:00"'),
        ("money: {tariffs: [{from: '8pm', factor: 2}]}", "money.tariffs.0.from", '"06:30"'),
        ("money: {tariffs: [{from: '24:00', factor: 2}]}", "money.tariffs.0.from", '"00:00"'),
        ("money: {tariffs: [{until: '24:01', factor: 2}]}", "money.tariffs.0.until", '"24:00"'),
        ("money: {tariffs: [{days: [mon, friday], factor: 2}]}", "money.tariffs.0.days.1", "'fri'"),
        ("money: {tariffs: [{days: [friday], factor: 2}]}", "money.tariffs.0.days.0", "'fri'"),
        ("money: {tariffs: [{days: [], factor: 2}]}", "money.tariffs.0.days", "at least 1 item"),
        ("money: {tariffs: [{dates: [24.12.2026], factor: 2}]}", "money.tariffs.0.dates.0", "2026-12-24"),
        ("money: {tariffs: [{dates: [2026-12-25/2026-01-06], factor: 2}]}", "money.tariffs.0.dates.0", "first date comes first"),
        ("money: {tariffs: [{dates: [2026-12-25T10:00:00Z], factor: 2}]}", "money.tariffs.0.dates.0", "2026-12-24"),
        ("money: {tariffs: [{name: night, from: '20:00'}]}", "money.tariffs.0", "'night' changes nothing; give it a `factor`"),
        ("money: {tariffs: [{factor: 2}]}", "money.tariffs.0", "give it `from` and `until`, `days` or `dates`"),
        ("carbon: {tariffs: [{days: [mon], factor: -2}]}", "carbon.tariffs.0.factor", "greater than or equal to 0"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(text: str, place: str, right: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read(text)
    (fault,) = caught.value.errors()
    assert ".".join(map(str, fault["loc"])) == place
    assert right in fault["msg"]
