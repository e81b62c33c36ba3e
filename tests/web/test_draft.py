"""Every listing of the working draft, completed where it has dots, and named by its section: asked as it stands, and answered as
the draft says."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml

from brokersite import NOTEBOOK, ManualClock, Site, platform, uuid_of
from execbroker.codecs import CODECS

LISTINGS = {path.stem: path for path in sorted((Path(__file__).parents[1] / "golden" / "draft").glob("*.yaml"))}
DAY_BEFORE = "2023-08-13T12:00:00Z"
ROOMY = platform(nodes=[{"count": 2, "cores": 64, "memory": 256, "storage": 100_000}])
READ = {codec.media_type.rpartition("/")[2]: codec.decode for codec in CODECS}
REFUSED = {
    "3.1-unknown": "executable.type",
    "3.1.2-requirements": "executable.requirements[0]",
    "3.2.2-rucio": "resources.storage[0].type",
    "3.2.2-s3": "resources.storage[0]",
    "3.2.2-vospace-managed": "resources.storage[0].type",
    "3.2.2-vospace-unmanaged": "resources.storage[0].type",
    "3.4.1-program": "executable.location",
    "6.1-encabulation": "executable.type",
    "6.1-uri": "executable.type",
    "6.1-url": "executable.type",
    "6.2.3-zeppelin": "executable.type",
    "6.5-fpga": "resources.compute[0].type",
}
"""What is not known here, or not whole: NO, with the path in the request of the reason."""


def offered(form: str, *path: str | int) -> Callable[[Any], Any]:
    """What the first offer has at `path` of its request, or, without an envelope, of itself."""

    def look(answer: Any) -> Any:
        found = answer["response"]["offers"][0]["request"] if form == "enveloped" else answer["offers"][0]
        for step in path:
            found = found[step]
        return found

    return look


COMPUTE = ("resources", "compute", 0)
VOLUME = (*COMPUTE, "volumes", 0)
FACTS: dict[str, list[tuple[Callable[[Any], Any], Any]]] = {
    "3.1.1-docker": [
        (offered("bare", "executable", "repository"), "ghcr.io/ivoa/analytics"),
        (offered("bare", "executable", "tag"), "2024.08.30"),
        (offered("bare", "executable", "digest"), "sha256:ac1bfc70"),
    ],
    "3.1.2-notebook": [(offered("bare", "executable", "notebook", "file"), "https://data.example.org/example.jpnb")],
    "3.2.1-compute": [
        (offered("bare", *COMPUTE, "cores"), {"requested": {"min": 4}, "offered": {"min": 8, "max": 8}}),
        (offered("bare", *COMPUTE, "memory"), {"requested": {"min": 16}, "offered": {"min": 32, "max": 32}}),
    ],
    "3.2.2-mounted": [
        (offered("enveloped", *VOLUME, "resource"), "scratch-space"),
        (offered("enveloped", *VOLUME, "path"), "/temp"),
        (offered("enveloped", *VOLUME, "mode"), "rw"),
        (offered("enveloped", "resources", "storage", 0, "size", "requested", "min"), 1024),
        (offered("enveloped", "resources", "storage", 0, "schedule", "releasing", "duration"), "PT0S"),
    ],
    "3.2.2-persistent": [
        (offered("enveloped", "resources", "storage", 0, "size", "requested"), {"min": 10240}),
        (offered("enveloped", "resources", "storage", 0, "lifetime", "offered"), {"min": "P1D", "max": "P1D"}),
    ],
    "3.3-start": [(offered("bare", "datetime", 0, "start"), "2023-08-14T11:30:00Z")],
    "3.3-duration": [(offered("bare", "datetime", 0, "duration"), {"min": "PT1H", "max": "PT1H"})],
    "3.3-day": [
        (offered("bare", "resources", "compute", "cores"), {"min": 2, "max": 4}),
        (offered("bare", "resources", "compute", "memory"), {"min": 2, "max": 4}),
        (offered("bare", "datetime", 0, "duration"), {"min": "PT1H", "max": "PT1H"}),
    ],
    "3.4.4-mounted": [(offered("bare", *VOLUME, "path"), "/data")],
    "3.4.4-compute": [
        (offered("bare", *COMPUTE, "cores", "requested"), {"min": 32}),
        (offered("bare", *COMPUTE, "memory", "requested"), {"min": 128}),
    ],
    "6.2.2-jupyter": [
        (
            offered("enveloped", "executable", "spec"),
            {"notebook": "https://data.example.org/example.jpnb", "requirements": ["astropy>=6.1"]},
        )
    ],
    "6.2.4-docker": [
        (offered("enveloped", "executable", "spec", "repo"), "ghcr.io/ivoa"),
        (offered("enveloped", "executable", "spec", "platforms"), [{"architecture": "amd64", "os": "linux"}]),
    ],
    "6.2.8-amounts": [
        (offered("enveloped", *COMPUTE, "spec", "cores"), {"min": 3, "max": 6}),
        (offered("enveloped", *COMPUTE, "spec", "memory"), {"min": 4, "max": 5}),
        (offered("enveloped", *COMPUTE, "name"), "node"),
    ],
    "6.2.8-volumes": [(offered("enveloped", *COMPUTE, "spec", "volumes", 0, "resource"), "results")],
}
STARTS = {
    "3.3-start": ("2023-08-14T11:30:00Z", "2023-08-14T11:30:00Z"),
    "3.3-start-end": ("2023-08-14T11:30:00Z", "2023-08-14T12:00:00Z"),
    "3.3-start-duration": ("2023-08-14T11:30:00Z", "2023-08-14T12:00:00Z"),
    "3.3-day": ("2023-08-14T00:00:00Z", "2023-08-15T00:00:00Z"),
}


def read(answer: httpx.Response, form: str) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == {"json": "application/json", "yaml": "application/yaml; charset=utf-8"}[form]
    return READ[form](answer.content)


def headers_of(form: str) -> dict[str, str]:
    return {"content-type": f"application/{form}", "accept": f"application/{form}"}


async def ask(site: Site, name: str, form: str = "yaml") -> Any:
    content = LISTINGS[name].read_bytes()
    address = "/request" if content.startswith(b"request:") else "/offersets"
    body = content if form == "yaml" else json.dumps(READ["yaml"](content)).encode()
    return read(await site.client.post(address, content=body, headers=headers_of(form)), form)


@pytest.mark.parametrize("form", ["yaml", "json"])
@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_is_answered_as_the_draft_says(name: str, form: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, ManualClock(DAY_BEFORE), platforms=[ROOMY]) as site:
            answer = await ask(site, name, form)
            found = answer.get("response", answer)
            assert found["result"] == ("NO" if name in REFUSED else "YES"), found
            if name in REFUSED:
                _is_refused(answer, REFUSED[name])
                return
            for look, value in FACTS.get(name, []):
                assert look(answer) == value
            if name in STARTS:
                starts = [offer["datetime"][0]["start"] for offer in answer["offers"]]
                assert all(STARTS[name][0] <= start <= STARTS[name][1] for start in starts)
            await _is_taken(site, answer, form)

    asyncio.run(story())


def test_the_listings_are_all_there() -> None:
    assert len(LISTINGS) == 40
    assert {*REFUSED, *FACTS, *STARTS} <= LISTINGS.keys()


def _is_refused(answer: Any, path: str) -> None:
    """6.3.3; without an envelope the reasons are messages."""
    if "response" in answer:
        assert path in [reason["path"] for reason in answer["response"]["reasons"]]
        assert all(reason.keys() == {"path", "text"} and reason["text"] for reason in answer["response"]["reasons"])
    else:
        assert path in [message["values"]["path"] for message in answer["messages"]]


async def _is_taken(site: Site, answer: Any, form: str) -> None:
    """Accept the first offer: at /offers/{ident} (5.2.3) where it has one, by its `href` where it has not (2.2)."""
    found = answer.get("response", answer)
    first = found["offers"][0]
    if "ident" not in first:
        assert first["state"] == "OFFERED"
        assert {"uuid", "expires", "executable", "resources"} <= first.keys()
        assert len(first.keys() & {"datetime", "schedule"}) == 1
        assert first["options"] == [{"type": "uri:enum-value-option", "path": "state", "values": ["ACCEPTED", "REJECTED"]}]
        update = {"update": {"type": "uri:enum-value-update", "path": "state", "value": "ACCEPTED"}}
        assert (await site.client.post(first["href"], json=update)).json()["state"] in ("ACCEPTED", "WAITING")
        return
    assert (first["status"], first["href"].rpartition("/")[2]) == ("OFFERED", first["ident"])
    assert UUID(first["ident"])
    shown = read(await site.client.get(f"/offers/{first['ident']}", headers=headers_of(form)), form)
    assert shown.keys() == {"offer"}
    assert [shown["offer"][name] for name in ("ident", "status", "expires")] == [
        first[name] for name in ("ident", "status", "expires")
    ]
    body = json.dumps({"offer": {"ident": first["ident"], "status": "ACCEPTED"}})
    taken = read(await site.client.post(f"/offers/{first['ident']}", content=body, headers=headers_of(form)), form)
    assert (taken["offer"]["ident"], taken["offer"]["status"]) == (first["ident"], "ACCEPTED")
    assert {"executable", "resources", "datetime"} <= taken["offer"]["request"].keys()
    for other in found["offers"][1:]:
        assert (await site.client.get(f"/offers/{other['ident']}")).json()["offer"]["status"] == "REJECTED"


def test_an_accepted_offer_is_a_job_as_far_as_it_is(tmp_path: Path) -> None:
    """6.4, through the phases of 2.2."""

    async def story() -> None:
        async with Site(tmp_path, ManualClock(DAY_BEFORE), platforms=[{**ROOMY, "preparing": "PT1M"}]) as site:
            offer = (await ask(site, "5.2.1-request"))["response"]["offers"][0]
            address = f"/offers/{offer['ident']}"
            await site.client.post(address, json={"offer": {"status": "accepted"}})
            phases = []
            for seconds in (0, 90, 3600):
                await site.advance(seconds)
                found = (await site.client.get(address)).json()
                assert found["offer"]["status"] == "ACCEPTED"
                assert found["job"].keys() == {"ident", "phase", "request"}
                assert found["job"]["request"] == found["offer"]["request"]
                phases.append(found["job"]["phase"])
            assert phases == ["READY", "RUNNING", "COMPLETED"]
            again = await site.client.post(address, json={"offer": {"status": "REJECTED"}})
            assert (again.status_code, again.json()["phase"]) == (409, "COMPLETED")

    asyncio.run(story())


def test_the_example_of_the_docs_is_answered_yes(tmp_path: Path) -> None:
    async def story() -> None:
        page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
        [example] = re.findall(r"```yaml\n(request:.*?)```", page, re.DOTALL)
        async with Site(tmp_path, ManualClock("2026-11-21T09:00:00Z"), platforms=[ROOMY]) as site:
            answer = read(await site.client.post("/request", content=example, headers=headers_of("yaml")), "yaml")
            assert answer["response"]["result"] == "YES"
            assert answer["response"]["offers"][0]["request"]["datetime"][0]["start"] == "2026-11-21T12:00:00Z"

    asyncio.run(story())


def test_an_empty_request_is_refused_in_its_envelope(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, platforms=[ROOMY]) as site:
            answer = read(await site.client.post("/request", json={"request": None}), "json")
            assert answer["response"]["reasons"] == [{"path": "executable", "text": "There is no executable to run"}]

    asyncio.run(story())


def test_an_offer_expires(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, ManualClock(DAY_BEFORE), platforms=[ROOMY]) as site:
            offer = (await ask(site, "5.2.1-request"))["response"]["offers"][0]
            await site.advance(301)
            assert (await site.client.get(f"/offers/{offer['ident']}")).json()["offer"]["status"] == "EXPIRED"

    asyncio.run(story())


def test_what_never_was_an_offer_is_shown_as_the_job_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, platforms=[ROOMY]) as site:
            failed = (await site.client.post("/direct", json={"executable": {"kind": "uri:unknown-type"}})).json()
            found = (await site.client.get(f"/offers/{uuid_of(failed)}")).json()
            assert (found["job"]["ident"], found["job"]["phase"]) == (uuid_of(failed), "FAILED")

    asyncio.run(story())


@pytest.mark.parametrize("envelope", [True, False])
def test_a_session_is_updated_by_type_and_state_at_its_address_of_v1(envelope: bool, tmp_path: Path) -> None:
    """2.2: an offer is accepted, and then there is only one thing left to be done to it."""

    async def story() -> None:
        async with Site(tmp_path, ManualClock(DAY_BEFORE), platforms=[ROOMY]) as site:
            offer = (await ask(site, "3.3-start"))["offers"][0]
            update = {"type": "uri:enum-value-update", "path": "state", "value": "ACCEPTED"}
            body = {"update": update} if envelope else update
            headers = {"idempotency-key": "once"}
            answer = await site.client.post(f"/sessions/{offer['uuid']}", json=body, headers=headers)
            found = read(answer, "json")
            assert (found["uuid"], found["state"]) == (offer["uuid"], "ACCEPTED")
            assert {"type": "uri:enum-value-option", "path": "state", "values": ["CANCELLED"]} in found["options"]
            again = await site.client.post(f"/sessions/{offer['uuid']}", json=body, headers=headers)
            assert again.content == answer.content
            cancelled = {"kind": "uri:enum-value-update", "path": "state", "value": "CANCELLED"}
            answer = await site.client.post(f"/sessions/{offer['uuid']}", json=cancelled)
            assert answer.json()["phase"] in ("RELEASING", "CANCELLED")

    asyncio.run(story())


NB = {"type": "uri:jupyter-notebook-1.0", "notebook": "https://example.org/a.ipynb"}
S3 = {"type": "uri:amazon-s3-storage", "bucket": "b"}
FILE = {"filepath": "/data/other.vot", "resource": "input"}
DATA = {"type": "uri:simple-data-resource", "name": "input", "location": "https://example.org/input.vot"}
UNCLEAR: list[tuple[dict[str, Any], str]] = [
    ({"datetime": [{"start": "2023-08-14T11:30Z"}, {"start": "2023-08-15T11:30Z"}]}, "schedule.requested.start"),
    ({"schedule": {"requested": {"start": ["2023-08-14/P1D", "2023-08-16/P1D"]}}}, "schedule.requested.start"),
    ({"datetime": [{"duration": {"max": "PT4H"}}]}, "schedule.requested.duration"),
    ({"datetime": [{"duration": {"min": "PT4H", "max": "PT1H"}}]}, "schedule.requested.duration"),
    ({"datetime": [{"duration": {"min": "long"}}]}, "schedule.requested.duration"),
    ({"datetime": "soon"}, "schedule.requested"),
    ({"datetime": [{"start": "2023-08-14/P1D"}], "schedule": {"duration": "PT1H"}}, "schedule"),
    ({"resources": {"compute": [{"cores": {"requested": 4}}]}}, "compute.cores"),
    ({"resources": {"compute": [{"cores": 4}]}}, "compute.cores"),
    ({"resources": {"compute": {"cores": {"requested": {"min": 4}, "min": 2}}}}, "compute.cores.min"),
    ({"resources": {"compute": [{"volumes": [FILE]}], "data": [DATA]}}, "compute.volumes[0].path"),
    ({"resources": {"compute": [{"name": "a"}]}, "compute": {"name": "b"}}, "compute"),
    ({"resources": ["compute"]}, "resources"),
    ({"resources": {"storage": [{"type": "uri:persistent-storage", "lifecycle": "unmanaged"}]}}, "storage[0].kind"),
    ({"resources": {"storage": [S3 | {"lifecycle": "managed"}]}}, "storage"),
    (
        {"executable": {"type": "oci-container", "image": "a", "platforms": [{"os": "a"}, {"os": "b"}]}},
        "executable.image.platform",
    ),
    ({"executable": {"type": "jupyter-notebook", "notebook": {"url": ["x"]}, "location": 7}}, "executable.location"),
    ({"executable": {"notebook": "https://example.org/a.ipynb"}}, "executable.kind"),
    ({"offer": {"status": "ACCEPTED"}}, "offer"),
]


@pytest.mark.parametrize("address", ["/request", "/offersets"])
@pytest.mark.parametrize(("part", "path"), UNCLEAR)
def test_what_is_unclear_is_told_the_form_of_v1(address: str, part: dict[str, Any], path: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, ManualClock(DAY_BEFORE), platforms=[ROOMY]) as site:
            request = {"executable": NB} | part
            answer = await site.client.post(address, json={"request": request} if address == "/request" else request)
            assert answer.status_code == 422, answer.text
            assert [fault["path"] for fault in answer.json()["errors"]] == [path]
            assert (await site.client.get("/offersets")).json() == {"offersets": []}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"offer": {"ident": "cdc78e7d-8032-497e-9a5b-01c720ea2223", "status": "ACCEPTED"}}, "offer.ident"),
        ({"offer": {"status": "RUNNING"}}, "offer.status"),
        ({"offer": {"ident": None}}, "offer.status"),
        ({"offer": {"status": "ACCEPTED", "expires": "2030-01-01T00:00:00Z"}}, "offer.expires"),
        ({"offer": "ACCEPTED"}, "offer"),
        ({"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}, "offer"),
        ([], "offer"),
    ],
)
def test_an_offer_is_changed_in_its_status_alone(body: Any, path: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, platforms=[ROOMY]) as site:
            uuid = uuid_of((await site.offers())[0])
            answer = await site.client.post(f"/offers/{uuid}", json=body)
            assert answer.status_code == 422, answer.text
            assert [fault["path"] for fault in answer.json()["errors"]] == [path]
            if path in ("offer", "offer.status"):
                assert f"/sessions/{uuid}" in answer.json()["errors"][0]["message"]
            assert await site.phase(uuid) == "OFFERED"

    asyncio.run(story())


@pytest.mark.parametrize("address", ["/request", "/offersets"])
def test_a_v1_request_is_answered_in_v1(address: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, platforms=[ROOMY]) as site:
            found = (await site.client.post(address, json={"executable": NOTEBOOK})).json()
            shown = (await site.client.get(f"/offersets/{uuid_of(found)}")).json()
            assert found == shown
            assert found["offers"][0]["phase"] == "OFFERED"

    asyncio.run(story())


@pytest.mark.parametrize("name", ["5.2.1-request", "2.2-request"])
def test_a_redirect_leads_to_the_answer(name: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, ManualClock(DAY_BEFORE), platforms=[ROOMY], reply="redirect") as site:
            address = "/request" if name.startswith("5") else "/offersets"
            headers = {"content-type": "application/yaml"}
            answer = await site.client.post(address, content=LISTINGS[name].read_bytes(), headers=headers)
            assert answer.status_code == 303
            assert (await site.client.get(answer.headers["location"])).json()["result"] == "YES"

    asyncio.run(story())


def test_a_request_sent_again_is_not_done_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path, ManualClock(DAY_BEFORE), platforms=[ROOMY]) as site:
            headers = {"content-type": "application/yaml", "idempotency-key": "once"}
            body = yaml.safe_dump({"request": {"executable": NB}})
            first, again = [await site.client.post("/request", content=body, headers=headers) for _ in range(2)]
            assert first.content == again.content
            assert again.headers["idempotency-replayed"] == "true"
            address = f"/offers/{first.json()['response']['offers'][0]['ident']}"
            body = yaml.safe_dump({"offer": {"status": "ACCEPTED"}})
            first, again = [await site.client.post(address, content=body, headers=headers) for _ in range(2)]
            assert (first.status_code, first.content) == (200, again.content)

    asyncio.run(story())
