import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from generated import GeneratedClient, generate, generate_from
from openapi_spec_validator import validate
from published import folder

from execbroker.app import create_app
from execbroker.config import load
from execbroker.web.openapi import describe
from processsite import Site

SCRIPT = Path(__file__).parent / "client_script.py"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Site]:
    nodes = [{"count": 2, "cores": 8, "memory": 32, "storage": 100}]
    site = Site(tmp_path, {"platforms": [{"name": "site", "type": "fake", "nodes": nodes}]}).start()
    yield site
    site.stop()


def run_script(client: GeneratedClient, broker: Site) -> None:
    done = client.run(SCRIPT, broker.url, (broker.data / "token").read_text().strip())
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert len(seen["asked"]["offers"]) == 4
    assert seen["asked"]["accepted"] == "ACCEPTED"
    assert seen["direct"] == {"phase": "ACCEPTED", "cancelled": "CANCELLED"}
    assert seen["refused"]["direct"] == "FAILED"


def test_a_client_of_the_published_schema_works_unmodified(broker: Site) -> None:
    run_script(generate(folder()), broker)


def test_a_client_of_our_own_description_works_as_well(broker: Site, tmp_path: Path) -> None:
    description = tmp_path / "openapi.json"
    request = urllib.request.Request(f"{broker.url}/openapi.json")
    request.add_header("Authorization", f"Bearer {(broker.data / 'token').read_text().strip()}")
    with urllib.request.urlopen(request) as answer:
        description.write_bytes(answer.read())
    run_script(generate_from(description, tmp_path / "own", generate(folder())), broker)


def test_our_own_description_is_valid_openapi(tmp_path: Path) -> None:
    validate(describe(create_app(load(None, folder=tmp_path))))
