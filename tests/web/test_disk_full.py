"""A full disk takes on nothing new, 507; what there is can still end, and once there is room again all goes on."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokersite import ManualClock, Site, asked


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of sixteen megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("a small disk cannot be mounted: run as root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.sqlite
def test_a_full_disk(small_disk: Path) -> None:
    async def story() -> None:
        async with Site(small_disk, ManualClock()) as site:
            accepted = await site.take(**asked(duration="PT10M"))
            held = dict(site.books.holdings._held)
            with (small_disk / "filler").open("wb", buffering=0) as filler:
                try:
                    while True:
                        filler.write(b"x" * 4096)
                except OSError:
                    pass
            answers = [await site.client.post("/requests", json={"executable": {"kind": "x" * 3000}}) for _ in range(30)]
            assert {answer.status_code for answer in answers} <= {200, 507}
            full = answers[-1]
            assert (full.status_code, full.json()["title"]) == (507, "The broker's disk is full")
            assert await site.phase(accepted) == "ACCEPTED"
            assert site.books.holdings._held == held
            assert (await site.update(accepted, "CANCELLED")).status_code == 200  # there is a reserve for ends
            await site.settle()
            assert await site.phase(accepted) == "CANCELLED"
            assert (await site.client.post("/requests", json={})).status_code == 507
            (small_disk / "filler").unlink()
            assert (await site.client.post("/requests", json={})).status_code == 200
            assert await site.faults() == []

    asyncio.run(story())
