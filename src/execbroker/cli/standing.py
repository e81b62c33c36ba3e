from typing import TYPE_CHECKING, Any

import typer

from execbroker.cli.visit import Visit, command

if TYPE_CHECKING:
    from rich.console import Console

_WORDS = {
    "cores": "cores at a time",
    "memory": "GiB of memory at a time",
    "sessions": "sessions at a time",
    "held": "core-hours in offers",
    "monthly": "core-hours a month",
}


def add_to(app: typer.Typer) -> None:
    command(app, me)


async def me(visit: Visit) -> None:
    """Print who you are here, what you may have of each platform, and what is left."""
    found = await visit.client.me()
    if not visit.payload(found):
        _print(visit.console, found)


def _print(out: "Console", found: dict[str, Any]) -> None:
    from execbroker.cli.tables import print_table, print_text

    groups = f", of {', '.join(found['groups'])}" if found["groups"] else ""
    print_text(out, f"{found['name']}{groups}{', an admin' if found['admin'] else ''}", 0)
    for platform in found["platforms"]:
        limits = [_limit(what, most) for what, most in platform["limits"].items()]
        print_text(out, f"{platform['name']}: {'a session has at most ' + ', '.join(limits) if limits else 'yours to use'}", 0)
    if rows := [row for platform in found["platforms"] for row in _rows(platform)]:
        print_table(out, ("platform", "of", "what", "quota", "used", "left", "anew"), rows)


def _limit(what: str, most: Any) -> str:
    from execbroker.cli.tables import length
    from execbroker.model.times import parse_duration

    if what == "duration":
        return length(parse_duration(most))
    if what in ("memory", "storage"):
        return f"{most} GiB of {what}"
    return f"{most} {what if most != 1 else what.removesuffix('s')}"


def _rows(platform: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            platform["name"],
            "you" if account["of"] == "owner" else account["name"],
            _WORDS.get(what, what),
            *(f"{account[part][what]:.6g}" for part in ("quota", "used", "left")),
            account.get("renewed", "") if what == "monthly" else "",
        )
        for account in platform["quotas"]
        for what in account["quota"]
    ]
