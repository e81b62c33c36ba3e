"""XML through the front door."""

import asyncio
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from brokersite import Site, platform
from execbroker.codecs import CODECS
from execbroker.web.openapi.documents import documents
from execbroker.web.openapi.schemas import schemas
from people import ADMIN, AUTH

XML = {"accept": "application/xml"}
SENT = XML | {"content-type": "application/xml"}
PROBLEM = "{urn:ietf:rfc:7807}"
READ = next(codec.decode for codec in CODECS if codec.media_type == "application/xml")

REQUEST = """<?xml version="1.0" encoding="UTF-8"?>
<offers-request>
  <executable kind="jupyter-notebook">
    <meta><name>analysis</name></meta>
    <location>https://example.org/a.ipynb</location>
    <mode>batch</mode>
    <environment><entry name="A">1</entry></environment>
  </executable>
  <compute kind="simple-compute-resource" colour="blue"><cores><max>2</max><min>1</min></cores><hue>3</hue></compute>
  <storage kind="simple-storage-resource"><meta><name>results</name></meta><size><min>1</min></size></storage>
  <schedule><requested><duration> PT10M </duration></requested></schedule>
  <cost kind="simple-minmax-float-cost"><type>monetary</type><max>100</max></cost>
</offers-request>
"""
ACCEPT = '<AbstractUpdate kind="uri:enum-value-update"><path>phase</path><value>ACCEPTED</value></AbstractUpdate>'


def tree(answer: httpx.Response, status: int = 200, media_type: str = "application/xml") -> ElementTree.Element:
    assert (answer.status_code, answer.headers["content-type"]) == (status, media_type), answer.text
    return ElementTree.fromstring(answer.content)


def test_from_the_question_to_the_end_in_xml(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, platforms=[platform(lasts="PT5M")]) as site:
            answer = tree(await site.client.post("/requests", content=REQUEST, headers=SENT))
            assert (answer.tag, answer.findtext("result")) == ("offers-response", "YES")
            assert {entry.text for entry in answer.iterfind("meta/message/values/entry[@name='path']")} == {
                "compute.colour",
                "compute.hue",
            }
            offers = answer.findall("offers/execution")
            assert {offer.findtext("compute/cores/max") for offer in offers} == {"2"}
            uuid = offers[0].findtext("meta/uuid")
            accepted = tree(await site.client.post(f"/sessions/{uuid}", content=ACCEPT, headers=SENT))
            assert (accepted.tag, accepted.get("kind", "").rpartition("/")[2]) == (
                "execution",
                "scheduled-execution-session.yaml",
            )
            await site.advance(600)
            session = tree(await site.client.get(f"/sessions/{uuid}", headers=XML))
            assert session.findtext("phase") == "COMPLETED"
            assert session.findtext("executable/environment/entry[@name='A']") == "1"
            part = session.find("storage/meta/url")
            assert part is not None
            component = tree(await site.client.get(part.text or "", headers=XML))
            assert (component.tag, component.findtext("meta/name")) == ("SimpleStorageResource", "results")

    asyncio.run(story())


def test_what_the_docs_show(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    request, update, nothing = re.findall(r"```xml\n(.*?)```", page, re.DOTALL)

    async def story() -> None:
        async with Site(tmp_path) as site:
            assert (await site.client.get("/sessions", headers=XML)).text.partition("\n")[2] == nothing.replace('"/>', '" />')
            answer = await site.client.post("/requests", content=request, headers=SENT)
            offers = tree(answer).findall("offers/execution")
            assert offers[0].findtext("executable/parameters/entry[@name='steps']") == "20"
            assert tree(answer).findall("meta/message") == []
            session = f"/sessions/{offers[0].findtext('meta/uuid')}"
            assert tree(await site.client.post(session, content=update, headers=SENT)).findtext("phase") != "OFFERED"

    asyncio.run(story())


def test_direct_in_xml(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path) as site:
            session = tree(await site.client.post("/direct", content=REQUEST, headers=SENT | {"content-type": "text/xml"}))
            assert session.tag == "execution"
            refused = REQUEST.replace("<min>1</min></cores>", "<min>64</min></cores>")
            assert tree(await site.client.post("/direct", content=refused, headers=SENT), 400).findtext("phase") == "FAILED"

    asyncio.run(story())


@pytest.mark.parametrize("path", ["/platforms", "/me", "/sessions", "/offersets", "/healthz", "/login", "/sessions/{}/files/"])
def test_what_has_no_schema_says_in_xml_what_it_says_in_json(tmp_path: Path, path: str) -> None:
    async def story() -> None:
        async with Site(tmp_path) as site:
            there = path.format(await site.take())
            answer = await site.client.get(there, headers=XML)
            assert tree(answer).tag == "document"
            assert READ(answer.content) == (await site.client.get(there)).json()

    asyncio.run(story())


def test_the_dialect_in_xml(tmp_path: Path) -> None:
    request = """<request><executable><type>urn:jupyter-notebook-0.1</type>
    <notebook>https://example.org/a.ipynb</notebook></executable>
    <resources><compute type="urn:simple-compute-resource-0.1"><cores><requested><min>2</min></requested></cores>
    </compute></resources>
    <schedule><requested><executing><duration>PT10M</duration></executing></requested></schedule></request>"""

    async def story() -> None:
        async with Site(tmp_path) as site:
            answer = await site.client.post("/offerset", content=request, headers=SENT)
            found = tree(answer)
            assert (found.tag, found.findtext("result")) == ("document", "YES")
            offer = found.find("offers/i")
            assert offer is not None
            assert [offer.findtext("state"), offer.findtext("resources/compute/i/cores/min")] == ["OFFERED", "2"]
            update = "<update><state>ACCEPTED</state></update>"
            href = f"/execution/{offer.findtext('uuid')}"
            assert tree(await site.client.post(href, content=update, headers=SENT)).findtext("state") != "OFFERED"
            assert READ((await site.client.get(href, headers=XML)).content) == (await site.client.get(href)).json()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ("<offers-request><a></offers-request>", 400, None),
        ("<!DOCTYPE a><offers-request/>", 400, None),
        ("<a>" * 70 + "</a>" * 70, 400, None),
        ("just text", 400, None),
        ("", 400, None),
        ("<document type='string'>text</document>", 422, ""),
        ("<offers-request><storage><size><min>1</min></size></storage></offers-request>", 422, "storage[0].kind"),
        (REQUEST.replace("<min>1</min></cores>", "<min>one</min></cores>"), 422, "compute.cores.min"),
    ],
)
def test_what_is_wrong_is_said_in_xml(tmp_path: Path, body: str, status: int, path: str | None) -> None:
    async def story() -> None:
        async with Site(tmp_path) as site:
            problem = tree(await site.client.post("/requests", content=body, headers=SENT), status, "application/problem+xml")
            assert problem.tag == f"{PROBLEM}problem"
            assert problem.findtext(f"{PROBLEM}status") == str(status)
            assert problem.findtext(f"{PROBLEM}errors/{PROBLEM}i/{PROBLEM}path") == path

    asyncio.run(story())


def test_an_empty_request_is_answered_no(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path) as site:
            assert tree(await site.client.post("/requests", content="<offers-request/>", headers=SENT)).findtext("result") == "NO"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/xml", "application/xml"),
        ("text/xml", "application/xml"),
        ("application/problem+xml", "application/xml"),
        ("application/json;q=0.5, application/xml", "application/xml"),
        ("application/xml;q=0.5, application/yaml", "application/yaml"),
        ("application/*", "application/json"),
    ],
)
def test_who_asks_for_xml_gets_it(tmp_path: Path, accept: str, media_type: str) -> None:
    async def story() -> None:
        async with Site(tmp_path) as site:
            assert (await site.client.get("/me", headers={"accept": accept})).headers["content-type"] == media_type

    asyncio.run(story())


@pytest.mark.parametrize("form", ["yaml", "xml"])
def test_who_says_nothing_gets_what_the_setting_says(tmp_path: Path, form: str) -> None:
    async def story() -> None:
        async with Site(tmp_path, media_type=form) as site:
            asked = {"yaml": "executable: {kind: time-machine}", "xml": "<request><executable kind='time-machine'/></request>"}
            answer = await site.client.post("/requests", content=asked[form])
            assert (answer.status_code, answer.headers["content-type"]) == (200, f"application/{form}")
            missing = await site.client.get("/sessions/00000000-0000-0000-0000-000000000000")
            problem = {"yaml": "application/yaml", "xml": "application/problem+xml"}[form]
            assert (missing.status_code, missing.headers["content-type"]) == (404, problem)

    asyncio.run(story())


def test_the_same_key_twice_gives_the_same_xml(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path) as site:
            headers = SENT | {"idempotency-key": "one"}
            first, second = [await site.client.post("/requests", content=REQUEST, headers=headers) for _ in range(2)]
            assert second.headers["idempotency-replayed"] == "true"
            assert (first.content, first.headers["content-type"]) == (second.content, second.headers["content-type"])
            other = await site.client.post("/requests", content=REQUEST.replace("PT10M", "PT20M"), headers=headers)
            assert tree(other, 422, "application/problem+xml").tag == f"{PROBLEM}problem"

    asyncio.run(story())


def test_accounts_in_xml(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, auth=AUTH) as site:
            alice = (
                "<account><username>alice</username><password>correct horse battery</password><groups>astro</groups></account>"
            )
            made = tree(await site.client.post("/admin/identities", content=alice, headers=SENT, auth=ADMIN), 201)
            uuid = made.findtext("uuid")
            away = "<change><disabled>true</disabled><groups>a</groups><groups>b</groups></change>"
            found = tree(await site.client.post(f"/admin/identities/{uuid}", content=away, headers=SENT, auth=ADMIN))
            assert (found.findtext("disabled"), [group.text for group in found.iterfind("groups/i")]) == ("true", ["a", "b"])

    asyncio.run(story())


def test_our_description_says_so() -> None:
    found: dict[str, Any] = schemas()
    assert documents()["Problem"]["xml"] == {"name": "problem", "namespace": "urn:ietf:rfc:7807"}
    assert found["ExecutionRequest"]["properties"]["costs"]["items"]["xml"] == {"name": "cost"}
