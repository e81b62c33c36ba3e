import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from execbroker.client.logins import Login, Logins
from execbroker.client.problems import NoAnswer
from execbroker.places import data_folder, is_loopback

ADDRESS = "server.json"
TOKEN = "token"  # noqa: S105 -- the name of a file


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker is and what opens its door; `certificate` is the one it has, where it has said so on this machine (PEM)."""

    url: str
    token: str | None
    certificate: str | None = None
    login: Login | None = None

    @property
    def is_here(self) -> bool:
        return is_here(self.url)


def find_broker(url: str | None = None, token: str | None = None, folder: Path | None = None) -> Place:
    """What the arguments say, else EXECBROKER_URL and EXECBROKER_TOKEN, else the broker of the data folder.

    Where no token is given, the login that was made for this very address counts, and then the token of the folder, which goes
    to this machine alone. The folder is the argument, else EXECBROKER_FOLDER, else the usual one. Raises NoAnswer where that
    leads nowhere, ClientError where the logins are damaged, and ValueError for a `url` that is none.
    """
    folder = folder or Path(os.environ.get("EXECBROKER_FOLDER") or data_folder())
    url, certificate = url or os.environ.get("EXECBROKER_URL"), None
    if not url:
        url, certificate = _listening(folder)
    url = url.rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError(f"{url!r} is not the address of a broker, such as http://127.0.0.1:8080")
    token = token or os.environ.get("EXECBROKER_TOKEN") or None
    if token:
        return Place(url, token, certificate)
    if login := Logins().find(url):
        return Place(url, None, certificate, login)
    return Place(url, _token(folder) if is_here(url) else None, certificate)


def trust(place: Place, ca: Path | None = None) -> ssl.SSLContext:
    """Whose certificates are believed: those of the usual authorities and those in the file `ca`, else EXECBROKER_CA. Of the
    broker of this machine it is the very certificate that it has, whatever name is in it.

    Raises ValueError where the file has none.
    """
    if place.certificate:
        context = ssl.create_default_context(cadata=place.certificate)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context
    context = httpx.create_ssl_context()
    context.load_default_certs()
    if named := ca or os.environ.get("EXECBROKER_CA"):
        _load(context, Path(named))
    return context


def _load(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise ValueError(f"{ca} has no certificates, as PEM, to believe: {error.strerror or error}") from None


def is_here(url: str) -> bool:
    """Whether this address is on this machine."""
    return is_loopback(urlsplit(url).hostname or "")


def _listening(folder: Path) -> tuple[str, str | None]:
    try:
        found = json.loads((folder / ADDRESS).read_text())
        return str(found["url"]), found.get("certificate")
    except FileNotFoundError:
        raise NoAnswer(
            f"No broker is running with the data folder {folder}: start one with `execbroker serve`, or name another by "
            "--url, --data, EXECBROKER_URL or EXECBROKER_FOLDER"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoAnswer(f"{folder / ADDRESS} does not say where the broker is: {error}") from None


def _token(folder: Path) -> str | None:
    try:
        return (folder / TOKEN).read_text().strip() or None
    except OSError:
        return None
