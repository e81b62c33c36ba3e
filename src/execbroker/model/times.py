import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

INSTANT_PATTERN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}[^/]+$"
DURATION_PATTERN = r"^-?P(\d+Y)?(\d+M)?(\d+[DW])?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$"
INTERVAL_PATTERN = r"^[0-9TPYMWDHS:.Z+-]+/[0-9TPYMWDHS:.Z+-]+$"

_DURATION = re.compile(
    r"(-?)P(?=\d|T\d)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T?(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:[.,]\d+)?)S)?)?"
)
_SECONDS = {"Y": 365 * 86400, "Mo": 30 * 86400, "W": 7 * 86400, "D": 86400, "H": 3600, "M": 60, "S": 1}
_FOREVER = timedelta(days=365_000)
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class Clock:
    """The one source of "now", so that a test can be its own."""

    def now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0)

    def agreed(self, database: int | None) -> int:
        """The time on which all brokers agree, in seconds since 1970: that of the `database` they share, where it has one."""
        return int(self.now().timestamp()) if database is None else database

    def monotonic(self) -> float:
        """Seconds that never step, to notice when `now` does."""
        return time.monotonic()


def parse_duration(text: str) -> timedelta:
    """An ISO 8601 duration; `P1H` is read as `PT1H`, a year is 365 days, a month 30.

    Raises ValueError. What is longer than a thousand years counts as a thousand years.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not an ISO 8601 duration such as PT30M or P1D")
    sign, *parts = match.groups()
    seconds = sum(float((part or "0").replace(",", ".")) * unit for part, unit in zip(parts, _SECONDS.values(), strict=True))
    length = timedelta(seconds=min(seconds, _FOREVER.total_seconds()))
    return -length if sign else length


def format_duration(length: timedelta) -> str:
    """The shortest published form, to the second: `PT0S`, `PT1H30M`, `P1DT12H`."""
    seconds = int(length.total_seconds())
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    days, seconds = divmod(seconds, 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    date = f"{days}D" if days else ""
    clock = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if n)
    return f"{sign}P{date}{'T' + clock if clock else ''}" if date or clock else "PT0S"


def parse_instant(text: str) -> tuple[datetime, bool]:
    """An ISO 8601 instant in UTC, and whether it named its zone (UTC is taken where it did not). Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ValueError(f"{text!r} is not an ISO 8601 instant such as 2026-11-21T10:00:00Z") from error
    zoned = moment.tzinfo is not None
    try:
        return (moment.astimezone(UTC) if zoned else moment.replace(tzinfo=UTC)), zoned
    except OverflowError as error:
        raise ValueError(f"{text!r} is outside the calendar") from error


def format_instant(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment.year > 999 else f"{moment.year:04d}-{moment:%m-%dT%H:%M:%SZ}"


def _shifted(moment: datetime, length: timedelta) -> datetime:
    """No further than the calendar goes: `P9999Y` means whenever."""
    try:
        return moment + length
    except OverflowError:
        return _LAST if length > timedelta(0) else _FIRST


@dataclass(frozen=True, slots=True)
class Interval:
    """From `start` to `end`, both in UTC; `zoned` is False where UTC was assumed for want of a zone.

    `unreal` is the text of an interval of the published form that names no real time, such as the 31st of February.
    """

    start: datetime
    end: datetime
    zoned: bool = True
    unreal: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """`start/end`, `start/duration`, `duration/end`, and the talks' `2024-08-29T10:00ZPT1H` and `…T11:30Z/T12:00Z`.

        An instant alone is an interval of no length. Raises ValueError.
        """
        first, slash, second = re.sub(r"(?<=[0-9Z])(?=P)", "/", text.strip().replace("//", "/")).partition("/")
        if first.startswith(("P", "-P")):
            end, zoned = parse_instant(second)
            return cls(_shifted(end, -parse_duration(first)), end, zoned)
        start, zoned = parse_instant(first)
        if not slash:
            return cls(start, start, zoned)
        if second.startswith(("P", "-P")):
            return cls(start, _shifted(start, parse_duration(second)), zoned)
        if second.startswith("T"):
            second = first.partition("T")[0] + second
        end, also_zoned = parse_instant(second)
        return cls(start, end, zoned and also_zoned)

    @classmethod
    def read(cls, text: str) -> "Interval":
        """As `parse`, but what fits the published form is never refused. Raises ValueError."""
        try:
            return cls.parse(text)
        except ValueError:
            if re.fullmatch(INTERVAL_PATTERN, text):
                return cls(_FIRST, _FIRST, unreal=text)
            raise

    def __str__(self) -> str:
        if self.unreal:
            return self.unreal
        backwards = self.end < self.start  # v1.0 has no negative durations in intervals
        end = format_instant(self.end) if backwards else format_duration(self.end - self.start)
        return f"{format_instant(self.start)}/{end}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.read(_text(value)),
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "title": "ISO8601Interval", "pattern": INTERVAL_PATTERN}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a string is needed here")
    return value


def _read(parse: Callable[[str], Any], ready: type) -> BeforeValidator:
    return BeforeValidator(lambda value: value if isinstance(value, ready) else parse(_text(value)))


Instant = Annotated[
    datetime,
    _read(lambda text: parse_instant(text)[0], datetime),
    PlainSerializer(format_instant, return_type=str),
    WithJsonSchema({"type": "string", "title": "ISO8601Instant", "pattern": INSTANT_PATTERN}),
]
DateTime = Annotated[
    datetime,
    _read(lambda text: parse_instant(text)[0], datetime),
    PlainSerializer(format_instant, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Duration = Annotated[
    timedelta,
    _read(parse_duration, timedelta),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "title": "ISO8601Duration", "pattern": DURATION_PATTERN}),
]
