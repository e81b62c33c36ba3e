import logging
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

from brokersite import ManualClock, Site

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
# A state machine on a real database is too slow to be shrunk step by step; the steps that failed are printed as they were.
settings.register_profile(
    "here", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("here")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def site(tmp_path: Path, clock: ManualClock) -> Site:
    """A broker that is opened by `async with`; one platform, one node of 4 cores, 8 GiB and 100 GiB of storage."""
    return Site(tmp_path, clock)
