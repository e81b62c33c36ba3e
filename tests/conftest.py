import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

import recorded
import stores
from brokersite import ManualClock, Site

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
# A state machine on a real database is too slow to be shrunk step by step; the steps that failed are printed as they were.
settings.register_profile(
    "here", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("here")


BROKERS = {"brokersite", "bookdesk", "peoplesite", "processsite", "stores"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--store", choices=("sqlite", "postgres"), default="sqlite", help="where brokers keep their ledgers")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite: what only a ledger in a file has")
    config.addinivalue_line("markers", "postgres: what only a ledger on a server has")
    config.addinivalue_line("markers", "alone: what needs the whole machine for a while")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On PostgreSQL only what has a ledger: all the rest would be the same."""
    store = config.getoption("--store")
    other = "sqlite" if store == "postgres" else "postgres"
    left = [item for item in items if item.get_closest_marker(other) or (store == "postgres" and not _has_ledger(item))]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]
    if store == "postgres" and stores.Server.programs() is None:
        if os.environ.get("CI"):
            raise pytest.UsageError(stores.NEEDED)
        for item in items:
            item.add_marker(pytest.mark.skip(reason=stores.NEEDED))


def _has_ledger(item: pytest.Item) -> bool:
    module = getattr(item, "module", None)
    return any(getattr(value, "__module__", None) in BROKERS or value is stores for value in vars(module).values())


@pytest.fixture(scope="session", autouse=True)
def _server(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.config.getoption("--store") == "postgres" and stores.Server.programs():
        stores.server = stores.Server()
        yield
        stores.server.remove()
    else:
        yield


@pytest.fixture(autouse=True)
def _databases(_server: None) -> Iterator[None]:
    """Those that a test has made go with it."""
    before = set(stores.server.made) if stores.server else set()
    yield
    if stores.server:
        for folder in stores.server.made.keys() - before:
            stores.server.forget(folder)


@pytest.fixture(autouse=True)
def _judged() -> Iterator[None]:
    """What brokers in processes of their own have answered meanwhile."""
    yield
    recorded.judge_all()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def site(tmp_path: Path, clock: ManualClock) -> Site:
    """A broker that is opened by `async with`; one platform, one node of 4 cores, 8 GiB and 100 GiB of storage."""
    return Site(tmp_path, clock)
