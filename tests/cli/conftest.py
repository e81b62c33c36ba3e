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


POOL = {
    "name": "pool",
    "type": "fake",
    "nodes": [
        {"count": 3, "cores": 8, "memory": 32, "storage": 100},
        {"cores": 16, "memory": 64, "storage": 100, "accelerators": [{"kind": "a100", "count": 4, "memory": 80}]},
    ],
    "pools": {"licences": {"idl": 2}},
    "throughput": 300,
    "prices": {"money": {"core_hour": 0.5, "accelerator_hour": {"a100": 2}}, "carbon": {"core_hour": 0.1}},
}
SIZES = {
    "name": "sizes",
    "type": "fake",
    "nodes": [{"count": 2, "cores": 16, "memory": 64}],
    "flavours": [{"name": "small", "cores": 2, "memory": 8}, {"name": "large", "cores": 12, "memory": 48}],
}


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A broker of two platforms: one with prices, accelerators and licences, the other free, and of fixed sizes."""
    site = Site(tmp_path_factory.mktemp("pool"), {"platforms": [POOL, SIZES]}).start()
    yield site
    site.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Site]:
    """A broker to stop, not yet started."""
    site = Site(tmp_path / "own")
    yield site
    if site.process and site.process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            site.stop(signal.SIGKILL)
