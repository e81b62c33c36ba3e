from itertools import groupby
from typing import TYPE_CHECKING, Any

import typer

from execbroker.cli.visit import Visit, command

if TYPE_CHECKING:
    from rich.console import Console

_RATES = {
    "hour": "hour",
    "node_hour": "node-hour",
    "core_hour": "core-hour",
    "gib_hour": "GiB-hour",
    "gb_staged": "GB staged",
    "gb_day": "GB-day",
}
_SHARED = {"storage": "GiB of storage", "staging": "MB/s of staging"}


def add_to(app: typer.Typer) -> None:
    command(app, platforms)


async def platforms(visit: Visit) -> None:
    """Print where sessions can run here, and what they cost."""
    found = await visit.client.platforms()
    if not visit.payload(found):
        _print_platforms(visit.console, found["platforms"])


def _print_platforms(out: "Console", found: list[dict[str, Any]]) -> None:
    from execbroker.cli.tables import print_table, print_text

    header = ("platform", "nodes", "cores", "memory", "storage", "gpus", "node")
    rows = [row for platform in found for row in _rows(platform)]
    shown = [column for column in range(len(header)) if header[column] != "gpus" or any(row[column] for row in rows)]
    print_table(out, [header[column] for column in shown], ([row[column] for column in shown] for row in rows))
    for platform in found:
        for note in (*_notes(platform), *platform["notes"]):
            print_text(out, f"{platform['name']}: {note}", 0)


def _rows(platform: dict[str, Any]) -> list[tuple[str, ...]]:
    """Nodes that follow one another and are equal, on one row."""
    groups = [(amounts, [node["name"] for node in nodes]) for amounts, nodes in groupby(platform["nodes"], _amounts)]
    rows = [
        (platform["name"], str(len(names)), *amounts, names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}")
        for amounts, names in groups
    ]
    return rows or [(platform["name"], "", "", "", "", "", "not reached yet")]


def _amounts(node: dict[str, Any]) -> tuple[str, ...]:
    return str(node["cores"]), f"{node['memory']} GiB", f"{node['storage']} GiB", _gpus(node)


def _gpus(thing: dict[str, Any]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in (thing.get("accelerators") or {}).items())


def _notes(platform: dict[str, Any]) -> list[str]:
    """What it has besides nodes; a broker of another make may not say."""
    flavours = [f"{one['name']} ({_size(one)})" for one in platform.get("flavours") or []]
    shared = [f"{size} {_SHARED.get(name, f'{name} licences')}" for name, size in (platform.get("pools") or {}).items()]
    notes = [f"sizes are {', '.join(flavours)}"] if flavours else []
    notes += [f"all nodes share {', '.join(shared)}"] if shared else []
    prices = platform.get("prices") or {}
    return notes + [_price(currency, prices[currency]) for currency in ("money", "energy", "carbon") if currency in prices]


def _size(flavour: dict[str, Any]) -> str:
    from execbroker.cli.amounts import counted

    gpus = _gpus(flavour)
    return ", ".join([counted(flavour["cores"], "core"), f"{flavour['memory']} GiB", *([gpus] if gpus else [])])


def _price(currency: str, prices: dict[str, Any]) -> str:
    """`0.04 EUR per core-hour, 2.5 EUR per a100-hour; other prices: night`."""
    from execbroker.model.prices import OTHERS, Carbon, Energy, Money

    kinds = {"money": Money, "energy": Energy, "carbon": Carbon}
    units = prices.get("units") or kinds[currency].model_fields["units"].default
    rates = [f"{prices[name]:g} {units} per {word}" for name, word in _RATES.items() if prices.get(name)]
    for kind, rate in (prices.get("accelerator_hour") or {}).items():
        rates.append(f"{rate:g} {units} per {'hour of any other gpu' if kind == OTHERS else f'{kind}-hour'}")
    tariffs = [tariff.get("name") or "at some hours" for tariff in prices.get("tariffs") or []]
    return ", ".join(rates or ["free"]) + (f"; other prices: {', '.join(tariffs)}" if tariffs else "")
