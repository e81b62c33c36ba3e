"""How an answer is shown: the offers as a table, or why not, and what would be possible."""

import re
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.text import Text

from execbroker.cli.amounts import accelerators_of, computes_of, cost_of, counted, held, nodes_of
from execbroker.cli.offers import uuid_of
from execbroker.cli.tables import (
    clock_time,
    duration_of,
    length,
    messages_of,
    print_messages,
    print_table,
    print_text,
    starts,
    when,
    zone_name,
)
from execbroker.client.changes import COUNTER_OFFER, Change, counter_offers
from execbroker.model.messages import MessageItem
from execbroker.model.sessions import OfferSetResponse, ScheduledExecutionSession
from execbroker.model.times import Interval, parse_duration

_ALWAYS = ("#", "for", "cores", "memory", "offer")


def print_offers(out: Console, answer: OfferSetResponse) -> None:
    """A table, the best first; columns in which no offer has anything are left out."""
    offers: list[ScheduledExecutionSession] = list(answer.offers or [])  # type: ignore[arg-type]
    start = f"start ({zone_name()})"
    rows = [
        {"#": str(number), "objective": offer.objective or "", start: starts(offer), **_cells(offer)}
        for number, offer in enumerate(offers, 1)
    ]
    if len({offer.platform for offer in offers}) > 1:
        for row, offer in zip(rows, offers, strict=True):
            row["on"] = offer.platform or ""
    names = [name for name in (rows[0] if rows else {}) if name in (start, *_ALWAYS) or any(row[name] for row in rows)]
    print_table(out, names, ([row[name] for name in names] for row in rows))
    if offers and (expires := offers[0].expires):
        out.print(f"Held until {when(expires)}.", style="dim")
    print_messages(out, messages_of(answer))


def _cells(offer: ScheduledExecutionSession) -> dict[str, str]:
    duration, computes, nodes = duration_of(offer), computes_of(offer), nodes_of(offer)
    storage = sum(getattr(getattr(each, "size", None), "max", None) or 0 for each in offer.storage or [])
    return {
        "for": length(duration) if duration else "",
        "cores": _joined(held(one, "cores") for one in computes),
        "memory": f"{memory} GiB" if (memory := _joined(held(one, "memory") for one in computes)) else "",
        "gpus": _joined(accelerators_of(one) for one in computes),
        "nodes": str(nodes) if nodes > 1 else "",
        "on": "",
        "flavour": _joined(getattr(one, "flavour", None) for one in computes),
        "storage": f"{storage} GiB" if storage else "",
        "cost": cost_of(offer, "cost"),
        "energy": cost_of(offer, "energy"),
        "carbon": cost_of(offer, "carbon"),
        "offer": uuid_of(offer),
    }


def _joined(parts: Iterable[object]) -> str:
    return " + ".join(str(part) for part in parts if part)


def print_refusal(out: Console, answer: OfferSetResponse) -> None:
    """NO, every reason, and each way in which it would be YES."""
    out.print(Text("NO", style="bold red"))
    for item in messages_of(answer):
        if item.kind != COUNTER_OFFER:
            _print_reason(out, item)
    ways = counter_offers(answer)
    if ways:
        out.print("It would be YES with:")
    for number, changes in enumerate(ways, 1):
        print_text(out, Text(f"{number}. ").append_text(way_text(changes)))


def _print_reason(out: Console, item: MessageItem) -> None:
    if item.level == "ERROR":
        print_text(out, item.message or item.kind or "")
    else:
        print_messages(out, [item])


def way_text(changes: list[Change]) -> Text:
    """What one way asks for, and where that stands in the request."""
    said = [change for change in changes if not change.path.endswith(".kind")] or changes
    *others, last = map(_words, said)
    text = Text(f"{', '.join(others)} and {last}" if others else last)
    return text.append(f"  ({', '.join(change.path for change in said)})", style="dim")


def _words(change: Change) -> str:
    """For people: `8 cores`, `a start from 14:05:00 to 15:05:00`."""
    try:
        return next(say(change.value) for pattern, say in _WORDS.items() if re.fullmatch(pattern, change.path))
    except (StopIteration, ValueError):
        return f"{change.value} {change.units}".rstrip()


def _start(value: str) -> str:
    span = Interval.parse(value)
    return f"a start from {clock_time(span.start)} to {clock_time(span.end)}"


_WORDS: dict[str, Callable[[str], str]] = {
    r"compute(\[\d+\])?\.cores\.min": lambda value: counted(int(value), "core"),
    r"compute(\[\d+\])?\.memory\.min": lambda value: f"{value} GiB of memory",
    r"compute(\[\d+\])?\.accelerators\[\d+\]\.count(\.min)?": lambda value: counted(int(value), "accelerator"),
    r"compute(\[\d+\])?\.licences\[\d+\]\.count": lambda value: counted(int(value), "licence"),
    r"compute(\[\d+\])?\.replicas": lambda value: counted(int(value), "node"),
    r"storage\[\d+\]\.size\.min": lambda value: f"{value} GiB of storage",
    r"schedule\.requested\.duration": lambda value: f"a duration of {length(parse_duration(value))}",
    r"schedule\.requested\.start": _start,
    r"platforms": lambda value: f"the platform {value}",
    r"costs\[\d+\]\.max": lambda value: f"a limit of {value}",
}
