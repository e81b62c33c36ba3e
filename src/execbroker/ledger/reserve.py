import os
import shutil
from pathlib import Path

LARGEST = 8 << 20


class Reserve:
    """Space set aside on the ledger's disk: given up when the disk is full, so that the ends of sessions can still be
    written down while nothing new is taken on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.spent = False

    def spend(self) -> None:
        self.spent = True
        self._path.unlink(missing_ok=True)

    def restore(self) -> None:
        """Set it aside where it is not, if there is room for it and more."""
        if self._path.exists():
            return
        disk = shutil.disk_usage(self._path.parent)
        size = min(LARGEST, disk.total // 16)
        self.spent = disk.free < 3 * size
        if self.spent:
            return
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        new.replace(self._path)
