"""What the broker tells of itself: an index, examples, its platforms; everything by what it says itself."""

import asyncio
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest
import yaml

from brokersite import Site, platform
from execbroker.model.components import EXECUTABLES
from people import AUTH

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
GPUS = [{"count": 2, "cores": 8, "memory": 32, "accelerators": [{"kind": "a100", "count": 2, "memory": 40}]}]


def get(site: Site, path: str, **headers: str) -> httpx.Response:
    async def work() -> httpx.Response:
        async with site:
            return await site.client.get(path, headers=headers)

    return asyncio.run(work())


def test_the_index_leads_to_all_there_is(site: Site) -> None:
    async def work() -> None:
        async with site:
            index = (await site.client.get("/")).json()
            assert index["standard"].startswith("ivo://")
            for name, url in index["links"].items():
                assert url.startswith("http://127.0.0.1:8080/")
                status = (await site.client.request("OPTIONS", url)).status_code
                assert status == 204, name
            described = (await site.client.get(index["links"]["openapi"])).json()["paths"]
            assert {"/", "/capabilities", "/availability", "/examples"} <= described.keys()
            assert described["/"]["get"]["security"] == []

    asyncio.run(work())


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (BROWSER, "text/html; charset=utf-8"),
        ("text/*", "text/html; charset=utf-8"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/yaml, text/html;q=0.5", "application/yaml"),
        ("text/html;q=0, */*", "application/json"),
    ],
)
def test_the_index_is_for_programs_and_for_browsers(tmp_path: Path, accept: str, media: str) -> None:
    registry = {"title": "<Broker>", "description": "Of & for all."}
    answer = get(Site(tmp_path, auth=AUTH, registry=registry), "/", accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media)
    if media.startswith("text/html"):
        assert "<h1>&lt;Broker&gt;</h1><p>Of &amp; for all.</p>" in answer.text
        assert 'href="http://127.0.0.1:8080/capabilities"' in answer.text
        assert "/requests" not in answer.text
    else:
        assert yaml.safe_load(answer.text)["title"] == "<Broker>"
    assert AUTH["admin"]["username"] not in answer.text


def test_a_page_is_only_where_there_is_one(site: Site) -> None:
    answer = get(site, "/platforms", accept="text/html")
    assert answer.status_code == 406
    assert "text/html" not in answer.json()["detail"].partition("what is:")[2]


def examples_in(text: str) -> list[dict[str, Any]]:
    """As a program reads them: by RDFa alone."""
    root = ET.fromstring(text)
    [vocabulary] = [one for one in root.iter() if "vocab" in one.attrib]
    assert vocabulary.get("vocab") == "http://www.ivoa.net/rdf/examples#"
    found = [one for one in vocabulary.iter() if one.get("typeof") == "example"]
    assert [one.get("resource") for one in found] == [f"#{one.get('id')}" for one in found]
    return [_example(one) for one in found]


def _example(element: ET.Element) -> dict[str, Any]:
    def values(name: str) -> list[str]:
        assert not [one for one in element.iter() if one.get("property") and (one.get("href") or one.get("src"))]
        return [one.text or "" for one in element.iter() if one.get("property") == name]

    assert len(values("name")) == 1
    assert element.findall(".//*[@typeof='keyval']")
    return dict(zip(values("key"), values("value"), strict=True)) | {"capability": values("capability")[0]}


def test_every_example_is_answered_as_it_says(site: Site) -> None:
    async def work() -> None:
        async with site:
            page = await site.client.get("/examples")
            assert page.headers["content-type"] == "application/xhtml+xml; charset=utf-8"
            found = examples_in(page.text)
            assert {one["result"] for one in found} == {"YES", "NO"}
            for one in found:
                headers = {"content-type": one["content-type"]}
                answer = await site.client.request(one["method"], one["url"], content=one["body"], headers=headers)
                assert (answer.status_code, answer.json()["result"]) == (200, one["result"]), one
                assert not [item for item in answer.json()["meta"].get("messages") or [] if item["level"] == "WARN"]

    asyncio.run(work())


def test_examples_run_the_notebook_of_the_settings(tmp_path: Path) -> None:
    notebook = "https://example.org/a.ipynb?x=1&y=<2>"
    page = get(Site(tmp_path, registry={"example": notebook}), "/examples").text
    locations = [json.loads(one["body"])["executable"].get("location") for one in examples_in(page)]
    assert notebook in locations
    assert set(locations) <= {notebook, None}


def test_platforms_have_a_profile_for_programs(tmp_path: Path) -> None:
    pools = {"storage": 100, "staging": 200, "licences": {"idl": 2}}
    flavours = [{"name": "small", "cores": 2, "memory": 8}]
    fast = platform(
        "fast", nodes=GPUS, pools=pools, flavours=flavours, performance=1.5, throughput=300, prices={"money": {"core_hour": 1}}
    )
    found = {one["name"]: one for one in get(Site(tmp_path, platforms=[platform(), fast]), "/platforms").json()["platforms"]}
    assert found["fast"]["executables"] == sorted(EXECUTABLES.members)
    assert found["fast"]["accelerators"] == [{"kind": "a100", "count": 4, "memory": 40}]
    assert (found["fast"]["performance"], found["fast"]["throughput"]) == (1.5, 300)
    assert found["fast"]["pools"] == {"storage": 100, "staging": 200, "idl": 2}
    assert found["fast"]["flavours"][0]["name"] == "small"
    assert found["fast"]["prices"] == {"money": {"core_hour": 1}}
    assert "throughput" not in found["site"]
    assert found["site"]["accelerators"] == []
    assert found["site"]["units"]["storage"] == "GiB"
