import asyncio
import re
import socket
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from execbroker.errors import StartupError
from execbroker.staging.base import Forbidden, Interrupted

Address = IPv4Address | IPv6Address

PORTS = {"http": 80, "https": 443}

# Forms of IPv6 that reach an IPv4 address: the prefix, and by how many bits the address is shifted to the left.
# RFC 4291 (compatible, mapped), RFC 2765 (translated), RFC 3056 (6to4), RFC 6052 (NAT64).
_CARRIERS = tuple(
    (IPv6Network(network), shift)
    for network, shift in (("::/96", 0), ("::ffff:0:0/96", 0), ("::ffff:0:0:0/96", 0), ("2002::/16", 80), ("64:ff9b::/96", 0))
)
# What `is_global` lets pass on some of the Python versions that run this.
_NOT_PUBLIC = tuple(
    ip_network(network) for network in ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "fec0::/10", "3fff::/20", "5f00::/16")
)
_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https URL, taken apart once, so that what was checked is what is asked for."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def at(self, address: Address) -> str:
        """The same URL with the host replaced by an address."""
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"{self.scheme}://{host}:{self.port}{self.target}"


def scheme_of(url: str) -> str:
    """The scheme of a URL, however malformed the rest; empty where there is none."""
    scheme, colon, _ = url.partition(":")
    return scheme.lower() if colon else ""


def shown(url: str) -> str:
    """`url` as it may be told: without user and password."""
    return re.sub(r"//[^/?#]*@", "//", url)


def read_url(url: str) -> Url:
    """Take a URL apart. Raises Forbidden, with what would be right."""
    parts, port = _split(url)
    if parts.scheme not in PORTS:
        raise Forbidden(f"{parts.scheme or 'nothing'}: is not a scheme that can be fetched here")
    if "@" in parts.netloc:
        raise Forbidden("user and password may not stand in a URL")
    query = f"?{parts.query}" if parts.query else ""
    return Url(parts.scheme, read_host(parts.hostname or ""), port or PORTS[parts.scheme], f"{parts.path or '/'}{query}")


def _split(url: str) -> tuple[SplitResult, int | None]:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in url):
        raise Forbidden("it has characters in it that no URL can have")
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError as error:
        raise Forbidden(f"it is not a URL ({error})") from error


def read_host(text: str) -> str:
    """The host in lower-case ASCII, an address in its usual form. Raises Forbidden."""
    try:
        host = text if ":" in text else text.encode("idna").decode("ascii").lower().rstrip(".")
    except UnicodeError as error:
        raise Forbidden(f"{text!r} is not a host name ({error})") from error
    if literal := as_address(host):
        return str(literal)
    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", host):
        raise Forbidden(f"{text!r} is not a host name" if text else "it names no host")
    return host


def as_address(host: str) -> Address | None:
    """The address that a host spells, in any way that resolvers read: `127.1`, `0x7f000001` and `017700000001` are 127.0.0.1."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    if re.fullmatch(r"[0-9a-fx.]+", host):
        try:
            return IPv4Address(socket.inet_aton(host))
        except OSError:
            pass
    return None


def carried(address: Address) -> Address:
    """The IPv4 address that an IPv6 one reaches in the end, or the address itself."""
    if isinstance(address, IPv6Address):
        for network, shift in _CARRIERS:
            if address in network and int(address) > 1:
                return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether anyone on the internet could reach this address as well as we can."""
    address = carried(address)
    special = address.is_multicast or address.is_unspecified or address.is_reserved or any(address in net for net in _NOT_PUBLIC)
    return address.is_global and not special


class Guard:
    """Decides which hosts may be reached: public ones, and those that a setting names, `data.allow_private` or another."""

    def __init__(self, allow_private: Iterable[str], setting: str = "data.allow_private") -> None:
        self._setting = setting
        self._names: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in allow_private:
            try:
                self._networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if "/" in entry or ":" in entry:
                    why = f"{setting}: {entry!r} is not a host, an address or a network such as 10.0.0.0/8"
                    raise StartupError(why) from None
                self._names.add(entry.lower().rstrip("."))

    def check(self, url: Url) -> None:
        """All that can be said of a host without asking anyone. Raises Forbidden."""
        literal = as_address(url.host)
        if literal:
            self._check_address(url.host, literal)
        elif re.search(r"(^|\.)localhost$", url.host) and not self._allows_localhost(url.host):
            raise Forbidden(f"{url.host} is this machine; {self._setting} does not name it")

    async def addresses(self, url: Url) -> list[Address]:
        """The addresses of a host, every one of them allowed. Raises Forbidden; Interrupted where the name is not known."""
        self.check(url)
        try:
            answers = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Interrupted(f"the host {url.host} cannot be found ({error.strerror})") from error
        found = list(dict.fromkeys(ip_address(answer[4][0]) for answer in answers))
        for address in found:
            self._check_address(url.host, address)
        return found

    def _check_address(self, host: str, address: Address) -> None:
        if host not in self._names and not is_public(address) and not self._allows(address):
            whose = f"{host} is" if as_address(host) else f"{host} has the address {address}:"
            raise Forbidden(f"{whose} a private address; {self._setting} does not name it")

    def _allows_localhost(self, host: str) -> bool:
        return host in self._names or any(self._allows(address) for address in _LOOPBACK)

    def _allows(self, address: Address) -> bool:
        return any(address in network or carried(address) in network for network in self._networks)
