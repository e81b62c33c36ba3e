"""What the docs show works, on a broker of the docs' own configuration."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from brokersite import NOTEBOOK, ManualClock
from brokersite import Site as Desk
from execbroker.client import Client, changed, counter_offers
from execbroker.config import Config, load
from execbroker.model.messages import MessageItem
from execbroker.model.options import Option, Update
from execbroker.model.times import Clock
from execbroker.web.vosi import record
from processsite import Site, environment

HOME = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", (HOME / "docs" / page).read_text(), re.DOTALL)
    assert found
    return found


def settings() -> dict[str, Any]:
    """The documented configuration, on any port."""
    text, _ = blocks("configuration.md", "yaml")
    return {**yaml.safe_load(text), "port": 0}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    site = Site(tmp_path_factory.mktemp("docs"), settings()).start()
    yield site
    site.stop()


def test_the_configuration_starts_a_broker(site: Site) -> None:
    with Client(folder=site.data) as client:
        found = client.platforms()["platforms"]
    assert [platform["name"] for platform in found] == ["here", "pool", "sizes"]
    assert found[1]["prices"]["money"]["tariffs"][0]["from"] == "22:00"
    assert found[1]["pools"] == {"idl": 2, "staging": 200}
    assert [one["name"] for one in found[2]["flavours"]] == ["small", "large"]


def test_the_registry_s_section_makes_a_record() -> None:
    _, text = blocks("configuration.md", "yaml")
    assert b"ivo://example.org/broker" in record(Config(**yaml.safe_load(text)), Clock().now())


def requests() -> list[dict[str, Any]]:
    return [request for text in blocks("api.md", "yaml") if "executable" in (request := yaml.safe_load(text))]


@pytest.mark.parametrize("number", range(len(requests())))
def test_the_requests_are_answered_yes(tmp_path: Path, number: int) -> None:
    """At noon of the day that they name."""

    async def scene() -> None:
        platforms = [one for one in load(None, **settings()).platforms if one.type == "fake"]
        async with Desk(tmp_path, ManualClock("2026-11-21T12:00:00Z"), platforms=platforms) as desk:
            answer = await desk.ask(**requests()[number])
        assert answer["result"] == "YES", answer
        assert answer["meta"].get("messages", []) == []

    asyncio.run(scene())


def test_the_first_request_is_answered_as_it_says(tmp_path: Path) -> None:
    async def scene() -> None:
        platforms = [one for one in load(None, **settings()).platforms if one.type == "fake"]
        async with Desk(tmp_path, ManualClock("2026-11-21T12:00:00Z"), platforms=platforms) as desk:
            first, second, *_ = await desk.offers(**requests()[0])
        [cost] = json.loads(blocks("api.md", "json")[0])["costs"]
        assert cost.items() <= first["costs"][0].items()
        assert [first["objective"], second["objective"]] == ["earliest", "cheapest"]
        assert second["schedule"]["available"]["start"] == "2026-11-21T12:00:00Z/PT9H"  # 22:00 in Madrid

    asyncio.run(scene())


def test_documents_of_the_wire_fit_their_models() -> None:
    documents = [json.loads(text) for text in blocks("api.md", "json")]
    [option, update] = [one for one in documents if one.get("path")]
    assert TypeAdapter(Option).validate_python(option).model_dump() == option
    assert TypeAdapter(Update).validate_python(update).model_dump() == update
    [said] = [MessageItem.model_validate(one) for one in documents if "values" in one]
    assert said.values["path"] in said.message


def test_a_tariff_costs_what_the_docs_say(tmp_path: Path) -> None:
    tariff = {"from": "22:00", "until": "07:00", "factor": 0.5}
    prices = {"money": {"core_hour": 0.04, "tariffs": [tariff]}}
    pool = {"name": "pool", "type": "fake", "nodes": [{"cores": 4, "memory": 16}], "prices": prices}
    four = {"kind": "simple-compute-resource", "cores": {"min": 4}}

    async def scene() -> None:
        async with Desk(tmp_path, ManualClock("2026-11-21T12:00:00Z"), platforms=[pool]) as desk:
            found = {}
            for start in ("2026-11-21T21:00:00Z/PT0S", "2026-11-21T12:00:00Z/P1D"):
                wanted = {"duration": "PT2H", "start": start}
                offers = await desk.offers(compute=four, schedule={"requested": wanted}, objectives="cheapest")
                found |= {one["schedule"]["available"]["start"][11:16]: one["costs"][0]["max"] for one in offers[:1]}
                for offer in offers:
                    await desk.update(offer, "REJECTED")
        assert found == {"21:00": 0.24, "22:00": 0.16}

    asyncio.run(scene())


def test_the_client_example_runs(site: Site) -> None:
    [code] = blocks("api.md", "python")
    check = "\nassert answer.result == 'YES' and ways\n"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code + check], env=environment(EXECBROKER_FOLDER=str(site.data)), check=True
    )


def test_the_no_of_the_command_line_is_the_one_shown(site: Site) -> None:
    [shown] = [text for text in blocks("command-line.md", "") if text.startswith("$ execbroker ask")]
    command, *lines = shown.splitlines()
    words = command.removeprefix("$ execbroker ").split()
    done = site(*words, "--on", "pool", COLUMNS="80")
    assert done.out.splitlines() == lines


@pytest.mark.parametrize("text", ["compute.cores.min", "compute.replicas", "schedule.requested.duration"])
def test_the_paths_of_counter_offers_are_those_listed(text: str) -> None:
    assert f"`{text}`" in (HOME / "docs" / "api.md").read_text()


def test_options_of_the_command_line_are_listed() -> None:
    from typer.main import get_command

    from execbroker.cli import app

    page = (HOME / "docs" / "command-line.md").read_text()
    asked = get_command(app).commands["ask"]  # type: ignore[attr-defined]
    options = {name for parameter in asked.params for name in parameter.opts if name.startswith("--")}
    assert {name for name in options if name not in page} == set()


def test_a_suggestion_of_the_docs_can_be_made(site: Site) -> None:
    request = {"executable": NOTEBOOK, "compute": {"kind": "simple-compute-resource", "cores": {"min": 64}}, "platforms": "pool"}
    with Client(folder=site.data) as client:
        [way] = counter_offers(client.ask(request))
        assert way[0].path == "compute.cores.min"
        assert client.ask(changed(request, way)).result == "YES"
