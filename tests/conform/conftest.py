import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sites import SITES, Site, lack


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """One platform after the other; to add one, add it to `SITES`."""
    yield from _clean(SITES[request.param](tmp_path))


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Site]:
    yield from _clean(SITES["local"](tmp_path))


@pytest.fixture
def unboxed(tmp_path: Path) -> Iterator[Site]:
    yield from _clean(SITES["local-unboxed"](tmp_path))


@pytest.fixture
def boxed(local: Site) -> Site:
    if not shutil.which("bwrap"):
        lack("bubblewrap is missing: apt install bubblewrap")
    return local.having(isolation="bubblewrap")


def _clean(site: Site) -> Iterator[Site]:
    yield site
    asyncio.run(site.clean())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        lack("a small disk cannot be mounted: run as root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
