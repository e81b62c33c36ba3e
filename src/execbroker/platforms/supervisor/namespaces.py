import ctypes
import fcntl
import os

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # sched.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
NS_GET_USERNS = 0xB701  # linux/nsfs.h

_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: int, parent: int) -> None:
    """Send this process that signal when the one that started it, `parent`, ends. The kernel forgets that where rights change."""
    _LIBC.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def enter_owner(network: int) -> None:
    """Enter the user namespace that owns a network namespace, an open file; there its maker may do everything. Raises OSError."""
    owner = fcntl.ioctl(network, NS_GET_USERNS)
    if os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino:  # noqa: PTH116 -- a Path would be resolved
        _enter(owner, CLONE_NEWUSER)
    os.close(owner)
    _LIBC.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # or whoever is to end it could not see whose it is


def enter_network(network: int) -> None:
    """What sockets are made from now on is in this namespace; those that are there stay where they are. Raises OSError."""
    _enter(network, CLONE_NEWNET)


def _enter(namespace: int, kind: int) -> None:
    """Python has setns(2) only from 3.12 on."""
    if _LIBC.setns(namespace, kind):
        number = ctypes.get_errno()
        raise OSError(number, f"a namespace cannot be entered: {os.strerror(number)}")
