import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from generated import for_java, for_python, for_typescript
from tools import bundled

from processsite import Site
from published import folder

MAKERS = [for_python, for_java, for_typescript]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Site]:
    nodes = [{"count": 2, "cores": 8, "memory": 32, "storage": 100}]
    site = Site(tmp_path, {"platforms": [{"name": "site", "type": "fake", "nodes": nodes}]}).start()
    yield site
    site.stop()


def check_visit(client: Any, broker: Site) -> None:
    """It asks, accepts, cancels, and runs directly; what it is to see of the offers it looks at itself."""
    done = client.visit(broker.url, (broker.data / "token").read_text().strip())
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["asked"] == {
        "offers": 4,
        "accepted": "ACCEPTED",
        "others": ["REJECTED", "REJECTED", "REJECTED"],
        "cancelled": "CANCELLED",
    }
    assert seen["direct"] == {"phase": "ACCEPTED", "cancelled": "CANCELLED"}
    assert seen["refused"] == {"result": "NO", "direct": "FAILED"}


@pytest.mark.parametrize("make", MAKERS)
def test_a_client_of_the_published_schema_works_unmodified(make: Callable[[Path], Any], broker: Site) -> None:
    check_visit(make(bundled(folder())), broker)


@pytest.mark.parametrize("make", MAKERS)
def test_a_client_of_our_own_description_works_as_well(make: Callable[[Path], Any], broker: Site, tmp_path: Path) -> None:
    description = tmp_path / "openapi.json"
    request = urllib.request.Request(f"{broker.url}/openapi.json", headers={"Authorization": broker.authorization})
    with urllib.request.urlopen(request) as answer:
        description.write_bytes(answer.read())
    check_visit(make(description), broker)
