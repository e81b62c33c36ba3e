"""The API at its front door: media types, statuses, waiting, output, files, lists, identity."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml

from brokersite import NOTEBOOK, Site, asked, platform, uuid_of

ASK = {"executable": NOTEBOOK}
YAML = {"accept": "application/yaml"}


def run(site: Site, work: Callable[[Site], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with site:
            await work(site)

    asyncio.run(opened())


@pytest.mark.parametrize(
    ("accept", "status", "media_type"),
    [
        ("", 200, "application/json"),
        ("*/*", 200, "application/json"),
        ("application/yaml", 200, "application/yaml"),
        ("text/yaml", 200, "application/yaml"),
        ("application/json;q=0.1, application/yaml", 200, "application/yaml"),
        ("application/yaml;q=0.1, application/*", 200, "application/json"),
        ("application/json;q=0, */*;q=0.1", 200, "application/yaml"),
        ("text/html, */*;q=0.8", 200, "application/json"),
        ("application/json;q=rubbish, application/yaml", 200, "application/yaml"),
        ("text/html", 406, "application/problem+json"),
        ("application/json;q=0", 406, "application/problem+json"),
    ],
)
def test_accept(site: Site, accept: str, status: int, media_type: str) -> None:
    async def work(site: Site) -> None:
        answer = await site.client.post("/requests", json=ASK, headers={"accept": accept})
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (status, media_type)
        assert "accept" in answer.headers["vary"].lower()

    run(site, work)


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "text/plain"}, b"{}", 415),
        ({"content-type": "application/json", "content-encoding": "br"}, b"{}", 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, b"{}", 400),
        ({"content-type": "application/json"}, b" " * (10 << 20), 413),
        ({"content-type": "application/yaml"}, b"a: " + b"x" * (10 << 20), 413),
        ({"content-type": "application/json"}, b"{", 400),
        ({"content-type": "application/json"}, b"[]", 422),
    ],
)
def test_bodies_that_are_refused(site: Site, headers: dict[str, str], content: bytes, status: int) -> None:
    async def work(site: Site) -> None:
        for path in ("/requests", "/direct", "/offerset", f"/sessions/{uuid4()}"):
            answer = await site.client.post(path, content=content, headers=headers)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert problem["status"] == status
            assert problem["title"]
            assert problem["detail"]

    run(site, work)


def test_404_and_405(site: Site) -> None:
    async def work(site: Site) -> None:
        for path in ("/nothing", f"/sessions/{uuid4()}", "/sessions/not-a-uuid", f"/offersets/{uuid4()}",
                     f"/components/{uuid4()}",
                     f"/sessions/{uuid4()}/stdout", f"/sessions/{uuid4()}/files/"):  # fmt: skip
            answer = await site.client.get(path)
            assert (answer.status_code, answer.json()["status"]) == (404, 404)
        answer = await site.client.delete("/requests")
        assert (answer.status_code, answer.json()["title"]) == (405, "This address does not take that method")
        assert answer.headers["allow"] == "OPTIONS, POST"

    run(site, work)


def test_an_illegal_move_names_the_phase_and_what_is_allowed(site: Site) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked())
        update = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
        problem = (await site.client.post(f"/sessions/{uuid}", json=update)).json()
        assert (problem["status"], problem["phase"], problem["allowed"]) == (409, "ACCEPTED", ["CANCELLED"])
        answer = await site.client.post(f"/sessions/{uuid}", json=update, headers=YAML)
        assert answer.status_code == 409
        assert yaml.safe_load(answer.text)["allowed"] == ["CANCELLED"]

    run(site, work)


def test_options_list_what_may_be_done_now(site: Site) -> None:
    async def work(site: Site) -> None:
        offer, other, *_ = await site.offers(**asked(duration="PT10M"))
        assert offer["meta"]["options"][0]["values"] == ["ACCEPTED", "REJECTED"]
        assert (await site.update(other, "REJECTED")).json()["phase"] == "REJECTED"
        assert "options" not in (await site.show(other))["meta"]
        accepted = await site.accept(offer)
        assert accepted["meta"]["options"][0]["values"] == ["CANCELLED"]
        assert "expires" not in accepted

    run(site, work)


@pytest.mark.parametrize(
    ("update", "path"),
    [
        ({"kind": "uri:integer-delta-update", "path": "phase", "delta": 1}, "path"),
        ({"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": 0}, "delta"),
        ({"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": 1, "units": "moons"}, "units"),
        ({"kind": "uri:string-value-update", "path": "phase", "value": "ACCEPTED"}, "kind"),
        ({"kind": "uri:from-mars", "path": "phase"}, "kind"),
        ({"kind": "uri:enum-value-update", "path": "executable", "value": "ACCEPTED"}, "path"),
        ({"kind": "uri:enum-value-update", "path": "phase", "value": "RUNNING"}, "value"),
        ({"kind": "uri:enum-value-update", "path": "phase"}, "value"),
        ({"path": "phase", "value": "ACCEPTED"}, "kind"),
    ],
)
def test_updates_that_no_session_has(site: Site, update: dict[str, Any], path: str) -> None:
    async def work(site: Site) -> None:
        (offer, *_) = await site.offers()
        answer = await site.client.post(f"/sessions/{uuid_of(offer)}", json=update)
        assert (answer.status_code, [fault["path"] for fault in answer.json()["errors"]]) == (422, [path])
        assert await site.phase(offer) == "OFFERED"

    run(site, work)


def test_prefer_minimal_is_a_redirect_also_for_no(site: Site) -> None:
    async def work(site: Site) -> None:
        for document, result in ((ASK, "YES"), ({}, "NO")):
            answer = await site.client.post("/requests", json=document, headers={"prefer": "return=minimal"})
            assert (answer.status_code, answer.content) == (303, b"")
            assert (await site.client.get(answer.headers["location"])).json()["result"] == result
        answer = await site.client.post("/direct", json=ASK, headers={"prefer": "return=minimal"})
        assert (await site.client.get(answer.headers["location"])).json()["phase"] == "ACCEPTED"

    run(site, work)


def test_redirect_by_setting(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        answer = await site.client.post("/requests", json=ASK)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("https://broker.example.org/eb/offersets/")

    run(Site(tmp_path, reply="redirect", public_url="https://broker.example.org/eb/"), work)


async def woken_for_nothing(site: Site) -> None:
    """Those who wait by now are told of what they know already, as a database tells all of what one has written."""
    await asyncio.sleep(0.1)
    site.ledger.changes.tell_all()
    await asyncio.sleep(0.1)


def test_waiting_wakes_at_once_and_times_out(site: Site) -> None:
    async def work(site: Site) -> None:
        loop = asyncio.get_running_loop()
        offer, *_ = await site.offers()
        path, begun = f"/sessions/{uuid_of(offer)}", loop.time()
        assert (await site.client.get(path, params={"wait": 0.2})).json()["phase"] == "OFFERED"
        assert 0.2 <= loop.time() - begun < 2
        waiters = [
            asyncio.create_task(site.client.get(path, params={"wait": 30})),
            asyncio.create_task(site.client.get(path, params={"wait": 30, "phase": "OFFERED"})),
        ]
        await woken_for_nothing(site)
        await site.accept(offer)
        answers = await asyncio.wait_for(asyncio.gather(*waiters), 5)
        assert [answer.json()["phase"] for answer in answers] == ["ACCEPTED", "ACCEPTED"]
        known = await site.client.get(path, params={"wait": 30, "phase": "OFFERED"})
        assert known.json()["phase"] == "ACCEPTED"
        assert loop.time() - begun < 10
        for wait in ("-1", "61", "nan", "soon"):
            answer = await site.client.get(path, params={"wait": wait})
            assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "query.wait")

    run(site, work)


def test_waiting_on_an_offerset(site: Site) -> None:
    async def work(site: Site) -> None:
        answer = await site.ask()
        waiter = asyncio.create_task(site.client.get(f"/offersets/{uuid_of(answer)}", params={"wait": 30}))
        await woken_for_nothing(site)
        await site.update(answer["offers"][1], "REJECTED")
        changed = (await asyncio.wait_for(waiter, 5)).json()
        assert [offer["phase"] for offer in changed["offers"]] == ["OFFERED", "REJECTED", "OFFERED", "OFFERED"]

    run(site, work)


def test_nobody_who_waited_or_only_looked_is_remembered(site: Site) -> None:
    async def work(site: Site) -> None:
        offer, *_ = await site.offers()
        for path in (f"/sessions/{uuid_of(offer)}", f"/sessions/{uuid4()}", f"/offersets/{uuid4()}"):
            await site.client.get(path)
            await site.client.get(path, params={"wait": 0.01})
        assert len(site.ledger.changes._waiting) == 0

    run(site, work)


def test_every_url_and_uuid_of_a_reply_resolves(site: Site) -> None:
    async def work(site: Site) -> None:
        answer = await site.ask(
            storage=[{"kind": "simple-storage-resource", "meta": {"name": "space"}}],
            data=[{"kind": "simple-data-resource", "meta": {"name": "in"}, "location": "https://a/b", "storage": "space"}],
            compute={"kind": "simple-compute-resource", "volumes": [{"kind": "simple-volume-mount", "resource": "in"}]},
        )
        offer = answer["offers"][0]
        parts = [
            answer,
            offer,
            offer["executable"],
            offer["compute"],
            *offer["compute"]["volumes"],
            *offer["storage"],
            *offer["data"],
        ]
        assert len({part["meta"]["uuid"] for part in parts}) == len(parts)
        for part in parts:
            assert (await site.client.get(part["meta"]["url"])).json()["meta"]["uuid"] == part["meta"]["uuid"]
            assert (await site.client.get(f"/components/{part['meta']['uuid']}")).json()["kind"] == part["kind"]
        assert offer["data"][0]["storage"] == offer["storage"][0]["meta"]["uuid"]
        assert offer["storage"][0]["data"] == [offer["data"][0]["meta"]["uuid"]]
        assert offer["compute"]["volumes"][0]["resource"] == offer["data"][0]["meta"]["uuid"]

    run(site, work)


async def ran(site: Site) -> str:
    """A session that has ended, with twenty bytes of output."""
    uuid = await site.take(**asked(duration="PT1M"))
    await site.advance(100)
    (site.store.folder(UUID(uuid)) / "stdout").write_bytes(b"0123456789abcdefghij")
    return uuid


@pytest.mark.parametrize(
    ("header", "status", "content", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/20"),
        ("bytes=15-", 206, b"fghij", "bytes 15-19/20"),
        ("bytes=-4", 206, b"ghij", "bytes 16-19/20"),
        ("bytes=-100", 206, b"0123456789abcdefghij", "bytes 0-19/20"),
        ("bytes=10-100", 206, b"abcdefghij", "bytes 10-19/20"),
        ("bytes=20-", 416, None, "bytes */20"),
        ("bytes=5-3", 416, None, "bytes */20"),
        ("bytes=-0", 416, None, "bytes */20"),
        ("bytes=0-1,3-4", 200, b"0123456789abcdefghij", None),
        ("bytes=" + "9" * 5000 + "-", 200, b"0123456789abcdefghij", None),
        ("rubbish", 200, b"0123456789abcdefghij", None),
    ],
)
def test_ranges_of_output(site: Site, header: str, status: int, content: bytes | None, content_range: str | None) -> None:
    async def work(site: Site) -> None:
        answer = await site.client.get(f"/sessions/{await ran(site)}/stdout", headers={"range": header})
        assert (answer.status_code, answer.headers.get("content-range")) == (status, content_range)
        assert content is None or answer.content == content

    run(site, work)


def test_output_from_an_offset(site: Site) -> None:
    async def work(site: Site) -> None:
        uuid = await ran(site)
        for offset, content in ((0, b"0123456789abcdefghij"), (15, b"fghij"), (20, b""), (2**70, b"")):
            answer = await site.client.get(f"/sessions/{uuid}/stdout", params={"offset": offset})
            assert (answer.status_code, answer.content) == (200, content)
        assert (await site.client.get(f"/sessions/{uuid}/stderr")).content == b""
        assert (await site.client.get(f"/sessions/{uuid}/stdout", params={"offset": -1})).status_code == 422
        assert (await site.client.get(f"/sessions/{uuid}/stdin")).status_code == 404

    run(site, work)


def test_files_are_listed_and_downloaded_and_nothing_else_is(site: Site) -> None:
    async def work(site: Site) -> None:
        uuid = await ran(site)
        folder = site.store.folder(UUID(uuid))
        deep = folder / "home" / "a b" / "ü?#%"
        deep.mkdir(parents=True)
        (deep / "plot.png").write_bytes(b"a picture")
        (folder / "home" / "secret").symlink_to(site.folder / "lock")
        (folder / "home" / "up").symlink_to("..")
        (folder / "home" / "inside").symlink_to("a b")
        (folder / "other").write_text("not a result")
        base = f"/sessions/{uuid}/files/"
        listed = (await site.client.get(base)).json()["files"]
        assert [item["path"] for item in listed] == ["home/"]
        everything = (await site.client.get(base, params={"deep": True})).json()["files"]
        assert [item["path"] for item in everything] == ["home/a b/ü?#%/plot.png"]
        assert (await site.client.get(everything[0]["url"])).content == b"a picture"
        part = await site.client.get(everything[0]["url"], headers={"range": "bytes=2-4"})
        assert (part.status_code, part.content) == (206, b"pic")
        assert [item["path"] for item in (await site.client.get(f"{base}home/a b/")).json()["files"]] == ["home/a b/ü?#%/"]
        for path in ("home/secret", "home/up/other", "home/up/stdout", "other", "stdout", "..%2F..%2Flock",
                     "%2e%2e/%2e%2e/lock", "home/../../../lock", "home/nothing", "home/%00", "/etc/passwd", "home/..%5c..",
                     "run/fake.json"):  # fmt: skip
            answer = await site.client.get(f"{base}{path}")
            assert answer.status_code == 404, path

    run(site, work)


def test_a_folder_deeper_than_python_recurses_is_listed(site: Site) -> None:
    async def work(site: Site) -> None:
        uuid = await ran(site)
        path = site.store.folder(UUID(uuid)) / "home"
        for _ in range(1200):
            path = path / "d"
            path.mkdir()
        (path / "end").touch()
        listed = (await site.client.get(f"/sessions/{uuid}/files/", params={"deep": True})).json()["files"]
        assert [item["path"].rpartition("/")[2] for item in listed] == ["end"]
        site.store.remove(UUID(uuid))
        assert not site.store.folder(UUID(uuid)).exists()

    run(site, work)


def test_lists_and_their_filters(site: Site) -> None:
    async def work(site: Site) -> None:
        first = await site.take(**asked(duration="PT1M"))
        await site.ask(executable={"kind": "urn:from-mars"})
        middle = site.clock.at(0)
        await site.advance(10)
        await site.ask(**asked())

        async def sessions(**filters: Any) -> list[dict[str, Any]]:
            answer = await site.client.get("/sessions", params=filters)
            assert answer.status_code == 200, answer.text
            return answer.json()["sessions"]  # type: ignore[no-any-return]

        assert [uuid_of(item) for item in await sessions(phase="RUNNING")] == [first]
        assert {item["phase"] for item in await sessions(phase=["RUNNING", "REJECTED"])} == {"RUNNING", "REJECTED"}
        assert len(await sessions(limit=3)) == 3
        assert {item["phase"] for item in await sessions(after=middle)} == {"OFFERED"}
        offersets = (await site.client.get("/offersets")).json()["offersets"]
        assert sorted(item["result"] for item in offersets) == ["NO", "YES", "YES"]
        running = (await site.client.get("/offersets", params={"phase": "RUNNING"})).json()["offersets"]
        assert [uuid_of(item["offers"][0]) for item in running] == [first]
        for wrong in ({"phase": "SLEEPING"}, {"limit": 0}, {"limit": 1001}, {"after": "yesterday"}):
            answer = await site.client.get("/sessions", params=wrong)
            assert (answer.status_code, answer.json()["errors"][0]["path"].split(".")[:2]) == (422, ["query", *wrong])

    run(site, work)


def test_platforms_and_health(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        found = (await site.client.get("/platforms")).json()
        assert [(one["name"], one["reachable"], len(one["nodes"])) for one in found["platforms"]] == [
            ("near", True, 1),
            ("far", False, 0),
        ]
        answer = await site.client.get("/healthz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert (await site.client.get("/openapi.json")).json()["openapi"].startswith("3.1")

    away = platform("far", script={"capacity": {"does": "unreachable"}})
    run(Site(tmp_path, platforms=[platform("near"), away]), work)


def test_a_platform_that_was_never_reached_is_a_reason_of_its_own(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        answer = await site.ask()
        assert answer["result"] == "NO"
        assert answer["meta"]["messages"][0]["kind"].endswith(":no-nodes")

    run(Site(tmp_path, platforms=[platform(script={"capacity": {"does": "unreachable"}})]), work)


def test_the_token(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        token = (site.folder / "token").read_text().strip()
        assert (site.folder / "token").stat().st_mode & 0o777 == 0o600
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {token}"},
            {"authorization": "Bearer ü"},
        ):
            answer = await site.client.get("/sessions", headers={k: v.encode() for k, v in headers.items()})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="execbroker"')
            assert answer.headers["content-type"] == "application/problem+json"
        assert (await site.client.get("/healthz")).status_code == 200
        assert (await site.client.get("/sessions", headers={"authorization": f"bearer {token}"})).status_code == 200

    run(Site(tmp_path, auth={"mode": "token"}), work)


def test_a_token_file_that_is_empty_opens_no_door(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        assert (await site.client.get("/sessions")).status_code == 401
        assert (await site.client.get("/sessions", headers={"authorization": "Bearer "})).status_code == 401
        assert len((site.folder / "token").read_text()) > 30

    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "token").touch()
    run(Site(tmp_path, auth={"mode": "token"}), work)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8080"}, 200),
        ({"host": "evil.example.org"}, 403),
        ({"host": "127.0.0.1.evil.example.org"}, 403),
        ({"host": "[::1"}, 403),
        ({"origin": "https://evil.example.org"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8080"}, 200),
    ],
)
def test_host_and_origin(site: Site, headers: dict[str, str], status: int) -> None:
    async def work(site: Site) -> None:
        answer = await site.client.get("/sessions", headers=headers)
        assert answer.status_code == status

    run(site, work)


def test_direct_runs_at_once_and_a_refused_one_can_be_read(site: Site) -> None:
    async def work(site: Site) -> None:
        session = (await site.client.post("/direct", json=ASK)).json()
        assert session["phase"] == "ACCEPTED"
        await site.advance(1)
        assert await site.phase(session) == "RUNNING"
        refused = await site.client.post("/direct", json={"executable": {"kind": "urn:from-mars"}})
        assert refused.status_code == 400
        assert (await site.show(refused.json()))["phase"] == "FAILED"

    run(site, work)


def test_names_that_are_not_utf8_are_listed_and_can_be_fetched(site: Site) -> None:
    async def work(site: Site) -> None:
        uuid = await ran(site)
        home = site.store.folder(UUID(uuid)) / "home"
        home.mkdir(exist_ok=True)
        (home / os.fsdecode(b"odd\xff\n.txt")).write_bytes(b"odd")
        os.mkfifo(home / "pipe")
        found = (await site.client.get(f"/sessions/{uuid}/files/home/")).json()["files"]
        assert [one["path"] for one in found] == ["home/odd\\xff\n.txt"]
        assert (await site.client.get(found[0]["url"])).content == b"odd"

    run(site, work)


def test_an_offer_that_a_smaller_platform_cannot_keep_is_not_accepted(site: Site) -> None:
    async def work(site: Site) -> None:
        offer = (await site.offers(**asked(4, 8)))[0]
        await site.restart(platforms=[platform(nodes=[{"cores": 2, "memory": 8, "storage": 100}])])
        answer = await site.update(offer, "ACCEPTED")
        assert (answer.status_code, answer.json()["allowed"]) == (409, ["REJECTED"])

    run(site, work)


def test_who_waits_is_answered_when_the_broker_stops(site: Site) -> None:
    async def work(site: Site) -> None:
        uuid = await site.take(**asked())
        waiting = asyncio.create_task(site.client.get(f"/sessions/{uuid}?wait=60&phase=ACCEPTED"))
        await asyncio.sleep(0)
        site.ledger.changes.close()
        assert (await asyncio.wait_for(waiting, 10)).json()["phase"] == "ACCEPTED"

    run(site, work)
