import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sites import SITES, Site

from lacking import lack, need


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """One platform after the other; to add one, add it to `SITES`."""
    if request.param == "local-apart":
        need("bubblewrap", "slirp4netns", "nftables")
    yield from _clean(SITES[request.param](tmp_path))


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Site]:
    yield from _clean(SITES["local"](tmp_path))


@pytest.fixture
def unboxed(tmp_path: Path) -> Iterator[Site]:
    yield from _clean(SITES["local-unboxed"](tmp_path))


@pytest.fixture
def boxed(local: Site) -> Site:
    need("bubblewrap")
    return local.having(isolation="bubblewrap")


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Site]:
    """A machine that several users share."""
    need("bubblewrap", "slirp4netns", "nftables")
    yield from _clean(SITES["local-apart"](tmp_path))


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
