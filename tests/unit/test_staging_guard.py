import asyncio
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execbroker.errors import StartupError
from execbroker.staging.base import Forbidden
from execbroker.staging.guard import Guard, read_url, shown

# From the IANA registries of special-purpose addresses, independent of what Python believes.
PRIVATE = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24
    192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    ::/128 ::1/128 64:ff9b:1::/48 100::/64 2001:db8::/32 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
"""
PUBLIC = "1.1.1.0/24 93.184.0.0/16 130.246.0.0/16 134.171.0.0/16 195.194.0.0/16 2001:630::/32 2606:4700::/32 2a00:1450::/32"


def inside(networks: str) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    def addresses(network: IPv4Network | IPv6Network) -> st.SearchStrategy[IPv4Address | IPv6Address]:
        low, high = int(network.network_address), int(network.broadcast_address)
        return st.integers(low, high).map(type(network.network_address))

    return st.sampled_from([ip_network(text) for text in networks.split()]).flatmap(addresses)


def v4_spellings(address: IPv4Address) -> list[str]:
    number, (a, b, c, d) = int(address), address.packed
    wide = "".join(chr(ord(digit) + 0xFEE0) if digit.isdigit() else "\N{IDEOGRAPHIC FULL STOP}" for digit in str(address))
    dotted = [f"{a}.{b}.{c}.{d}", f"{a}.{b}.{c}.{d}.", f"0x{a:x}.0X{b:X}.{c}.{d}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", wide]
    short = [f"{a}.{b}.{number & 0xFFFF}", f"{a}.{number & 0xFFFFFF}", f"0x{a:x}.{number & 0xFFFFFF:#x}"]
    whole = [str(number), f"{number:#x}", f"{number:#X}", f"0{number:o}"]
    return [*dotted, *short, *whole]


def carriers(address: IPv4Address) -> list[str]:
    number = int(address)
    values = [number, 0xFFFF << 32 | number, 0xFFFF << 48 | number, 0x2002 << 112 | number << 80, 0x64FF9B << 96 | number]
    return [spelling for value in values if value > 1 for spelling in v6_spellings(IPv6Address(value))]


def v6_spellings(address: IPv6Address) -> list[str]:
    mixed = f"{IPv6Address(int(address) >> 32 << 32).exploded[:30]}{IPv4Address(int(address) & 0xFFFFFFFF)}"
    return [f"[{text}]" for text in (address.compressed, address.exploded, address.compressed.upper(), mixed)]


def spellings(address: IPv4Address | IPv6Address) -> list[str]:
    return [*v4_spellings(address), *carriers(address)] if isinstance(address, IPv4Address) else v6_spellings(address)


def check(host: str, *allowed: str) -> None:
    Guard(allowed).check(read_url(f"http://{host}:8080/x"))


@settings(deadline=None)
@given(inside(PRIVATE))
def test_a_private_address_is_refused_in_every_spelling(address: IPv4Address | IPv6Address) -> None:
    for host in spellings(address):
        with pytest.raises(Forbidden, match="is a private address"):
            check(host)


@settings(deadline=None)
@given(inside(PUBLIC))
def test_a_public_address_passes_in_every_spelling(address: IPv4Address | IPv6Address) -> None:
    for host in spellings(address):
        check(host)


@settings(deadline=None)
@given(inside("10.0.0.0/8"))
def test_an_allowed_network_passes_in_every_spelling_and_its_neighbours_do_not(address: IPv4Address) -> None:
    for host in spellings(address):
        check(host, "10.0.0.0/8")
        with pytest.raises(Forbidden):
            check(host, "11.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "a.localhost"])
def test_names_of_this_machine_are_refused_without_asking(host: str) -> None:
    with pytest.raises(Forbidden, match="is this machine"):
        check(host)
    check(host, "127.0.0.0/8")
    check(host, host)


def test_an_allowed_name_may_have_any_address() -> None:
    guard = Guard(["localhost"])
    assert asyncio.run(guard.addresses(read_url("http://localhost:1/")))
    with pytest.raises(Forbidden):
        guard.check(read_url("http://127.0.0.1/"))


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "http://archive.example", "host:80"])
def test_a_wrong_entry_of_the_setting_stops_the_broker(entry: str) -> None:
    with pytest.raises(StartupError, match=r"data\.allow_private.*10\.0\.0\.0/8"):
        Guard([entry])


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://me:secret@example.org/", "user and password"),
        ("http://example.org@10.0.0.1/", "user and password"),
        ("http://10.0.0.1\\@example.org/", "user and password"),
        ("http:///data", "names no host"),
        ("http://exa mple.org/", "not a host name"),
        ("http://a%2eb/", "not a host name"),
        ("http://example.org:99999/", "not a URL"),
        ("http://[::1/", "not a URL"),
        ("http://example.org/a\r\nHost: 10.0.0.1", "no URL can have"),
        ("http://example.org/\ud800", "no URL can have"),
        (f"http://{'a' * 64}.org/", "not a host name"),
        ("gopher://example.org/", "gopher: is not a scheme"),
    ],
)
def test_a_url_that_is_none_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(Forbidden, match=why):
        read_url(url)


@settings(deadline=None)
@given(st.text())
def test_reading_a_url_forbids_or_yields_a_host_in_its_usual_form(text: str) -> None:
    try:
        url = read_url(f"http://{text}")
    except Forbidden:
        return
    assert read_url(f"http://{url.authority}{url.target}") == url
    assert url.target.startswith("/")


def test_what_is_shown_of_a_url_has_no_password() -> None:
    assert shown("https://me:secret@example.org/a@b") == "https://example.org/a@b"
