"""Looks for the mark of another session by every way that it knows, and prints by which it was found.

`argv[1]` tells it more than anyone would know; written backwards, so that it does not find itself.
"""

import ctypes
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

KEYCTL = {"x86_64": 250}.get(os.uname().machine, 219)
SO_BINDTODEVICE = 25
told: dict[str, Any] = json.loads(sys.argv[1][::-1])
mark, uuid = told["mark"], told["uuid"]
libc = ctypes.CDLL(None, use_errno=True)


def has(path: str | Path, word: str = mark) -> bool:
    with suppress(OSError), Path(path).open("rb") as file:
        return word.encode() in file.read(1 << 20)
    return False


def files() -> bool:
    named = any(has(path) for path in told["paths"])
    return named or any(mark in name or has(Path(folder, name)) for root in told["roots"] for folder, name in walk(root))


def walk(root: str) -> Iterator[tuple[str, str]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if str(Path(folder, name)) not in ("/usr", "/proc", sys.base_prefix, *told["but"])]
        yield from ((folder, name) for name in (*names, *folders) if usual(Path(folder, name)))


def usual(path: Path) -> bool:
    return path.is_dir() or path.is_file()  # what is none of these may never answer


def of_processes(file: str, word: str = mark) -> bool:
    return any(has(path / file, word) for path in Path("/proc").iterdir() if path.name.isdigit())


def signals() -> bool:
    for pid in told["pids"]:
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            return True
    return False


def unix(folder: str, address: str) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as door:
        os.chdir(folder)
        door.settimeout(5)
        door.connect(address)
        return mark.encode() in door.recv(1000)
    return False


def internet(ports: list[int], kind: int) -> bool:
    devices = [b"", *(name.encode() for _, name in socket.if_nameindex())]
    addresses = ["127.0.0.1", "127.0.0.2", "0.0.0.0", *told["addresses"]]
    return any(reached(port, kind, address, device) for port in ports for address in addresses for device in devices)


def reached(port: int, kind: int, address: str, device: bytes) -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET, kind) as door:
        door.settimeout(0.5)
        if device:
            door.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device)
        door.connect((address, port))
        door.send(b"hello")
        return kind == socket.SOCK_STREAM or mark.encode() in door.recv(1000)
    return False


WAYS = {
    "file": files,
    "environment": lambda: of_processes("environ"),
    "command line": lambda: of_processes("cmdline"),
    "supervisor": lambda: of_processes("cmdline", uuid),
    "memory map": lambda: of_processes("maps", uuid) or of_processes("mountinfo", uuid),
    "signal": signals,
    "socket file": lambda: unix(told["home"], "door"),
    "abstract socket": lambda: unix("/", f"\0{mark}"),
    "TCP": lambda: internet(told["ports"], socket.SOCK_STREAM),
    "UDP": lambda: internet(told["udp"], socket.SOCK_DGRAM),
    "list of local sockets": lambda: has("/proc/net/unix"),
    "list of TCP sockets": lambda: any(has("/proc/net/tcp", f"0100007F:{port:04X} 00000000:0000 0A") for port in told["ports"]),
    "shared memory": lambda: has(f"/dev/shm/{mark}"),
    "System V": lambda: libc.shmget(told["shm"], 0, 0) >= 0 or has("/proc/sysvipc/shm", str(told["shm"])),
    "key ring": lambda: libc.syscall(KEYCTL, 10, -3, b"user", mark.encode(), 0) > 0 or has("/proc/keys"),
}
sys.stdout.write(json.dumps([name for name, look in WAYS.items() if look()]))
