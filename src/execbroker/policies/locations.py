"""Addresses as they are compared with patterns: in the one form that all ways to write the same address have."""

import re
import unicodedata
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self
from urllib.parse import unquote, urlsplit

from execbroker.staging.base import Forbidden
from execbroker.staging.guard import as_address, carried, read_host

PORTS = {"http": "80", "https": "443", "ftp": "21", "sftp": "22"}
NO_HOSTS = {"file", "s3", "rucio", "ivo", "vos"}
"""Schemes whose authority is no host."""
_WILD = re.compile(r"[*?\[]")
_SLASH = re.compile("%2f", re.IGNORECASE)
_DOTS = "it has dots in it that are not read the same everywhere"
_NAME = re.compile(r"[a-z0-9._~!-]*")
_PATTERN = re.compile(r"(?P<scheme>[^:/]+):(?://(?P<netloc>[^/]*))?(?P<path>.*)")
_NETLOC = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|.*?)(?::(?P<port>[\d*?]+))?")


@dataclass(frozen=True, slots=True)
class Location:
    """`port` is empty where it is the scheme's own; `path` has no percent-encoding, no dots, no empty parts. What has no
    authority, as `doi:10.1000/1`, has a path alone."""

    scheme: str
    host: str
    port: str
    path: str
    query: str = ""

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError where it could mean one thing to us and another to who fetches it."""
        if not text:
            raise ValueError("it is empty")
        if any(letter == "\\" or letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in text):
            raise ValueError("it has characters in it that no address can have")
        parts = urlsplit(text)
        if not parts.scheme:
            raise ValueError("it has no scheme such as https:")
        scheme, port = parts.scheme, str(parts.port or "")
        userinfo = "@" in parts.netloc and scheme in (*NO_HOSTS, "http", "https")
        if userinfo or "%" in parts.netloc:
            raise ValueError("it has a user, or an encoded host, in it")
        host = _authority(scheme, parts.hostname or "")
        if scheme in PORTS and not host:
            raise ValueError("it names no host")
        path = _plain(parts.path) if parts.netloc or parts.path.startswith("/") else _decoded(parts.path)
        if scheme == "ivo":  # IVOA Identifiers 2.0, 2.1: compared without regard to case
            path = path.lower()
        return cls(scheme, host, "" if port == PORTS.get(scheme) else port, path, parts.query)


@dataclass(frozen=True, slots=True)
class LocationPattern:
    """Scheme, host, port and path are matched each by itself: what is written in a path makes no host. `*` goes across the
    slashes of a path. `port` is None where the pattern names none."""

    scheme: str
    host: str
    port: str | None
    path: str

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError."""
        if text == "*":
            return cls("*", "*", "*", "*")
        found = _PATTERN.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} is not a pattern of addresses such as https://example.org/* or *")
        scheme, netloc, path = found["scheme"].lower(), found["netloc"], found["path"]
        host, port = "", None
        if netloc:
            parts = _NETLOC.fullmatch(netloc)
            assert parts is not None
            host, port = parts["host"].strip("[]").lower().rstrip("."), parts["port"]
            host = host if _WILD.search(host) and not netloc.startswith("[") else _authority(scheme, host)
        port = "" if port and port == PORTS.get(scheme) else port
        return cls(scheme, host, port, unquote(path.lower() if scheme == "ivo" else path) or "*")

    def allows(self, location: Location) -> bool:
        """Without a port it allows the scheme's own alone; a query only where anything may follow."""
        port = fnmatchcase(location.port, self.port or "")
        query = not location.query or self.path.endswith("*")
        return self._is_at(location) and port and query and fnmatchcase(location.path, self.path)

    def denies(self, location: Location) -> bool:
        """Without a port it denies all, and with what a folder has in it, the folder."""
        port = self.port is None or fnmatchcase(location.port, self.port)
        paths = (location.path, f"{location.path}/", f"{location.path}?{location.query}")
        return self._is_at(location) and port and any(fnmatchcase(path, self.path) for path in paths)

    def _is_at(self, location: Location) -> bool:
        return fnmatchcase(location.scheme, self.scheme) and fnmatchcase(location.host, self.host)


def host_of(text: str) -> str:
    """A host in the one form that it is compared in: an IPv4 address also where it is written as an IPv6 one. Raises
    ValueError."""
    if not text:
        return ""
    try:
        host = read_host(text)
    except Forbidden as error:
        raise ValueError(str(error)) from None
    address = as_address(host)
    return str(carried(address)) if address else host


def _authority(scheme: str, text: str) -> str:
    if scheme not in NO_HOSTS:
        return host_of(text)
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a store")
    return "" if (scheme, text) == ("file", "localhost") else text


def _decoded(path: str) -> str:
    """Raises ValueError where it is encoded more than once: who decodes it how often, nobody knows."""
    plain = unquote(path, errors="surrogateescape")
    if plain != unquote(plain, errors="surrogateescape") or "\\" in plain or "\0" in plain:
        raise ValueError("it is encoded in a way that is not read the same everywhere")
    return plain


def _plain(path: str) -> str:
    """Raises ValueError where dots lead elsewhere for who takes them out before it is decoded, as clients do, or keeps empty
    parts, or takes an encoded slash for none."""
    decoded = _decoded(path)
    slashes = "%2F".join(unquote(part, errors="surrogateescape") for part in _SLASH.split(path))
    asked = _decoded(_undotted(path))
    readings = (decoded, _undotted(decoded), asked, _undotted(asked), _undotted(slashes).replace("%2F", "/"))
    if len({_resolved(one) for one in readings}) > 1:
        raise ValueError(_DOTS)
    return _resolved(decoded)


def _undotted(path: str) -> str:
    """Without dots, but with empty parts (RFC 3986, 5.2.4)."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[max(len(parts) - 1, 1) :]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _resolved(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part.partition(";")[0] == ".." and part != "..":
            raise ValueError(_DOTS)
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    folder = "/" if parts and path.endswith("/") else ""
    return f"/{'/'.join(parts)}{folder}"
