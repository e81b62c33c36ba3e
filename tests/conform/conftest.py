from pathlib import Path

import pytest
from sites import SITES, Site


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """One platform after the other; to add one, add it to `SITES`."""
    return SITES[request.param](tmp_path)
