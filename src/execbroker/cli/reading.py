import re
from datetime import timedelta
from math import isfinite
from pathlib import Path
from typing import Any

from execbroker.cli.visit import Stop

_SHORT_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.IGNORECASE)
_CURRENCIES = {"money": "monetary", "energy": "energy", "carbon": "carbon"}


def read_url(text: str) -> str:
    """A URL as it is; anything else is a path on this machine."""
    return text if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) else Path(text).expanduser().resolve().as_uri()


def read_range(option: str, text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match:
        raise Stop(f"{option} {text}: this must be a whole number such as 4, or a range such as 4-8")
    least, most = match.groups()
    return {"min": int(least), **({"max": int(most)} if most else {})}


def read_duration(text: str | None) -> str | None:
    """`4h` as PT4H; what is ISO 8601 already is the broker's to read."""
    match = _SHORT_DURATION.fullmatch(text) if text else None
    if not match:
        return text
    days, *rest = match.groups()
    time = "".join(f"{amount}{unit}" for amount, unit in zip(rest, "HMS", strict=True) if amount)
    return f"P{f'{days}D' if days else ''}{f'T{time}' if time else ''}"


def read_change(text: str) -> timedelta:
    """By how much something becomes longer, or shorter: `30m`, `-1h30m`, `-PT10M`. Raises Stop."""
    from execbroker.model.times import parse_duration

    sign, length = ("-", text[1:]) if text.startswith("-") else ("", text.removeprefix("+"))
    try:
        change = parse_duration(sign + (read_duration(length) or ""))
    except ValueError:
        change = timedelta(0)
    if not int(change.total_seconds()):
        raise Stop(f"{text}: by how much must look like 30m, 1h30m or PT30M, or -10m to make it shorter")
    return change


def read_parameters(texts: list[str] | None) -> dict[str, Any]:
    from execbroker.codecs import CODECS
    from execbroker.errors import Unreadable

    yaml = next(codec for codec in CODECS if codec.media_type == "application/yaml")
    found = {}
    for text in texts or []:
        name, value = _split("--param", text, "name=0.5")
        try:
            found[name] = yaml.decode(value.encode())
        except Unreadable as error:
            raise Stop(f"--param {text}: {error.detail}") from None
    return found


def read_storage(text: str) -> tuple[str, int, str]:
    """The name, the size in GiB, and the path where it is seen."""
    example = "results=2 or results=2:/my-results"
    name, value = _split("--storage", text, example)
    size, colon, path = value.partition(":")
    if not size.isdigit() or (colon and not path):
        raise Stop(f"--storage {text}: this must look like {example}, the size in GiB")
    return name, int(size), path or name


def read_input(text: str) -> tuple[str, str]:
    """The path where it is seen, and the URL."""
    path, url = _split("--input", text, "data=https://example.org/table.csv")
    if ":" in path:
        raise Stop(f"--input {text}: say where it is to be seen, as in --input data={text}")
    return path, read_url(url)


def read_licence(text: str) -> tuple[str, int]:
    """The name, and how many."""
    name, equals, count = text.partition("=")
    if not name or (equals and not count.isdigit()):
        raise Stop(f"--licence {text}: this must look like idl, or idl=2 for two")
    return name, int(count or 1)


def read_cost(text: str) -> tuple[str, float]:
    """The published type of the cost, and how much of it at most."""
    name, _, number = text.rpartition("=")
    try:
        most = float(number)
    except ValueError:
        most = -1
    if (name or "money") not in _CURRENCIES or not (isfinite(most) and most >= 0):
        raise Stop(f"--max-cost {text}: this must look like 5 for money, or energy=3, or carbon=0.5")
    return f"urn:ivoa:calycopis:cost:{_CURRENCIES[name or 'money']}", most


def _split(option: str, text: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise Stop(f"{option} {text}: this must look like {example}")
    return name, value
