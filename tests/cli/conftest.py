import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from processsite import Site


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One broker for all tests that do not stop it."""
    site = Site(tmp_path_factory.mktemp("broker")).start()
    yield site
    if site.process.poll() is None:
        site.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Site]:
    """A broker to stop, not yet started."""
    site = Site(tmp_path / "own")
    yield site
    if site.process and site.process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            site.stop(signal.SIGKILL)
