"""What a test needs of the machine, and how to get it."""

import os
import shutil

import pytest

PROGRAMS = {"bubblewrap": "bwrap", "nftables": "nft", "iproute2": "ip"}


def need(*packages: str) -> None:
    """Skip where one of these Debian packages is missing."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [name for name in packages if not shutil.which(PROGRAMS.get(name, name), path=path)]:
        lack(f"{' '.join(missing)} cannot be found: apt install {' '.join(missing)}")


def lack(what: str) -> None:
    """Skip, saying what is missing and how to get it; where everything has to be tested that is a failure."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)
