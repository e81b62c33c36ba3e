import contextlib
import errno
import fcntl
import os
import socket
import time
from pathlib import Path

SLOWNESS = 0.001  # seconds for each piece thrown away, so that a flood does not cost a processor that nobody booked


class Output:
    """A file that takes at most `limit` bytes, and fewer where the disk is full: the rest is counted and dropped."""

    def __init__(self, path: Path, limit: int) -> None:
        self.name, self.limit, self.dropped, self.full = path.name, limit, 0, False
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.left = limit - os.fstat(self.fd).st_size

    def write(self, data: bytes) -> None:
        written = 0
        try:
            written = os.write(self.fd, data[: max(self.left, 0)])
        except OSError:
            self.full = True
        self.left -= written
        self.dropped += len(data) - written
        if self.dropped:
            time.sleep(SLOWNESS)

    def warnings(self) -> list[str]:
        if not self.dropped:
            return []
        why = "the disk took no more" if self.full else f"at most {self.limit} bytes are kept"
        return [f"{self.dropped} bytes of {self.name} were dropped: {why}"]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface on which nobody listens just now, all different."""
    with contextlib.ExitStack() as open_until_chosen:
        found = [open_until_chosen.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def oom_kills(counter: str | None) -> int:
    """How often the kernel killed in a control group, by its memory.events (v2) or memory.oom_control (v1)."""
    with contextlib.suppress(OSError):
        for line in Path(counter or os.devnull).read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def take_cpus(folder: str | None, count: int) -> tuple[list[int], list[int]]:
    """`count` processors that no other supervisor has, and the locks that say so; fewer where there are no more."""
    cpus: list[int] = []
    locks = []
    for cpu in sorted(os.sched_getaffinity(0)) if folder else ():
        if len(cpus) == count:
            break
        fd = os.open(f"{folder}/{cpu}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
        else:
            cpus.append(cpu)
            locks.append(fd)
    return cpus, locks
