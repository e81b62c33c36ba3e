"""What the kernel keeps in no namespace, and a session that is kept apart may therefore not use: key rings, which all processes
of a user share, and sockets other than local and Internet ones, such as AF_VSOCK. io_uring makes sockets past any filter."""

import errno
import os
import struct
from collections.abc import Iterator

FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_GENERIC = {"add_key": 217, "request_key": 218, "keyctl": 219, "socket": 198}
_CALLS = {
    "x86_64": (0xC000003E, {"add_key": 248, "request_key": 249, "keyctl": 250, "socket": 41}),
    "aarch64": (0xC00000B7, _GENERIC),
    "riscv64": (0xC00000F3, _GENERIC),
}
_IO_URING_SETUP = 425
_X32 = 0x40000000

_LOAD, _IS, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h: an absolute word, two comparisons, the end
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16  # where they are in struct seccomp_data; the lower half of the first argument
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000


def known() -> bool:
    """Whether the system calls of this machine have known numbers."""
    return os.uname().machine in _CALLS


def program() -> bytes:
    """The seccomp filter, as bubblewrap and the kernel read it (seccomp(2)). Raises KeyError where they are not `known`."""
    return b"".join(struct.pack("=HBBI", *each) for each in _instructions(*_CALLS[os.uname().machine]))


def _instructions(architecture: int, calls: dict[str, int]) -> Iterator[tuple[int, int, int, int]]:
    missing, unknown = _ERROR | errno.ENOSYS, _ERROR | errno.EAFNOSUPPORT
    yield _LOAD, 0, 0, _ARCHITECTURE
    yield _IS, 1, 0, architecture
    yield _RETURN, 0, 0, missing
    yield _LOAD, 0, 0, _NUMBER
    refused = (calls["add_key"], calls["request_key"], calls["keyctl"], _IO_URING_SETUP)
    for test, number in ((_AT_LEAST, _X32), *((_IS, number) for number in refused)):
        yield test, 0, 1, number
        yield _RETURN, 0, 0, missing
    yield _IS, 1, 0, calls["socket"]
    yield _RETURN, 0, 0, _ALLOW
    yield _LOAD, 0, 0, _FIRST
    for family in FAMILIES:
        yield _IS, 0, 1, family
        yield _RETURN, 0, 0, _ALLOW
    yield _RETURN, 0, 0, unknown
