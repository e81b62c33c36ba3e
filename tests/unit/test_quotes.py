"""Costs against sums over every second; the search of starts against brute force over every start."""

import json
import math
import time
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prices import CHANGES, HALF_HOURS, in_force, read, seconds

from execbroker.model.prices import DAY, WEEKDAYS, Prices
from execbroker.scheduling.quotes import (
    HORIZON,
    REACH,
    TOLERANCE,
    Parts,
    Quote,
    Use,
    affordable,
    cheapest,
    cost,
    costs,
    dump_quotes,
    load_quotes,
    quotes,
)

SPAN = 4 * 3600
eighths = st.integers(0, 40).map(lambda n: n / 8)
names = ("hour", "node_hour", "core_hour", "gib_hour", "accelerator_hour", "gb_staged", "gb_day")
rates = dict.fromkeys(names, eighths)
whens = st.tuples(st.integers(0, 11), st.integers(1, 6)).map(
    lambda at: {"from": HALF_HOURS[at[0]], "until": HALF_HOURS[at[0] + at[1]]}
)
whens |= st.fixed_dictionaries(
    {"from": st.sampled_from(HALF_HOURS[:12])},
    optional={
        "until": st.sampled_from(HALF_HOURS[:12]),
        "days": st.lists(st.sampled_from(WEEKDAYS), min_size=3, max_size=6),
        "dates": st.sampled_from([["2026-03-01/2026-03-28"], ["2026-10-25"], ["2026-03-08", "2026-11-01/2026-12-31"]]),
    },
)
factors = st.sampled_from([{"factor": factor} for factor in (0, 0.5, 2)])
owns = st.fixed_dictionaries({}, optional=rates)
tariffs = st.builds(lambda when, factor, own: {**when, **factor, **own}, whens, factors, st.just({}) | owns)
documents = st.fixed_dictionaries(
    {
        "zone": st.sampled_from(sorted(CHANGES)),
        "money": st.fixed_dictionaries({"tariffs": st.lists(tariffs, min_size=1, max_size=3), **rates}),
    }
)
changes = st.integers(0, 1)


@st.composite
def uses(draw: st.DrawFn, origin: int = 10**6) -> Use:
    start = origin + draw(st.integers(0, 2400))
    end = start + draw(st.integers(0, 5400))
    storages = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1800).map(lambda kept: end + kept)), max_size=2)
    return Use(
        nodes=draw(st.integers(1, 3)),
        cores=draw(st.integers(1, 16)),
        memory=draw(st.integers(1, 16)),
        accelerators=draw(st.sampled_from([(), (("a100", 2),), (("a100", 1), ("l4", 3))])),
        prepare=start - draw(st.integers(0, 2400)),
        start=start,
        end=end,
        staged=draw(st.sampled_from([0, 10**9, 25 * 10**8])),
        storages=tuple(draw(storages)),
    )


class Oracle:
    """The price of every second of a span, as exact sums from its beginning on. Tariffs change on whole minutes, and rates
    are in sixteenths."""

    def __init__(self, document: dict[str, Any], begin: int, length: int) -> None:
        self.money, self.begin, self.length = document["money"], begin - begin % 60, length + 60
        self.states = [in_force(document, self.begin + minute) for minute in range(0, self.length, 60)]
        self.sums: dict[tuple[Fraction, ...], list[int]] = {}

    def rate(self, name: str, state: int) -> Fraction:
        known = self.money["tariffs"]
        if state == len(known):
            return Fraction(self.money.get(name, 0))
        tariff = known[state]
        return Fraction(tariff[name] if name in tariff else self.money.get(name, 0) * tariff["factor"])

    def integral(self, per_state: tuple[Fraction, ...], begin: int, end: int) -> Fraction:
        if per_state not in self.sums:
            sixteenths = [int(16 * rate) for rate in per_state]
            self.sums[per_state] = list(
                accumulate((sixteenths[self.states[second // 60]] for second in range(self.length)), initial=0)
            )
        return Fraction(self.sums[per_state][end - self.begin] - self.sums[per_state][begin - self.begin], 16)

    def parts(self, use: Use) -> tuple[Fraction, Fraction, Fraction]:
        accelerators = sum(count for _, count in use.accelerators)
        counts = dict(zip(names, (1, use.nodes, use.cores, use.memory, accelerators), strict=False))
        states = range(len(self.money["tariffs"]) + 1)
        hourly = tuple(sum((self.rate(name, state) * n for name, n in counts.items()), Fraction(0)) for state in states)
        daily = tuple(self.rate("gb_day", state) for state in states)
        held = sum((size * self.integral(daily, use.prepare, until) for size, until in use.storages), Fraction(0))
        first = self.states[(use.prepare - self.begin) // 60]
        return (
            self.integral(hourly, use.start, use.end) / 3600,
            held * Fraction(2**30, 10**9) / DAY,
            self.rate("gb_staged", first) * Fraction(use.staged, 10**9),
        )

    def cost(self, use: Use) -> Fraction:
        return sum(self.parts(use), Fraction(0))


def near(zone: str, change: int, use: Use) -> Use:
    """The use, not far from when the clock changes."""
    return use.at(seconds(CHANGES[zone][change]) + use.start - 10**6)


def oracle_of(document: dict[str, Any], use: Use) -> Oracle:
    return Oracle(document, use.prepare, SPAN)


def starts_of(intervals: tuple[tuple[int, int], ...]) -> list[int]:
    return [start for first, last in intervals for start in range(first, last + 1)]


@settings(deadline=None)
@given(document=documents, change=changes, use=uses())
def test_costs_are_the_sum_over_every_second(document: dict[str, Any], change: int, use: Use) -> None:
    use = near(document["zone"], change, use)
    prices = Prices.model_validate(document)
    found, expected = costs(prices, "money", use), oracle_of(document, use).parts(use)
    for value, exact in zip((found.compute, sum(found.storages), found.data), expected, strict=True):
        assert math.isclose(value, exact, rel_tol=1e-12)
    assert math.isclose(cost(prices, "money", use), sum(expected), rel_tol=1e-12)


@settings(max_examples=60, deadline=None)
@given(document=documents, change=changes, use=uses(), length=st.integers(0, 3000), at=st.floats(0, 1.05), exact=st.booleans())
def test_affordable_starts_are_all_that_brute_force_finds(
    document: dict[str, Any], change: int, use: Use, length: int, at: float, exact: bool
) -> None:
    use = near(document["zone"], change, use)
    oracle = oracle_of(document, use)
    prices = Prices.model_validate(document)
    due = [oracle.cost(use.at(start)) for start in range(use.start, use.start + length + 1)]
    low, high = float(min(due)), float(max(due))
    limit = float(due[int(at * length) % len(due)]) if exact else low + (high - low) * at
    found = affordable(prices, "money", use, limit, use.start, use.start + length)
    assert starts_of(found) == [use.start + by for by, each in enumerate(due) if each <= limit * (1 + TOLERANCE)]
    assert all(after[0] > before[1] + 1 for before, after in pairwise(found))


@settings(max_examples=60, deadline=None)
@given(
    document=documents,
    change=changes,
    use=uses(),
    windows=st.lists(st.tuples(st.integers(0, 2000), st.integers(-200, 1500)), max_size=3),
)
def test_cheapest_start_is_that_of_brute_force(
    document: dict[str, Any], change: int, use: Use, windows: list[tuple[int, int]]
) -> None:
    use = near(document["zone"], change, use)
    oracle = oracle_of(document, use)
    intervals = [(use.start + first, use.start + first + length) for first, length in windows]
    starts = sorted({start for first, last in intervals for start in range(first, last + 1)})
    expected = min(starts, key=lambda start: oracle.cost(use.at(start)), default=None)
    assert cheapest(Prices.model_validate(document), "money", use, intervals) == expected


def test_a_session_longer_than_the_cheap_hour_begins_as_late_as_it_must() -> None:
    prices = read("money: {core_hour: 1, tariffs: [{from: '03:00', until: '04:00', factor: 0.5}]}")
    midnight = seconds("2026-07-22T00:00Z")
    session = Use(1, 1, 1, (), midnight, midnight, midnight + 2 * 3600)
    assert cheapest(prices, "money", session, [(midnight, midnight + DAY)]) == midnight + 2 * 3600
    assert affordable(prices, "money", session, 1.75, midnight, midnight + DAY) == (
        (midnight + 5400, midnight + 3 * 3600 + 1800),
    )


def test_windows_may_lie_within_each_other() -> None:
    prices = read(DAY_AND_NIGHT)
    evening = seconds("2026-07-22T22:00+02:00")
    session = replace(SESSION, storages=(), staged=0)
    assert cheapest(prices, "money", session, [(NOON, NOON + DAY), (NOON + 10, NOON + 20)]) == evening
    assert cheapest(prices, "money", session, [(NOON, evening + 3600)]) == evening


def test_data_is_charged_at_the_tariff_when_preparing_starts() -> None:
    prices = read("money: {gb_staged: 1, tariffs: [{from: '03:00', until: '04:00', factor: 0.5}]}")
    three = seconds("2026-07-22T03:00Z")
    session = Use(1, 1, 1, (), three - 100, three, three + 3600, staged=10**9)
    assert [cost(prices, "money", session.at(three + by)) for by in (99, 100, 3699, 3700)] == [1, 0.5, 0.5, 1]
    assert affordable(prices, "money", session, 0.75, three, three + DAY) == ((three + 100, three + 3699),)
    assert cheapest(prices, "money", session, [(three, three + DAY)]) == three + 100


DAY_AND_NIGHT = """
zone: Europe/Madrid
money:
  core_hour: 0.1
  gb_day: 0.003
  gb_staged: 0.01
  tariffs: [{name: night, from: "22:00", until: "06:00", factor: 0.5}, {name: sunday, days: [sun], core_hour: 0.07}]
energy: {core_hour: 0.0125}
"""
NOON = seconds("2026-07-22T12:00+02:00")
SESSION = Use(
    nodes=1, cores=10, memory=8, accelerators=(), prepare=NOON - 600, start=NOON, end=NOON + 7200, staged=5 * 10**9,
    storages=((10, NOON + DAY),),
)  # fmt: skip


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 3 * 365 * DAY), min_size=3, max_size=3).map(sorted))
def test_a_session_costs_what_its_pieces_cost(cuts: list[int]) -> None:
    prices = read(DAY_AND_NIGHT)

    def between(begin: int, end: int) -> float:
        return cost(prices, "money", Use(1, 4, 0, (), NOON + begin, NOON + begin, NOON + end))

    first, middle, last = cuts
    assert math.isclose(between(first, last), between(first, middle) + between(middle, last), rel_tol=1e-12)


def test_a_year_is_the_sum_of_its_hours() -> None:
    prices = read(DAY_AND_NIGHT)
    document = {"zone": "Europe/Madrid", "money": {"tariffs": [{"from": "22:00", "until": "06:00"}, {"days": ["sun"]}]}}
    hours = [(0.05, 0.07, 0.1)[in_force(document, NOON + hour * 3600)] for hour in range(365 * 24)]
    year = Use(1, 1, 1, (), NOON, NOON, NOON + 365 * DAY)
    assert math.isclose(cost(prices, "money", year), sum(hours), rel_tol=1e-9)


def test_a_quote_goes_from_staged_data_alone_to_everything() -> None:
    prices = read(DAY_AND_NIGHT)
    money, energy = quotes(prices, SESSION)
    assert (money.currency, money.units, energy.currency, energy.units) == ("money", "EUR", "energy", "kWh")
    assert money.min == Parts(data=pytest.approx(0.05))
    day, night = 16 * 3600 + 600, 8 * 3600
    gigabytes = 10 * 2**30 / 1e9
    assert money.max == Parts(
        compute=pytest.approx(2.0),
        storages=(pytest.approx(gigabytes * 0.003 * (day + night / 2) / DAY),),
        data=pytest.approx(0.05),
    )
    assert money.max.total == cost(prices, "money", SESSION)
    assert (energy.min.total, energy.max.total) == (0, pytest.approx(0.25))


def test_quotes_are_text_and_back() -> None:
    found = quotes(read(DAY_AND_NIGHT), SESSION)
    text = dump_quotes(found)
    assert load_quotes(text) == found
    assert json.loads(text)[0]["max"]["data"] == found[0].max.data
    assert load_quotes(dump_quotes(())) == ()
    assert isinstance(load_quotes(text)[0], Quote)


def test_what_has_no_price_is_free_and_not_quoted() -> None:
    prices = read("energy: {hour: 1}")
    assert [quote.currency for quote in quotes(prices, SESSION)] == ["energy"]
    assert cost(prices, "carbon", SESSION) == 0
    assert affordable(prices, "carbon", SESSION, 0, NOON, NOON + 10) == ((NOON, NOON + 10),)
    assert cheapest(prices, "carbon", SESSION, [(NOON + 5, NOON + 9), (NOON, NOON + 1)]) == NOON


def test_no_start_is_affordable_below_nothing_or_in_no_time() -> None:
    prices = read(DAY_AND_NIGHT)
    assert affordable(prices, "money", SESSION, -1, NOON, NOON + DAY) == ()
    assert affordable(prices, "money", SESSION, 1000, NOON, NOON - 1) == ()
    assert affordable(prices, "money", SESSION, math.nan, NOON, NOON + DAY) == ()
    assert cheapest(prices, "money", SESSION, []) is None


def test_rounding_does_not_exceed_a_limit() -> None:
    prices = read("money: {hour: 0.1, core_hour: 0.2}")
    hour = Use(1, 1, 1, (), NOON, NOON, NOON + 3600)
    assert cost(prices, "money", hour) > 0.3
    assert affordable(prices, "money", hour, 0.3, NOON, NOON) == ((NOON, NOON),)


def test_ten_years_are_searched_at_once() -> None:
    prices, decade = read(DAY_AND_NIGHT), NOON + 3650 * DAY
    begun = time.perf_counter()
    assert affordable(prices, "money", SESSION, 1e6, NOON, decade) == ((NOON, decade),)
    assert affordable(prices, "money", SESSION, 0, NOON, decade) == ()
    assert affordable(prices, "energy", SESSION, 1, NOON, decade) == ((NOON, decade),)
    nights = affordable(prices, "money", replace(SESSION, storages=()), 1.5, NOON, decade)
    assert 620 < len(nights) < 635  # 731 nights, of which those before and after a Sunday are one with it
    assert nights[-1][1] <= NOON + REACH
    assert cheapest(prices, "money", SESSION, [(NOON, decade)]) is not None
    assert time.perf_counter() - begun < 2


def test_a_tariff_out_of_reach_is_not_looked_for() -> None:
    text = "money: {{hour: 1, tariffs: [{{dates: [{}], factor: 0}}]}}"
    hour = Use(1, 1, 1, (), NOON, NOON, NOON + 3600)
    decade = NOON + 3650 * DAY
    within = seconds("2028-07-21T00:00Z")
    assert affordable(read(text.format("2028-07-21")), "money", hour, 0, NOON, decade) == ((within, within + DAY - 3600),)
    assert cheapest(read(text.format("2028-07-21")), "money", hour, [(NOON, decade)]) == within
    assert affordable(read(text.format("2028-07-25")), "money", hour, 0, NOON, decade) == ()
    assert cheapest(read(text.format("2028-07-25")), "money", hour, [(NOON, decade)]) == NOON


def test_storage_beyond_the_horizon_is_charged_outside_tariffs() -> None:
    prices = read(DAY_AND_NIGHT)
    kept = [replace(SESSION, storages=((10, SESSION.prepare + length),)) for length in (HORIZON, HORIZON + 1000 * DAY)]
    shorter, longer = (sum(costs(prices, "money", use).storages) for use in kept)
    assert math.isclose(longer - shorter, 1000 * 0.003 * 10 * 2**30 / 1e9, rel_tol=1e-9)
    best = seconds("2026-07-22T22:10+02:00")
    assert cheapest(prices, "money", kept[1], [(NOON, NOON + DAY)]) == best
    least = cost(prices, "money", kept[1].at(best))
    assert affordable(prices, "money", kept[1], least, NOON, best) == ((best, best),)


def test_the_end_of_the_calendar_is_priced() -> None:
    prices, last = read(DAY_AND_NIGHT), seconds("9999-12-31T23:59:59Z")
    assert cost(prices, "money", SESSION.at(last)) > 0
    assert cheapest(prices, "money", SESSION, [(last - 10, last)]) is not None


def test_all_shifts_together() -> None:
    moved = SESSION.at(NOON + 90)
    assert (moved.prepare, moved.start, moved.end) == (NOON - 510, NOON + 90, NOON + 7290)
    assert moved.storages == ((10, NOON + DAY + 90),)
    assert moved.at(NOON) == SESSION
