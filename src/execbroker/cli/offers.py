import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from execbroker.cli.visit import DONE, NO, REFUSED, Stop, Visit, command
from execbroker.cli.wishes import Wish

if TYPE_CHECKING:
    from rich.console import Console

    from execbroker.client import Change
    from execbroker.model.components import AbstractComponent
    from execbroker.model.sessions import OfferSetResponse, ScheduledExecutionSession

Uuid = Annotated[str, typer.Argument(metavar="UUID", help="The uuid of an offer or session, or a unique beginning of it.")]
Nearest = Annotated[
    bool,
    typer.Option("--nearest", help="After a NO, ask again with the first change that makes it YES; in a terminal, choose."),
]


def add_to(app: typer.Typer) -> None:
    for work in (ask, accept, reject, run):
        command(app, work)


async def ask(visit: Visit, wish: Wish, nearest: Nearest = False) -> int:
    """When, where and how can this be run? Prints offers, each held for some minutes, or NO with every reason."""
    answer = await _answer(visit, wish, nearest=nearest)
    if not visit.payload(answer):
        _print_next(visit.console, answer, nearest=nearest)
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


async def run(visit: Visit, wish: Wish, nearest: Nearest = False) -> int:
    """Ask, take the best offer, and follow the session to its end. Ctrl-C leaves it running."""
    from execbroker.cli.following import follow_to_end
    from execbroker.cli.tables import messages_of, print_messages
    from execbroker.model.phases import Phase

    answer = await _answer(visit, wish, nearest=nearest, offers=False)
    if answer.result != "YES" or not answer.offers:
        if not visit.payload(answer):
            _print_next(visit.console, answer, nearest=nearest)
        return NO
    session = await visit.client.accept(uuid_of(answer.offers[0]))
    print_messages(visit.console, messages_of(answer))
    _print_promise(visit.console, session)
    try:
        session = await follow_to_end(visit.client, uuid_of(session), visit.console)
    except asyncio.CancelledError:
        print_detached(visit.console, uuid_of(session))
        raise
    if not visit.payload(session):
        visit.console.print(f"What it left: execbroker get {uuid_of(session)}", style="dim")
    return DONE if session.phase is Phase.COMPLETED else NO


async def _answer(visit: Visit, wish: Wish, *, nearest: bool, offers: bool = True) -> "OfferSetResponse":
    """The answer; where that is NO and the `nearest` YES will do, the answer to that. Prints it for a person, unless it is
    `offers` that need not be seen."""
    request = wish.request()
    answer = await visit.client.ask(request)
    if nearest and answer.result == "NO":
        print_answer(visit.console, answer)
        changes = await _chosen(visit.console, answer)
        if changes is None:
            return answer
        answer = await _asked_again(visit, request, changes)
    if not visit.form and (offers or answer.result == "NO"):
        print_answer(visit.console, answer)
    return answer


async def _asked_again(visit: Visit, request: dict[str, Any], changes: "list[Change]") -> "OfferSetResponse":
    from rich.text import Text

    from execbroker.cli.answers import way_text
    from execbroker.cli.tables import print_text
    from execbroker.client import changed

    try:
        request = changed(request, changes)
    except ValueError as error:
        raise Stop(f"What the broker suggests cannot be asked for: {error}", REFUSED) from None
    print_text(visit.console, Text("Asked again with ").append_text(way_text(changes)), 0)
    return await visit.client.ask(request)


async def _chosen(out: "Console", answer: "OfferSetResponse") -> "list[Change] | None":
    """The changes that are made; None where there are none to make, or none are wanted."""
    from execbroker.client import counter_offers

    ways = counter_offers(answer)
    if not ways:
        return None
    number = await _choice(out, len(ways)) if sys.stdin.isatty() and out.is_terminal else 1
    return None if number is None else ways[number - 1]


async def _choice(out: "Console", number: int) -> int | None:
    """The number of the way that a person picks; None for none of them."""
    which = "it? Enter for yes" if number == 1 else f"which of them, 1 to {number}? Enter for 1"
    out.print(f"Ask again with {which}, n for no: ", end="")
    text = (await _line()).strip() or "1"
    return int(text) if text.isdecimal() and 1 <= int(text) <= number else None


async def _line() -> str:
    """What is typed next; n where that has an end. Ctrl-C is heard meanwhile."""
    ready, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(sys.stdin, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline() or "n"


def print_answer(out: "Console", answer: "OfferSetResponse") -> None:
    """The offers as a table, the best first; or NO and why."""
    from execbroker.cli.answers import print_offers, print_refusal

    (print_offers if answer.result == "YES" else print_refusal)(out, answer)


def _print_next(out: "Console", answer: "OfferSetResponse", *, nearest: bool) -> None:
    from execbroker.client import counter_offers

    if answer.offers:
        out.print(f"Take the first: execbroker accept {uuid_of(answer.offers[0])}", style="dim")
    elif counter_offers(answer) and not nearest:
        out.print("Ask again with the first: the same command and --nearest", style="dim")


def _print_promise(out: "Console", session: "ScheduledExecutionSession") -> None:
    from execbroker.cli.tables import starts

    start = starts(session)
    out.print(f"{session.phase}  {uuid_of(session)}{f'  starts {start}' if start else ''}")


def print_detached(out: "Console", uuid: str) -> None:
    """How to come back to a session that goes on."""
    out.print(f"\nIt goes on without you.\n  follow: execbroker logs -f {uuid}\n  cancel: execbroker cancel {uuid}")


def uuid_of(session: "AbstractComponent") -> str:
    """Raises Stop where it has none, which no broker should say."""
    if session.meta is None or session.meta.uuid is None:
        raise Stop("The broker answered with something that has no uuid", REFUSED)
    return str(session.meta.uuid)
