import sys
from typing import TYPE_CHECKING, Annotated

import typer

from execbroker.cli.visit import Stop, Visit, command, say

if TYPE_CHECKING:
    from ssl import SSLContext

    from execbroker.client.devices import Device
    from execbroker.client.doors import Ways
    from execbroker.client.logins import Password, Tokens

Username = Annotated[str | None, typer.Option(metavar="NAME", help="The account that you have at the broker itself.")]
IssuerUrl = Annotated[str | None, typer.Option(metavar="URL", help="Where to log in, of several issuers that the broker trusts.")]
MINUTE = 60


def add_to(app: typer.Typer) -> None:
    command(app, login, prints=False)
    command(app, logout, prints=False)


async def login(visit: Visit, username: Username = None, issuer: IssuerUrl = None) -> None:
    """Say who you are, once for all commands: at an issuer that the broker trusts, or with --username by a password."""
    from execbroker.client.doors import knock, ways_in
    from execbroker.client.logins import Logins

    url, trusted = _where(visit)
    ways = await ways_in(url, trusted)
    if not ways.basic and not ways.issuers:
        raise Stop(f"The broker at {url} has no accounts: nobody logs in there")
    found = _password(ways, username) if username else await _tokens(ways, issuer)
    name = await knock(url, trusted, found)
    logins = Logins()
    async with logins.locked():
        logins.keep(url, found)
    typer.echo(f"Logged in to {url}" + (f" as {name}" if name else ""))


async def logout(visit: Visit) -> None:
    """Forget who you are, and tell the issuer."""
    from execbroker.client.devices import revoke
    from execbroker.client.logins import Logins, Tokens

    (url, _), logins = _where(visit), Logins()
    async with logins.locked():
        found = logins.forget(url)
    if found is None:
        typer.echo(f"You were not logged in to {url}")
        return
    if isinstance(found, Tokens) and not await revoke(found):
        say(f"{found.issuer} could not be told; its tokens count until they expire")
    typer.echo(f"Logged out of {url}")


def _where(visit: Visit) -> "tuple[str, SSLContext]":
    """The broker's address, and whose certificates are believed. Raises Stop where others could listen on the way there."""
    from execbroker.client.discovery import find_broker, trust
    from execbroker.places import is_protected

    try:
        place = find_broker(visit.url, folder=visit.folder)
        trusted = trust(place, visit.ca)
    except ValueError as error:
        raise Stop(str(error)) from None
    if not is_protected(place.url):
        raise Stop(f"{place.url} is not https: others could read on the way who you are")
    return place.url, trusted


def _password(ways: "Ways", username: str) -> "Password":
    from execbroker.client.logins import Password

    if not ways.basic:
        raise Stop("The broker takes no passwords; log in without --username")
    asked = typer.prompt("Password", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    return Password(username=username, password=asked.rstrip("\n"))


async def _tokens(ways: "Ways", issuer: str | None) -> "Tokens":
    from execbroker.client.devices import log_in

    named = [way for way in ways.issuers if issuer in (None, way.issuer)]
    if len(named) == 1:
        return await log_in(named[0], _show)
    if not ways.issuers:
        raise Stop("The broker knows people by its own accounts alone; name yours by --username")
    known = [f"  {way.issuer}" for way in ways.issuers]
    raise Stop("\n".join([f"{'Name one' if named else 'There is no such one'} of the broker's issuers by --issuer:", *known]))


def _show(device: "Device") -> None:
    minutes = max(int(device.expires_in) // MINUTE, 1)
    typer.echo(f"To log in, open\n\n    {_plain(device.verification_uri)}\n")
    typer.echo(f"in a browser, and enter the code\n\n    {_plain(device.user_code)}\n")
    if device.verification_uri_complete:
        typer.echo(f"or open {_plain(device.verification_uri_complete)}\n")
    typer.echo(f"Waiting for you to agree there, for {minutes} minute{'s' * (minutes > 1)} at most ...")


def _plain(text: str) -> str:
    """Nothing that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
