import logging
from pathlib import Path

import pytest
import structlog
from brokersite import ManualClock, Site
from hypothesis import HealthCheck, settings

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.load_profile("here")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def site(tmp_path: Path, clock: ManualClock) -> Site:
    """A broker that is opened by `async with`; one platform, one node of 4 cores, 8 GiB and 100 GiB of storage."""
    return Site(tmp_path, clock)
