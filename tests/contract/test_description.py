"""Our OpenAPI is valid, and its examples are true."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from tools import BUNDLER, get, need, run

import judge
from brokersite import Site, uuid_of

DOCUMENT = judge.of_ours()
RAW: dict[str, Any] = judge.described()
OPERATIONS = {one["operationId"]: (path, method) for path, item in RAW["paths"].items() for method, one in item.items()}


def test_it_is_valid_openapi() -> None:
    validate(RAW)


def test_a_linter_finds_no_error_in_it(tmp_path: Path) -> None:
    need("npx")
    (tmp_path / "openapi.json").write_text(json.dumps(RAW))
    get("the linter from the npm registry", "npx", "--yes", BUNDLER, "--version")
    done = run("npx", "--yes", BUNDLER, "lint", "--format", "stylish", f"{tmp_path}/openapi.json")
    assert done.returncode == 0, done.stdout + done.stderr


def examples(name: str) -> dict[str, Any]:
    path, method = OPERATIONS[name]
    content = RAW["paths"][path][method]["requestBody"]["content"]["application/json"]
    return {key: one["value"] for key, one in content["examples"].items()}


@pytest.mark.parametrize("example", sorted(examples("ExecutionRequest")))
def test_an_example_of_a_request_is_answered_yes(site: Site, example: str) -> None:
    async def steps() -> None:
        async with site:
            assert (await site.client.post("/requests", json=examples("ExecutionRequest")[example])).json()["result"] == "YES"
            assert (await site.client.post("/direct", json=examples("DirectExecution")[example])).json()["phase"] == "ACCEPTED"

    asyncio.run(steps())


def test_the_examples_of_updates_do_what_they_say(site: Site) -> None:
    async def steps() -> None:
        async with site:
            uuid = uuid_of((await site.offers())[0])
            accepted = await site.client.post(f"/sessions/{uuid}", json=examples("SessionUpdate")["accept"])
            assert accepted.json()["phase"] == "ACCEPTED"
            longer = await site.client.post(f"/sessions/{uuid}", json=examples("SessionUpdate")["extend"])
            assert "1800 s longer" in longer.text
            await site.client.post(f"/sessions/{uuid}", json=examples("SessionUpdate")["cancel"])
            await site.settle()
            assert await site.phase(uuid) == "CANCELLED"

    asyncio.run(steps())


def test_every_example_fits_its_schema() -> None:
    found = 0
    for path, item in RAW["paths"].items():
        for method, operation in item.items():
            places = [("responses", status, *rest) for status in operation["responses"] for rest in [("content",)]]
            for place in [*places, *([("requestBody", "content")] if "requestBody" in operation else [])]:
                content: Any = operation
                for step in place:
                    content = content.get(step, {})
                for media_type, about in content.items():
                    for example in about.get("examples", {}).values():
                        at = ("paths", path, method, *place, media_type, "schema")
                        faults = judge.faults_of(DOCUMENT, at, example["value"])
                        # Requests may use the bare names of kinds; they are posted, above.
                        assert place[0] == "requestBody" or faults == [], at
                        found += 1
    assert found >= 10
