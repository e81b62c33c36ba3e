import os
import shutil
from pathlib import Path

from execbroker.model.waist import Node
from execbroker.platforms.confine import GIB


def this_machine(name: str, folder: Path, limit: int | None, memory_reserve: int | None, storage_reserve: int | None) -> Node:
    """What this machine can offer: all its processors, and memory and disk but for a reserve (GiB).

    Without a number the reserve is a tenth of the memory and a twentieth of the disk, at least 1 GiB each. `limit` is what
    the system lets all sessions together have, in bytes.
    """
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = min(physical, limit or physical)
    disk = shutil.disk_usage(folder)
    return Node(
        name,
        len(os.sched_getaffinity(0)),
        max(1, _but(memory, memory, 10, memory_reserve)),
        max(0, _but(disk.free, disk.total, 20, storage_reserve)),
    )


def _but(free: int, total: int, share: int, reserve: int | None) -> int:
    kept = reserve * GIB if reserve is not None else max(GIB, total // share)
    return (free - kept) // GIB
