"""`unshare --net --mount python world.py ROOT MODE`: a small Internet with two machines, of which this is one. What a session
here reaches of both is printed."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from sites import SITES, ended, released, whole

ELSEWHERE = ["203.0.113.80", "10.8.8.8", "10.9.9.9", "169.254.169.254"]
HERE = ["203.0.113.7", "10.7.7.7"]
ALLOWED = ["10.8.8.8/32", "10.7.7.7/32"]
TARGETS = {
    "by name": "anything.example",
    "public": "203.0.113.80",
    "private": "10.9.9.9",
    "allowed": "10.8.8.8",
    "metadata": "169.254.169.254",
    "own": "203.0.113.7",
    "own, allowed": "10.7.7.7",
    "loopback": "127.0.0.1",
    "gateway": "198.18.0.2",
    "resolver": "198.18.0.3",
}
REACH = """
import json, socket, sys
def reached(address, device):
    try:
        with socket.socket() as out:
            out.settimeout(3)
            if device:
                out.setsockopt(socket.SOL_SOCKET, 25, device.encode())
            out.connect((address, 8000))
            return out.recv(10) == b"hello"
    except OSError:
        return False
found = []
devices = [name for _, name in socket.if_nameindex() if name != "lo"]
for name, address in json.loads(sys.argv[1]).items():
    if any(reached(address, device) for device in ("", *devices)):
        found.append(name)
for device in devices:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        try:
            out.setsockopt(socket.SOL_SOCKET, 25, device.encode())
            out.sendto(b"hello", ("127.0.0.1", 8001))
        except OSError:
            pass
print(json.dumps(found))
"""


def serve() -> None:
    listener = socket.create_server(("", 8000), backlog=100)
    while True:
        connection = listener.accept()[0]
        connection.sendall(b"hello")
        connection.close()


def resolve() -> None:
    """Answer that every name is the first address elsewhere (RFC 1035): the question, and a pointer to it with an A record."""
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.bind(("", 53))
    while True:
        asked, who = door.recvfrom(512)
        question = asked[12 : asked.index(0, 12) + 5]
        is_a = question[-4:-2] == b"\0\1"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(ELSEWHERE[0]) if is_a else b""
        door.sendto(asked[:2] + b"\x81\x80\0\1\0" + bytes([is_a]) + b"\0\0\0\0" + question + record, who)


def elsewhere() -> None:
    threading.Thread(target=serve, daemon=True).start()
    threading.Thread(target=resolve, daemon=True).start()
    sys.stdout.write("up\n")
    sys.stdout.flush()
    sys.stdin.read()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def lay(other: int, resolver: Path) -> None:
    """Cables, addresses and routes between this machine and the one of that process."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(other))
    there = ("nsenter", "-t", str(other), "-n", "ip")
    for address in HERE:
        ip("addr", "add", f"{address}/32", "dev", "here")
    for address in ELSEWHERE:
        subprocess.run([*there, "addr", "add", f"{address}/32", "dev", "there"], check=True)
    ip("link", "set", "here", "up")
    subprocess.run([*there, "link", "set", "there", "up"], check=True)
    ip("route", "add", "default", "dev", "here", "src", HERE[0])
    subprocess.run([*there, "route", "add", "default", "dev", "there", "src", ELSEWHERE[0]], check=True)
    resolver.write_text(f"nameserver {ELSEWHERE[0]}\n")
    subprocess.run(["mount", "--bind", str(resolver), "/etc/resolv.conf"], check=True)


async def reach(root: Path, mode: str) -> list[str]:
    site = SITES["local"](root).having(network=mode, network_allow=ALLOWED)
    platform, job = site.platform(), site.job("python", "-c", REACH, json.dumps(TARGETS))
    await platform.start(job)
    end = await ended(platform, job, 90)
    assert end.exit_code == 0, await whole(platform, job, "stderr")
    found: list[str] = json.loads(await whole(platform, job))
    await released(platform, job)
    return found


def main(root: Path, mode: str) -> None:
    command = ["unshare", "--net", sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline()
        lay(other.pid, root / "resolv.conf")
        threading.Thread(target=serve, daemon=True).start()
        blind = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        blind.bind(("127.0.0.1", 8001))
        blind.setblocking(False)
        found = asyncio.run(reach(root, mode))
        with suppress(BlockingIOError):
            found.append(f"blind {blind.recv(10).decode()}")
        sys.stdout.write(json.dumps(found))
        sys.stdout.flush()
        other.kill()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2]) if sys.argv[1:] else elsewhere()
