import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Annotated, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

Currency = Literal["money", "energy", "carbon"]
CURRENCIES: tuple[Currency, ...] = get_args(Currency)
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
DAY = 86400
OTHERS = "*"
"""The accelerators that a price list does not name."""

_EPOCH = date(1970, 1, 1).toordinal()


def _hour(value: object) -> int:
    """Seconds since midnight."""
    if isinstance(value, int) and not isinstance(value, bool):
        # YAML 1.1 reads 20:00 without quotes in base 60, as 1200
        raise ValueError(f'{value} is a number; write the hour in quotes, such as "{value // 60 % 24:02}:{value % 60:02}"')
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)|24:00", value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f'{value!r} is not an hour such as "06:30", from "00:00" to "24:00"')
    return int(match[1]) * 3600 + int(match[2]) * 60 if match[1] else DAY


def _span(value: object) -> tuple[date, date]:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value, value
    try:
        first, _, last = str(value).partition("/")
        span = date.fromisoformat(first), date.fromisoformat(last or first)
    except ValueError:
        raise ValueError(f"{value!r} is neither a date, 2026-12-24, nor the first and the last, 2026-12-25/2027-01-06") from None
    if span[1] < span[0]:
        raise ValueError(f"{value!r} ends before it begins; the first date comes first")
    return span


def _by_kind(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {OTHERS: value}
    if not isinstance(value, dict):
        raise ValueError("a number is needed here, or one for each kind, such as {a100: 2.5, l4: 0.6}")
    return value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        alike = " or ".join(get_close_matches(name, sorted(available_timezones()), n=2)) or "Europe/Madrid"
        raise ValueError(f"there is no time zone {name!r}; an IANA name is needed, such as {alike}") from None
    return name


Zone = Annotated[str, AfterValidator(_zone)]
Hour = Annotated[
    int,
    BeforeValidator(_hour),
    PlainSerializer(lambda seconds: f"{seconds // 3600:02}:{seconds % 3600 // 60:02}", return_type=str),
]
Dates = Annotated[
    tuple[date, date], BeforeValidator(_span), PlainSerializer(lambda span: f"{span[0]}/{span[1]}", return_type=str)
]
Rate = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class Rates(BaseModel):
    """What one of each costs. In a tariff, a rate that is left out is the one outside of tariffs times the factor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hour: Rate = Field(0, description="Per hour of a session, whatever its size.")
    node_hour: Rate = Field(0, description="Per node and hour.")
    core_hour: Rate = Field(0, description="Per core and hour.")
    gib_hour: Rate = Field(0, description="Per GiB of memory and hour.")
    accelerator_hour: Annotated[dict[str, Rate], BeforeValidator(_by_kind)] = Field(
        default_factory=dict,
        description="Per accelerator and hour: one number, or one for each kind, with * for those that are not named.",
    )
    gb_staged: Rate = Field(0, description="Per GB (1e9 bytes) of data staged, at the tariff when preparing starts.")
    gb_day: Rate = Field(0, description="Per GB and day of storage, from the start of preparing until it is given back.")

    def accelerator(self, kind: str) -> float:
        return self.accelerator_hour.get(kind, self.accelerator_hour.get(OTHERS, 0))


_AMOUNTS = Rates.model_fields.keys() - {"accelerator_hour"}


class Tariff(Rates):
    """Other rates at certain hours, on certain days; all that is given of `from` and `until`, `days`, `dates` has to hold.

    What counts is the clock on the wall in the zone of the price list. An `until` that is not after `from` is on the next
    day, and those hours belong to the day on which they begin: `days: [fri]` from 20:00 until 06:00 ends on Saturday
    morning. Where the clock is put forward, the hour that is skipped is never charged; where it is put back, the hour that
    comes twice has the same tariff both times.
    """

    name: str = Field("", description="What people call it.")
    from_: Hour = Field(0, alias="from", description='The hour at which it begins, in quotes; by default "00:00".')
    until: Hour = Field(DAY, description='The hour at which it ends, in quotes; by default "24:00".')
    days: list[Weekday] | None = Field(None, min_length=1, description="The days of the week; by default all.")
    dates: list[Dates] | None = Field(
        None, min_length=1, description="Dates, or first/last dates, such as 2026-12-25/2027-01-06; by default all."
    )
    factor: float = Field(
        1, ge=0, le=1e6, allow_inf_nan=False, description="What rates that are not given here are multiplied by."
    )

    @field_validator("from_")
    @classmethod
    def _begins_within_the_day(cls, begin: int) -> int:
        if begin == DAY:
            raise ValueError('a tariff cannot begin at "24:00"; write "00:00"')
        return begin

    @model_validator(mode="after")
    def _changes_something(self) -> "Tariff":
        called = f"the tariff {self.name!r}" if self.name else "this tariff"
        if not self.model_fields_set & {"factor", *Rates.model_fields}:
            raise ValueError(f"{called} changes nothing; give it a `factor`, or rates of its own")
        if not self.model_fields_set & {"from_", "until", "days", "dates"}:
            raise ValueError(f"{called} holds always; give it `from` and `until`, `days` or `dates`")
        return self


class PriceList(Rates):
    """The rates of one currency, and the tariffs under which they are others."""

    units: str = Field(min_length=1, description="The units that it is counted in.")
    tariffs: tuple[Tariff, ...] = Field(
        (),
        max_length=100,
        description="Other rates at other hours: the first that applies holds, and outside all the rates above.",
    )

    @cached_property
    def rates(self) -> tuple[Rates, ...]:
        """The rates under each tariff, and last those outside all."""
        return *(self._under(tariff) for tariff in self.tariffs), self

    def _under(self, tariff: Tariff) -> Rates:
        values = {name: getattr(self, name) * tariff.factor for name in _AMOUNTS}
        values |= {name: getattr(tariff, name) for name in _AMOUNTS & tariff.model_fields_set}
        own = tariff.accelerator_hour
        others = {} if OTHERS in own else {kind: rate * tariff.factor for kind, rate in self.accelerator_hour.items()}
        return Rates(accelerator_hour=others | own, **values)


class Money(PriceList):
    units: str = Field("EUR", min_length=1, description="The units that it is counted in.")


class Energy(PriceList):
    units: str = Field("kWh", min_length=1, description="The units that it is counted in.")


class Carbon(PriceList):
    units: str = Field("kg CO2e", min_length=1, description="The units that it is counted in.")


_FREE = Money()


class Prices(BaseModel):
    """What a platform charges."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: Zone = Field("UTC", description="The time zone of the tariffs' hours, by its IANA name, such as Europe/Madrid.")
    money: Money | None = Field(None, description="What sessions cost in money.")
    energy: Energy | None = Field(None, description="What sessions take in energy.")
    carbon: Carbon | None = Field(None, description="What sessions emit.")

    def of(self, currency: Currency) -> PriceList:
        """Its price list; what has no price is free."""
        found: PriceList | None = getattr(self, currency)
        return found or _FREE

    @cached_property
    def calendars(self) -> dict[Currency, "Calendar"]:
        return {currency: Calendar(ZoneInfo(self.zone), self.of(currency).tariffs) for currency in CURRENCIES}


@dataclass(frozen=True, slots=True)
class Steps:
    """Which tariff is in force when: `states[i]` from `edges[i]` until `edges[i + 1]`, in seconds since 1970.

    A state is the number of a tariff, or that of all tariffs, `outside`, where none is in force.
    """

    edges: list[int]
    states: list[int]
    outside: int

    def seconds(self, begin: int, end: int) -> list[int]:
        """How many seconds of [begin, end) are in each state."""
        counts = [0] * (self.outside + 1)
        index = bisect_right(self.edges, begin)
        while index < len(self.edges) and (edge := self.edges[index]) < end:
            counts[self.states[index - 1]] += edge - begin
            begin, index = edge, index + 1
        counts[self.states[index - 1]] += end - begin
        return counts


class _Window(NamedTuple):
    """`begin` and `end` in seconds after the midnight of the day it belongs to; `days` and `spans` (in days since 1970)."""

    begin: int
    end: int
    days: frozenset[int]
    spans: tuple[tuple[int, int], ...]

    def belongs_to(self, day: int) -> bool:
        weekday = (day + 3) % 7  # 1970 began on a Thursday
        return weekday in self.days and (not self.spans or any(first <= day <= last for first, last in self.spans))


def _window(tariff: Tariff) -> _Window:
    end = tariff.until if tariff.until > tariff.from_ else tariff.until + DAY
    days = frozenset(WEEKDAYS.index(day) for day in tariff.days or WEEKDAYS)
    spans = tuple((first.toordinal() - _EPOCH, last.toordinal() - _EPOCH) for first, last in tariff.dates or ())
    return _Window(tariff.from_, end, days, spans)


_BLOCK = 32 * DAY
_LAST = int(datetime(9999, 12, 1, tzinfo=UTC).timestamp())


class Calendar:
    """When tariffs are in force, worked out as it is asked for and kept for the latest that were."""

    def __init__(self, zone: tzinfo, tariffs: tuple[Tariff, ...]) -> None:
        self._zone = zone
        self._windows = tuple(_window(tariff) for tariff in tariffs)
        self._built = lru_cache(maxsize=32)(self._build)
        self._pattern = lru_cache(maxsize=1024)(self._make_pattern)

    def steps(self, begin: int, end: int) -> Steps:
        """The steps from `begin` or before until `end` or after."""
        if not self._windows:
            return Steps([begin], [0], 0)
        return self._built(begin // _BLOCK, end // _BLOCK)

    def _build(self, first: int, last: int) -> Steps:
        steps = Steps([], [], len(self._windows))
        for begin, end, offset in self._offsets(first * _BLOCK, (last + 1) * _BLOCK):
            for day in range((begin + offset) // DAY, (end + offset - 1) // DAY + 1):
                today, yesterday = self._belonging(day), self._belonging(day - 1)
                for second, state in self._pattern(today, yesterday):
                    if (time := day * DAY + second - offset) < end:
                        _append(steps, max(time, begin), state)
        return steps

    def _offsets(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The parts of [begin, end), whole days of UTC, in which the zone keeps one distance from UTC, and that, in seconds."""
        offset = self._offset(begin)
        for day in range(begin, end, DAY):
            if (new := self._offset(day + DAY)) != offset:
                change = self._change(day, new)
                yield begin, change, offset
                begin, offset = change, new
        yield begin, end, offset

    def _change(self, day: int, new: int) -> int:
        """The second of the day of UTC that begins at `day` from which on the zone is `new` seconds away."""
        return day + bisect_left(range(DAY), True, key=lambda second: self._offset(day + second) == new)

    def _offset(self, time: int) -> int:
        away = datetime.fromtimestamp(min(time, _LAST), self._zone).utcoffset()
        return int(away.total_seconds()) if away else 0

    def _belonging(self, day: int) -> tuple[bool, ...]:
        return tuple(window.belongs_to(day) for window in self._windows)

    def _make_pattern(self, today: tuple[bool, ...], yesterday: tuple[bool, ...]) -> list[tuple[int, int]]:
        """The state from each second of a day on, given the windows that belong to it and to the day before."""
        edges = {edge for window in self._windows for edge in (window.begin, window.end, window.end - DAY)}
        return [(second, self._state(second, today, yesterday)) for second in sorted(edges | {0}) if 0 <= second < DAY]

    def _state(self, second: int, today: tuple[bool, ...], yesterday: tuple[bool, ...]) -> int:
        for state, window in enumerate(self._windows):
            if today[state] and window.begin <= second < window.end:
                return state
            if yesterday[state] and second + DAY < window.end:
                return state
        return len(self._windows)


def _append(steps: Steps, time: int, state: int) -> None:
    if steps.edges and steps.edges[-1] == time:
        steps.states[-1] = state
    elif not steps.states or steps.states[-1] != state:
        steps.edges.append(time)
        steps.states.append(state)
