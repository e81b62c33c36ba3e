import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from execbroker.model.prices import CURRENCIES, DAY, Currency, Prices, Rates, Steps

HORIZON = 3653 * DAY
"""For how long from the start of preparing tariffs are looked at; what is held later is charged at the rates outside all."""
REACH = 731 * DAY
"""How far after the earliest start, starts are looked at where the price of a start depends on it."""
TOLERANCE = 1e-9
"""Relative; costs that differ by less are the same, so that a limit of 0.3 allows 0.1 + 0.2."""

_GB_OF_GIB = 2**30 / 1e9
Seconds = NDArray[np.int64]
Costs = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Use:
    """What a session uses, and when, in whole seconds since 1970.

    Cores, memory (GiB) and accelerators (kind, count) are those of all nodes together. `staged` is in bytes; each of `storages`
    is a size in GiB and the time until which it is kept, from `prepare` on.
    """

    nodes: int
    cores: int
    memory: int
    accelerators: tuple[tuple[str, int], ...]
    prepare: int
    start: int
    end: int
    staged: int = 0
    storages: tuple[tuple[int, int], ...] = ()

    def at(self, start: int) -> "Use":
        """The same, available from `start` on, with all else shifted alike."""
        by = start - self.start
        storages = tuple((size, until + by) for size, until in self.storages)
        return replace(self, prepare=self.prepare + by, start=start, end=self.end + by, storages=storages)


@dataclass(frozen=True, slots=True)
class Parts:
    """A cost by component."""

    compute: float = 0.0
    storages: tuple[float, ...] = ()
    data: float = 0.0

    @property
    def total(self) -> float:
        return self.compute + sum(self.storages) + self.data


@dataclass(frozen=True, slots=True)
class Quote:
    """What a session costs in one currency.

    `min` is what is due even if it ends as soon as it has started, its staged data; `max` where it runs until its end and its
    storage is kept for as long as was asked.
    """

    currency: Currency
    units: str
    min: Parts
    max: Parts


def quotes(prices: Prices, use: Use) -> tuple[Quote, ...]:
    """One for each currency that has a price."""
    found = []
    for currency in CURRENCIES:
        if getattr(prices, currency):
            most = costs(prices, currency, use)
            found.append(Quote(currency, prices.of(currency).units, Parts(data=most.data), most))
    return tuple(found)


def dump_quotes(quotes: Iterable[Quote]) -> str:
    """As JSON, which `load_quotes` reads."""
    return json.dumps([asdict(quote) for quote in quotes])


def load_quotes(text: str) -> tuple[Quote, ...]:
    documents = json.loads(text)
    return tuple(Quote(**{**each, "min": _parts(each["min"]), "max": _parts(each["max"])}) for each in documents)


def _parts(document: dict[str, Any]) -> Parts:
    return Parts(**{**document, "storages": tuple(document["storages"])})


def cost(prices: Prices, currency: Currency, use: Use) -> float:
    """All that the use costs, in the currency's units; 0 where it has no price."""
    return costs(prices, currency, use).total


def costs(prices: Prices, currency: Currency, use: Use) -> Parts:
    """What each component costs: compute by the hour, storage by GB and day, data by GB staged."""
    charges = _charges(prices, currency, use)
    steps = _steps(prices, currency, charges)
    compute, data, *storages = [charge.due(steps) for charge in charges]
    return Parts(compute, tuple(storages), data)


@overload
def fits(cost: float, limit: float) -> bool: ...
@overload
def fits(cost: Costs, limit: float) -> NDArray[np.bool_]: ...
def fits(cost: float | Costs, limit: float) -> bool | NDArray[np.bool_]:
    """Whether the cost is within the limit, but for rounding."""
    return cost <= limit + TOLERANCE * abs(limit)


def affordable(
    prices: Prices, currency: Currency, use: Use, limit: float, earliest: int, latest: int
) -> tuple[tuple[int, int], ...]:
    """Every start within [earliest, latest] at which the use costs `limit` at most, as inclusive intervals in their order.

    Exact to the second. Where the answer depends on the start, none later than REACH seconds after `earliest` is given.
    """
    charges = _charges(prices, currency, use)
    least, most = sum(charge.least for charge in charges), sum(charge.most for charge in charges)
    if latest < earliest or not fits(least, limit):
        return ()
    if fits(most, limit):
        return ((earliest, latest),)
    latest = min(latest, earliest + REACH)
    curve = _curve(prices, currency, use, charges, earliest, latest)
    breaks = curve.breaks(earliest, latest)
    firsts, lasts = np.append(earliest, breaks), np.append(breaks - 1, latest)
    return _joined(*_within(curve, firsts, lasts, limit))


def cheapest(prices: Prices, currency: Currency, use: Use, windows: Iterable[tuple[int, int]]) -> int | None:
    """The start within the inclusive windows at which the use costs least, the earliest of equals; None without windows.

    Exact to the second. Where the cost depends on the start, none later than REACH seconds after the first window's is given.
    """
    ordered = sorted(window for window in windows if window[0] <= window[1])
    if not ordered:
        return None
    charges = _charges(prices, currency, use)
    earliest = ordered[0][0]
    if all(charge.constant for charge in charges):
        return earliest
    reach = earliest + REACH
    opens, closes = np.array([(first, min(last, reach)) for first, last in ordered if first <= reach], np.int64).T
    closes = np.maximum.accumulate(closes)  # windows may overlap
    latest = int(closes[-1])
    curve = _curve(prices, currency, use, charges, earliest, latest)
    starts = np.concatenate((opens, closes, curve.breaks(earliest, latest)))
    starts = starts[starts <= closes[np.searchsorted(opens, starts, side="right") - 1]]
    found = curve.at(starts)
    return int(starts[fits(found, float(found.min()))].min())


class _Charge(NamedTuple):
    """Something charged from `begin` until `end`: each second at the `rates` of its tariff, and `fixed` besides, each divided
    by `per`."""

    begin: int
    end: int
    rates: tuple[float, ...]
    per: int
    fixed: float

    def due(self, steps: Steps) -> float:
        due = self.fixed
        for seconds, rate in zip(steps.seconds(self.begin, self.end), self.rates, strict=True):
            due += seconds * rate
        return due / self.per

    @property
    def constant(self) -> bool:
        return min(self.rates) == max(self.rates)

    @property
    def least(self) -> float:
        return (self.fixed + (self.end - self.begin) * min(self.rates)) / self.per

    @property
    def most(self) -> float:
        return (self.fixed + (self.end - self.begin) * max(self.rates)) / self.per


def _charges(prices: Prices, currency: Currency, use: Use) -> list[_Charge]:
    """Of compute, of data, and of each storage."""
    rates = prices.of(currency).rates
    until = use.prepare + HORIZON
    hourly = tuple(_hourly(each, use) for each in rates)
    staged = tuple(each.gb_staged * use.staged / 1e9 for each in rates)
    # data is charged by the first second of preparing: so its cost, like the others, is continuous in the start
    charges = [_charge(use.start, use.end, until, hourly, 3600), _charge(use.prepare, use.prepare + 1, until, staged, 1)]
    for size, kept in use.storages:
        daily = tuple(each.gb_day * size * _GB_OF_GIB for each in rates)
        charges.append(_charge(use.prepare, kept, until, daily, DAY))
    return charges


def _charge(begin: int, end: int, until: int, rates: tuple[float, ...], per: int) -> _Charge:
    near = max(begin, min(end, until))
    return _Charge(begin, near, rates, per, (end - near) * rates[-1] if end > near else 0.0)


def _hourly(rates: Rates, use: Use) -> float:
    due = rates.hour + rates.node_hour * use.nodes + rates.core_hour * use.cores + rates.gib_hour * use.memory
    for kind, count in use.accelerators:
        due += rates.accelerator(kind) * count
    return due


def _steps(prices: Prices, currency: Currency, charges: list[_Charge], before: int = 0, after: int = 0) -> Steps:
    begin, end = min(charge.begin for charge in charges), max(charge.end for charge in charges)
    return prices.calendars[currency].steps(begin + before, end + after)


@dataclass(frozen=True, slots=True)
class _Curve:
    """What a use costs by its start. It is linear from one break to the next.

    `totals[k][i]` is how many seconds before `edges[i]` were in state k.
    """

    start: int
    charges: list[_Charge]
    edges: Seconds
    states: Seconds
    totals: list[Seconds]

    def at(self, starts: Seconds) -> Costs:
        shift = starts - self.start
        found = np.zeros(len(starts))
        for charge in self.charges:
            due = np.full(len(starts), charge.fixed)
            since, until = self._elapsed(charge.begin + shift), self._elapsed(charge.end + shift)
            for before, after, rate in zip(since, until, charge.rates, strict=True):
                due += (after - before) * rate
            found += due / charge.per
        return found

    def breaks(self, first: int, last: int) -> Seconds:
        """The starts within (first, last) from which on the cost goes another way, in order."""
        moving = [charge for charge in self.charges if not charge.constant]
        shifts = {time - self.start for charge in moving for time in (charge.begin, charge.end)}
        starts = np.unique(np.concatenate([self.edges - shift for shift in shifts]))
        return starts[(starts > first) & (starts < last)]

    def _elapsed(self, times: Seconds) -> list[Seconds]:
        index = np.searchsorted(self.edges, times, side="right") - 1
        into, states = times - self.edges[index], self.states[index]
        return [total[index] + np.where(states == state, into, 0) for state, total in enumerate(self.totals)]


def _curve(prices: Prices, currency: Currency, use: Use, charges: list[_Charge], earliest: int, latest: int) -> _Curve:
    steps = _steps(prices, currency, charges, earliest - use.start, latest - use.start)
    edges, states = np.array(steps.edges, np.int64), np.array(steps.states, np.int64)
    lengths = np.diff(edges)
    totals = [np.append(0, np.cumsum(np.where(states[:-1] == state, lengths, 0))) for state in range(steps.outside + 1)]
    return _Curve(use.start, charges, edges, states, totals)


def _within(curve: _Curve, firsts: Seconds, lasts: Seconds, limit: float) -> tuple[Seconds, Seconds]:
    """The parts of these linear pieces that cost `limit` at most; a piece crosses the limit once or not at all."""
    first_fits, last_fits = fits(curve.at(firsts), limit), fits(curve.at(lasts), limit)
    good, bad = np.where(first_fits, firsts, lasts), np.where(first_fits, lasts, firsts)
    crosses = first_fits != last_fits
    good[crosses] = _edge(curve, good[crosses], bad[crosses], limit)
    some = first_fits | last_fits
    return np.where(first_fits, firsts, good)[some], np.where(last_fits, lasts, good)[some]


def _edge(curve: _Curve, good: Seconds, bad: Seconds, limit: float) -> Seconds:
    """The last second that is within the limit on the way from each of `good`, which is, to its `bad`, which is not."""
    while np.any(np.abs(good - bad) > 1):
        middle = (good + bad) // 2
        fitting = fits(curve.at(middle), limit)
        # neighbours stay as they are: their middle is one of the two
        good, bad = np.where(fitting, middle, good), np.where(fitting, bad, middle)
    return good


def _joined(firsts: Seconds, lasts: Seconds) -> tuple[tuple[int, int], ...]:
    """Neighbouring intervals as one."""
    opens = np.append(True, firsts[1:] > lasts[:-1] + 1)
    closes = np.append(opens[1:], True)
    return tuple(zip(firsts[opens].tolist(), lasts[closes].tolist(), strict=True)) if len(firsts) else ()
