import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from execbroker.cli.visit import DONE, NO, REFUSED, Stop, Visit, command
from execbroker.cli.wishes import Wish

if TYPE_CHECKING:
    from rich.console import Console

    from execbroker.model.components import AbstractComponent
    from execbroker.model.sessions import OfferSetResponse, ScheduledExecutionSession

Uuid = Annotated[str, typer.Argument(metavar="UUID", help="The uuid of an offer or session, or a unique beginning of it.")]


def add_to(app: typer.Typer) -> None:
    for work in (ask, accept, reject, run):
        command(app, work)


async def ask(visit: Visit, wish: Wish) -> int:
    """When, where and how can this be run? Prints offers, each held for some minutes, or NO with every reason."""
    answer = await visit.client.ask(wish.request())
    if not visit.payload(answer):
        print_answer(visit.console, answer)
        _print_next(visit.console, answer)
    return DONE if answer.result == "YES" else NO


async def accept(visit: Visit, uuid: Uuid) -> None:
    """Take an offer; its siblings are released."""
    session = await visit.client.accept(await visit.find(uuid))
    if not visit.payload(session):
        _print_promise(visit.console, session)


async def reject(visit: Visit, uuid: Uuid) -> None:
    """Give an offer back."""
    session = await visit.client.reject(await visit.find(uuid))
    if not visit.payload(session):
        visit.console.print(f"{session.phase}  {uuid_of(session)}")


async def run(visit: Visit, wish: Wish) -> int:
    """Ask, take the best offer, and follow the session to its end. Ctrl-C leaves it running."""
    from execbroker.cli.following import follow_to_end
    from execbroker.model.phases import Phase

    answer = await visit.client.ask(wish.request())
    if answer.result != "YES" or not answer.offers:
        if not visit.payload(answer):
            print_answer(visit.console, answer)
        return NO
    session = await visit.client.accept(uuid_of(answer.offers[0]))
    print_warnings(visit.console, answer)
    _print_promise(visit.console, session)
    try:
        session = await follow_to_end(visit.client, uuid_of(session), visit.console)
    except asyncio.CancelledError:
        print_detached(visit.console, uuid_of(session))
        raise
    if not visit.payload(session):
        visit.console.print(f"What it left: execbroker get {uuid_of(session)}", style="dim")
    return DONE if session.phase is Phase.COMPLETED else NO


def print_answer(out: "Console", answer: "OfferSetResponse") -> None:
    """The offers as a table, the best first; or NO and why."""
    from rich.text import Text

    from execbroker.cli.tables import messages_of

    if answer.result != "YES":
        out.print(Text("NO", style="bold red"))
        for item in messages_of(answer):
            out.print(Text(f"  {item.message or item.kind}"))
        return
    _print_offers(out, answer)
    print_warnings(out, answer)


def _print_offers(out: "Console", answer: "OfferSetResponse") -> None:
    from execbroker.cli.tables import print_table, when, zone_name

    offers: list[ScheduledExecutionSession] = list(answer.offers or [])  # type: ignore[arg-type]
    header = ("#", f"start ({zone_name()})", "for", "cores", "memory", "storage", "offer")
    rows = [(str(number), *_columns(offer), uuid_of(offer)) for number, offer in enumerate(offers, 1)]
    print_table(out, header, rows)
    if offers and (expires := offers[0].expires):
        out.print(f"Held until {when(expires)}.", style="dim")


def _print_next(out: "Console", answer: "OfferSetResponse") -> None:
    if answer.offers:
        out.print(f"Take the first: execbroker accept {uuid_of(answer.offers[0])}", style="dim")


def _columns(offer: "ScheduledExecutionSession") -> tuple[str, str, str, str, str]:
    from execbroker.cli.tables import duration_of, length, start_of, when

    start, duration = start_of(offer), duration_of(offer)
    cores, memory = (getattr(getattr(offer.compute, name, None), "max", None) for name in ("cores", "memory"))
    storage = sum(getattr(getattr(each, "size", None), "max", None) or 0 for each in offer.storage or [])
    return (
        when(start) if start else "",
        length(duration) if duration else "",
        str(cores or ""),
        f"{memory} GiB" if memory else "",
        f"{storage} GiB" if storage else "",
    )


def print_warnings(out: "Console", answer: "OfferSetResponse") -> None:
    from execbroker.cli.tables import messages_of, print_messages

    print_messages(out, messages_of(answer))


def _print_promise(out: "Console", session: "ScheduledExecutionSession") -> None:
    from execbroker.cli.tables import start_of, when

    start = start_of(session)
    out.print(f"{session.phase}  {uuid_of(session)}{f'  starts {when(start)}' if start else ''}")


def print_detached(out: "Console", uuid: str) -> None:
    """How to come back to a session that goes on."""
    out.print(f"\nIt goes on without you.\n  follow: execbroker logs -f {uuid}\n  cancel: execbroker cancel {uuid}")


def uuid_of(session: "AbstractComponent") -> str:
    """Raises Stop where it has none, which no broker should say."""
    if session.meta is None or session.meta.uuid is None:
        raise Stop("The broker answered with something that has no uuid", REFUSED)
    return str(session.meta.uuid)
