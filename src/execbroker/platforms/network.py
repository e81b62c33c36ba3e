import json
import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from execbroker.platforms.supervisor import syscalls

SUPERVISOR = Path(__file__).parent / "supervisor"

_SUBNET = "198.18.0.0/24"  # what a session sees; of a range that no network in use has (RFC 2544)
_NAMES = "198.18.0.3"  # where slirp4netns answers for the resolver of this machine
_NEVER = (
    *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),  # RFC 6890
    *(_SUBNET, "100.100.100.200", "168.63.129.16"),  # two clouds keep their metadata there, others at a link-local address
)
_PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15")
_RULES = """
table inet execbroker {{
  chain out {{
    type filter hook output priority 0; policy accept;
    oifname "lo" accept
    meta nfproto != ipv4 drop
    ip daddr {names} meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr {{ {never} }} reject with icmp type admin-prohibited
    {allowed}
    ip daddr {{ {private} }} reject with icmp type admin-prohibited
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Network:
    """A network of a session's own: its ports are reached through a gateway, which listens on the loopback interface outside.

    With `outbound` (slirp4netns) and `filter` (nft) it reaches what is public, and of what is private, this machine's own
    addresses among it, only what is `allowed`; without, nothing. slirp4netns alone would do what a session wants it to: one that
    binds a socket to a device (SO_BINDTODEVICE) passes by every route.
    """

    outbound: tuple[str, ...] = ()
    filter: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()

    def told(self) -> dict[str, Any]:
        """What its gateway is told."""
        return {"outbound": self.outbound, "filter": self.filter, "rules": self._rules() if self.filter else ""}

    def _rules(self) -> str:
        allowed = f"ip daddr {{ {', '.join(self.allowed)} }} accept" if self.allowed else ""
        private = _merged((*_PRIVATE, *own_addresses()))
        return _RULES.format(names=_NAMES, never=", ".join(_merged(_NEVER)), allowed=allowed, private=", ".join(private))

    def resolver(self, folder: Path) -> Path:
        """A resolv.conf in `folder` that fits it, with the search list of this machine's."""
        lines = [f"nameserver {_NAMES}"] if self.outbound else []
        with suppress(OSError):
            known = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace").splitlines()
            lines += [line for line in known if line.startswith(("search", "domain", "options"))]
        (folder / "resolv.conf").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return folder / "resolv.conf"

    def around(self, command: Iterable[str]) -> list[str]:
        """The command that runs this one, of bubblewrap, without a supervisor."""
        return [sys.executable, "-I", "-S", str(SUPERVISOR), "--boxed", json.dumps(self.told()), *command]

    def note(self) -> str:
        if not self.outbound:
            return "Network: each session has its own and reaches nothing; its ports are reached from this machine."
        private = f" but {', '.join(self.allowed)}" if self.allowed else ""
        return f"Network: each session has its own and reaches what is public, nothing private{private}; no IPv6."


def own_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this machine, whether private or not: what listens there may rely on a firewall in front."""
    found, last = set(), ""
    for line in Path("/proc/net/fib_trie").read_text(encoding="ascii").splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            last = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"]:
            found.add(last)
    return tuple(sorted(found))


def _merged(networks: Iterable[str]) -> list[str]:
    """Without those within others, which nft does not take."""
    parsed = {IPv4Network(one) for one in networks}
    return [str(one) for one in sorted(parsed) if not any(one != other and one.subnet_of(other) for other in parsed)]


def find_network(mode: str, allowed: Iterable[str]) -> tuple[list[Network], str]:
    """What there may be of a network of a session's own, the safest first, still to be tried; or what is missing."""
    if not syscalls.known():
        return [], f"the numbers of the system calls of {os.uname().machine} are not known"
    if mode == "none":
        return [Network()], ""
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    found = {name: shutil.which(name, path=places) for name in ("slirp4netns", "nft")}
    if missing := [name for name, program in found.items() if not program]:
        packages = " ".join(missing).replace("nft", "nftables")
        return [], f"{' and '.join(missing)} cannot be found; install {packages}, or set network: none"
    slirp = (str(found["slirp4netns"]), "--configure", "--mtu=65520", "--disable-host-loopback", f"--cidr={_SUBNET}")
    guarded = (("--enable-sandbox", "--enable-seccomp"), ("--enable-seccomp",), ())
    return [Network((*slirp, *words), (str(found["nft"]), "-f", "-"), tuple(allowed)) for words in guarded], ""
