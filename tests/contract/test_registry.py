"""What registries read of a broker, held against the schemata of the IVOA."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import xmlschema
import yaml
from schemata import schema

from brokersite import Site, platform
from people import ADMIN, AUTH

ISSUER = {"issuer": "https://iam.example.org", "audience": ["https://broker.example.org"]}
AUTHS: dict[str, tuple[dict[str, Any], list[str | None]]] = {
    "nobody is asked": ({"mode": "none"}, [None]),
    "the token": ({"mode": "token"}, ["ivo://ivoa.net/sso#token"]),
    "accounts": (AUTH, ["ivo://ivoa.net/sso#BasicAA"]),
    "issuers": (AUTH | {"issuers": [ISSUER]}, ["ivo://ivoa.net/sso#BasicAA", "ivo://ivoa.net/sso#OpenID"]),
}
BROKER = "ivo://ivoa.net/std/ExecutionBroker#v1.0"
WHOLE = {
    "public_url": "https://broker.example.org/here/",
    "platforms": [platform()],
    "registry": {
        "identifier": "ivo://example.org/broker",
        "title": "Bröker <&> Co.",
        "short_name": "Broker",
        "description": "What may be run here.",
        "publisher": "Example Observatory",
        "contact": {"name": "Help desk", "email": "help@example.org"},
        "subjects": ["virtual-observatories", "computational-methods"],
        "reference_url": "https://example.org/broker",
        "created": "2026-11-22T13:00:00+01:00",
    },
}


@pytest.fixture(scope="module")
def schemata() -> xmlschema.XMLSchema:
    return schema()


def faults(schemata: xmlschema.XMLSchema, document: str) -> list[str | None]:
    return [error.reason for error in schemata.iter_errors(document)]


def printed(folder: Path, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    path = folder / "broker.yaml"
    path.write_text(yaml.safe_dump(settings | {"folder": str(folder / "data")}))
    command = (sys.executable, "-m", "execbroker", "registry-record", "--config", str(path))
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)


def test_the_record_is_a_resource(schemata: xmlschema.XMLSchema, tmp_path: Path) -> None:
    done = printed(tmp_path, WHOLE)
    assert done.returncode == 0, done.stderr
    assert faults(schemata, done.stdout) == []
    assert faults(schemata, done.stdout.replace("publisher>", "printer>")) != []
    for part in ("<title>Bröker &lt;&amp;&gt; Co.</title>", "ivo://example.org/broker", 'created="2026-11-22T12:00:00Z"'):
        assert part in done.stdout
    assert '<accessURL use="full">https://broker.example.org/here/capabilities</accessURL>' in done.stdout
    assert not (tmp_path / "data").exists()


def test_what_a_record_needs_is_named(tmp_path: Path) -> None:
    registry = {"title": "A broker", "contact": {"name": "Help desk"}}
    done = printed(tmp_path, {"platforms": [platform()], "registry": registry})
    assert (done.returncode, done.stdout) == (2, "")
    keys = ("identifier", "description", "publisher", "reference_url", "created", "contact.email")
    for key in (*(f"registry.{key}:" for key in keys), "public_url:"):
        assert key in done.stderr
    assert "registry.title" not in done.stderr
    assert "registry.contact.name" not in done.stderr


@pytest.mark.parametrize("name", AUTHS)
def test_capabilities_say_how_to_log_in(schemata: xmlschema.XMLSchema, tmp_path: Path, name: str) -> None:
    auth, methods = AUTHS[name]

    async def work() -> str:
        async with Site(tmp_path, auth=auth) as site:
            answer = await site.client.get("/capabilities")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
            for one in _all(schemata, answer.text):
                url = one["interface"][0]["accessURL"][0]["$"]
                if one["@standardID"] != BROKER:
                    assert (await site.client.get(url)).status_code == 200, url
            return answer.text

    text = asyncio.run(work())
    assert faults(schemata, text) == []
    by_standard = {one["@standardID"]: one["interface"] for one in _all(schemata, text)}
    assert {"ivo://ivoa.net/std/VOSI#capabilities", "ivo://ivoa.net/std/VOSI#availability", BROKER} <= by_standard.keys()
    found = [one.get("securityMethod", {}).get("@standardID") for one in by_standard[BROKER]]
    assert found == methods
    assert ADMIN[1] not in text


def _all(schemata: xmlschema.XMLSchema, text: str) -> list[dict[str, Any]]:
    document: Any = schemata.decode(text)
    return document["capability"]  # type: ignore[no-any-return]


def test_availability_says_since_when(schemata: xmlschema.XMLSchema, site: Site) -> None:
    async def work() -> None:
        async with site:
            answer = await site.client.get("/availability")
            assert faults(schemata, answer.text) == []
            document: Any = schemata.decode(answer.text)
            assert (document["avail:available"], document["avail:upSince"]) == (True, "2026-11-20T09:00:00Z")

    asyncio.run(work())
