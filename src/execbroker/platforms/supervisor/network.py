import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import syscalls
from .namespaces import die_with_parent
from .processes import MARKER

PATIENCE = 20  # seconds
TRIES, PAUSE = 3, 0.2  # seconds
_HERE = str(Path(__file__).resolve().parent)


class Door:
    """Bubblewrap in a network of its own waits at it until there is a gateway."""

    def __init__(self) -> None:
        self._wait, self._go = os.pipe()
        self._filter = os.memfd_create("filter")
        os.write(self._filter, syscalls.program())
        os.lseek(self._filter, 0, os.SEEK_SET)
        self.options = ["--block-fd", str(self._wait), "--seccomp", str(self._filter)]
        self.passed = [self._wait, self._filter]

    def open(self) -> None:
        os.close(self._go)


def take_ports(count: int) -> list[socket.socket]:
    """So many free ports of the loopback interface, listening."""
    with contextlib.ExitStack() as taken:
        found = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        taken.pop_all()
    return found


def connect(
    pid: int,
    network: dict[str, Any],
    ports: Sequence[socket.socket] = (),
    session: str = "",
    enter: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Give the network namespace of process `pid` its gateway: what goes out as `network` says, what comes to `ports` goes in.

    It lives until its stdin is closed. What carries packets out does not always start on a busy machine, so that it is tried
    again. Raises OSError with what it said.
    """
    for _ in range(TRIES - 1):
        with contextlib.suppress(OSError):
            return _connect(pid, network, ports, session, enter)
        time.sleep(PAUSE)
    return _connect(pid, network, ports, session, enter)


def _connect(
    pid: int, network: dict[str, Any], ports: Sequence[socket.socket], session: str, enter: Callable[[], None] | None
) -> subprocess.Popen[bytes]:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        told = {**network, "namespace": namespace, "ports": [(port.fileno(), port.getsockname()[1]) for port in ports]}
        gateway = subprocess.Popen(  # noqa: S603 -- our own program
            [sys.executable, "-I", "-S", _HERE, "--gateway", json.dumps(told)],
            env={"PATH": os.defpath, MARKER: session},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[namespace, *(port.fileno() for port in ports)],
            preexec_fn=enter,  # noqa: PLW1509 -- there are no threads here
        )
    finally:
        os.close(namespace)
    if (said := _hear(gateway)) != "ready":
        gateway.kill()
        gateway.wait()
        raise OSError(said or "its gateway says nothing")
    return gateway


def _hear(gateway: subprocess.Popen[bytes]) -> str:
    assert gateway.stdout
    said, until = b"", time.monotonic() + PATIENCE
    while select.select([gateway.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
        if not (more := os.read(gateway.stdout.fileno(), 4096)):
            break
        said += more
    gateway.stdout.close()
    return said.decode(errors="replace")


def run_boxed(network: str, program: str, *words: str) -> int:
    """Run bubblewrap, and what is in it, in a network of its own for as long as whoever started this lives; its exit code."""
    die_with_parent(signal.SIGKILL, os.getppid())
    door, (told, tells) = Door(), os.pipe()
    for fd in (passed := (tells, *door.passed)):
        os.set_inheritable(fd, True)  # and so stays whatever else was left to this process
    command = [program, "--json-status-fd", str(tells), *door.options, *words]
    box = subprocess.Popen(command, close_fds=False)  # noqa: S603 -- running what it is given is what it is for
    for fd in passed:
        os.close(fd)
    gateway = None
    facts = os.fdopen(told)
    if first := facts.readline():
        try:
            gateway = connect(json.loads(first)["child-pid"], json.loads(network))
        except OSError as error:
            box.kill()
            box.wait()
            sys.stderr.write(f"its network: {error}\n")
    door.open()
    code = box.wait()
    if gateway:
        gateway.kill()
    return 128 - code if code < 0 else code
