"""HTTP as RFC 9110 has it: HEAD, OPTIONS, 405, entity tags, replies in gzip."""

import asyncio
import gzip
from typing import Any

import httpx
import pytest

from brokersite import NOTEBOOK, Site, asked, uuid_of
from execbroker.ledger.transaction import Transaction
from execbroker.web.replies import wants_gzip
from people import ADMIN, ALICE, AUTH, BOB, enrol
from processsite import until

ACCEPT = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
LONGER = {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": 1}
PACKED = {"accept-encoding": "gzip"}
BARE = {"accept-encoding": "identity"}
LEFT_OUT = {"x-request-id", "date"}


def headers_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in LEFT_OUT}


async def ran(site: Site) -> str:
    """A session that is over, with what it wrote."""
    session = await site.take(**asked(duration="PT10M"))
    await site.advance(1200)
    assert await site.phase(session) == "COMPLETED"
    return session


def test_head_is_get_without_its_body(site: Site) -> None:
    async def work() -> None:
        async with site:
            session = await ran(site)
            offerset = uuid_of((await site.client.get("/offersets")).json()["offersets"][0])
            (site.store.folder(session) / "home" / "a.txt").write_text("something")
            paths = [f"/sessions/{session}", f"/offersets/{offerset}", f"/components/{session}", f"/sessions/{session}/stdout"]
            paths += [f"/sessions/{session}/files/", f"/sessions/{session}/files/home/a.txt", "/platforms", "/me", "/metrics"]
            paths += ["/sessions", "/offersets", "/healthz", "/login", "/openapi.json", f"/execution/{session}", "/nothing"]
            paths += [f"/sessions/{session}/events?after=1000000", f"/offerset/{offerset}"]
            for path in paths:
                get, head = [await site.client.request(method, path, headers=PACKED) for method in ("GET", "HEAD")]
                if "metrics" in path:  # each look at them is counted there
                    del get.headers["etag"], head.headers["etag"], get.headers["content-length"], head.headers["content-length"]
                assert (head.status_code, headers_of(head)) == (get.status_code, headers_of(get)), path
                assert head.content == b"" or path == "/nothing"
            ranged = await site.client.head(f"/sessions/{session}/files/home/a.txt", headers={"range": "bytes=1-2"})
            assert (ranged.status_code, ranged.headers["content-length"]) == (200, "9")

    asyncio.run(work())


def test_head_of_a_stream_is_its_headers(site: Site) -> None:
    async def work() -> None:
        async with site:
            session = await site.take()
            for path in ("/events", f"/sessions/{session}/events"):
                async with asyncio.timeout(20):
                    head = await site.client.head(path, headers=PACKED)
                assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
                assert "content-encoding" not in head.headers

    asyncio.run(work())


def test_head_and_options_are_for_whom_the_rest_is(site: Site) -> None:
    async def work() -> None:
        site.settings["auth"] = AUTH
        async with site:
            await enrol(site)
            await enrol(site, BOB)
            session = uuid_of(
                (await site.client.post("/requests", json={"executable": NOTEBOOK}, auth=ALICE)).json()["offers"][0]
            )
            path = f"/sessions/{session}"
            got = [(await site.client.head(path, auth=who)).status_code for who in (None, ALICE, BOB, ADMIN)]
            assert got == [401, 200, 403, 200]
            assert [(await site.client.request("OPTIONS", path, auth=who)).status_code for who in (None, BOB)] == [401, 204]
            assert [(await site.client.request(method, "/healthz")).status_code for method in ("HEAD", "OPTIONS")] == [200, 204]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/requests", "OPTIONS, POST"),
        ("/platforms", "GET, HEAD, OPTIONS"),
        ("/sessions/x", "GET, HEAD, OPTIONS, POST"),
        ("/offersets/x", "GET, HEAD, OPTIONS"),
        ("/admin/identities", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_what_an_address_takes(site: Site, path: str, allowed: str) -> None:
    async def work() -> None:
        async with site:
            asked, wrong = [await site.client.request(method, path) for method in ("OPTIONS", "DELETE")]
            assert (asked.status_code, asked.headers["allow"], asked.content) == (204, allowed, b"")
            assert (wrong.status_code, wrong.headers["allow"]) == (405, allowed)
            assert (await site.client.request("OPTIONS", "/nothing")).status_code == 404

    asyncio.run(work())


def test_who_has_it_already_gets_304_until_it_changes(site: Site) -> None:
    async def work() -> None:
        async with site:
            offers = await site.offers()
            session = f"/sessions/{uuid_of(offers[0])}"
            offerset = uuid_of((await site.client.get("/offersets")).json()["offersets"][0])
            offer = uuid_of(offers[0])
            tags = {}
            for path in (session, f"/offersets/{offerset}", f"/components/{offer}", f"/execution/{offer}", "/sessions"):
                tags[path] = tag = (await site.client.get(path, headers=BARE)).headers["etag"]
                for values in (tag, f"W/{tag}", f'"x", {tag}', "*"):
                    again = await site.client.get(path, headers={**BARE, "if-none-match": values})
                    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
                    assert "content-type" not in again.headers
                    assert "Accept" in again.headers["vary"].split(", ")
                for values in ('"x"', tag.strip('"')):
                    assert (await site.client.get(path, headers={**BARE, "if-none-match": values})).status_code == 200
            await site.client.post(session, json=ACCEPT)
            for path, tag in tags.items():
                changed = await site.client.get(path, headers={**BARE, "if-none-match": tag})
                assert (changed.status_code, changed.headers["etag"] == tag) == (200, False)

    asyncio.run(work())


def test_each_representation_has_a_tag_of_its_own(site: Site) -> None:
    async def work() -> None:
        async with site:
            path = f"/sessions/{uuid_of((await site.offers())[0])}"
            wishes = [
                {"accept": f"application/{media}", "accept-encoding": coding}
                for media in ("json", "yaml")
                for coding in ("gzip", "identity")
            ]
            answers = [await site.client.get(path, headers=wish) for wish in wishes]
            tags = [answer.headers["etag"] for answer in answers]
            assert len(set(tags)) == 4
            assert not [tag for tag in tags if tag.startswith("W/")]
            for wish, tag in zip(wishes, tags, strict=True):
                assert (await site.client.get(path, headers={**wish, "if-none-match": tag})).status_code == 304
            other = await site.client.get(path, headers={**wishes[0], "if-none-match": tags[2]})
            assert other.status_code == 200

    asyncio.run(work())


def test_others_see_a_face_with_a_tag_of_its_own(site: Site) -> None:
    async def work() -> None:
        site.settings["auth"] = AUTH | {"public": True}
        async with site:
            await enrol(site)
            asked = await site.client.post("/requests", json={"executable": NOTEBOOK}, auth=ALICE)
            path = f"/sessions/{uuid_of(asked.json()['offers'][0])}"
            mine, theirs = [(await site.client.get(path, auth=who)).headers["etag"] for who in (ALICE, None)]
            assert mine != theirs
            assert (await site.client.get(path, headers={"if-none-match": mine})).status_code == 200
            assert (await site.client.get(path, headers={"if-none-match": theirs})).status_code == 304

    asyncio.run(work())


@pytest.mark.parametrize("what", ["sessions", "offersets", "execution", "offerset"])
def test_who_waits_hears_at_once_of_what_it_does_not_have(site: Site, what: str) -> None:
    async def work() -> None:
        async with site:
            offer = uuid_of((await site.offers())[0])
            offerset = uuid_of((await site.client.get("/offersets")).json()["offersets"][0])
            path = f"/{what}/{offerset if 'offerset' in what else offer}"
            old = {"if-none-match": (await site.client.get(path)).headers["etag"]}
            waiting = asyncio.create_task(site.client.get(f"{path}?wait=60", headers=old))
            await asyncio.sleep(0.05)
            await site.update(offer, "ACCEPTED")
            async with asyncio.timeout(20):
                news = await waiting
                assert news.status_code == 200
                late = await site.client.get(f"{path}?wait=60", headers=old)
            assert (late.status_code, late.headers["etag"]) == (200, news.headers["etag"])

    asyncio.run(work())


def test_who_waits_for_nothing_gets_304(site: Site) -> None:
    async def work() -> None:
        async with site:
            path = f"/sessions/{uuid_of((await site.offers())[0])}"
            tag = (await site.client.get(path)).headers["etag"]
            again = await site.client.get(f"{path}?wait=0.1", headers={"if-none-match": tag})
            assert (again.status_code, again.headers["etag"]) == (304, tag)

    asyncio.run(work())


def test_a_change_may_depend_on_what_there_is(site: Site) -> None:
    async def work() -> None:
        async with site:
            path = f"/sessions/{uuid_of((await site.offers())[0])}"

            async def post(document: Any, **headers: str) -> int:
                found = {name.replace("_", "-"): value for name, value in headers.items()}
                return (await site.client.post(path, json=document, headers=found)).status_code

            yaml = (await site.client.get(path, headers={"accept": "application/yaml"})).headers["etag"]
            tag = (await site.client.get(path, headers=BARE)).headers["etag"]
            assert await post(ACCEPT, if_match=f"W/{tag}") == 412  # only strong ones count (RFC 9110, 13.1.1)
            assert await post(ACCEPT, if_match='"x"') == 412
            assert await post(ACCEPT, if_none_match="*") == 412
            assert await site.phase(path.rpartition("/")[2]) == "OFFERED"
            assert await post(ACCEPT, if_match=f'"x", {yaml}') == 200
            assert await post(LONGER, if_match=tag) == 412
            assert await post(LONGER, if_match="*") == 200

    asyncio.run(work())


def test_of_two_changes_to_the_same_only_one_is_made(site: Site) -> None:
    async def work() -> None:
        async with site:
            path = f"/sessions/{await site.take()}"
            match = {"if-match": (await site.client.get(path)).headers["etag"]}
            answers = await asyncio.gather(*(site.client.post(path, json=LONGER, headers=match) for _ in range(4)))
            assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]

    asyncio.run(work())


def test_a_change_that_comes_too_late_leaves_what_is_written_with_it_alone(site: Site) -> None:
    async def work() -> None:
        async with site:
            path, gate = f"/sessions/{await site.take()}", asyncio.Event()
            match = {"if-match": (await site.client.get(path)).headers["etag"]}

            async def held_up(_transaction: Transaction, _now: int) -> bool:
                return await gate.wait()

            before = asyncio.create_task(site.books.write(held_up))
            shorter = LONGER | {"delta": -1}
            sent = [asyncio.create_task(site.client.post(path, json=shorter, headers=match)) for _ in range(2)]
            sent.append(asyncio.create_task(site.client.post("/requests", json={"executable": NOTEBOOK})))
            await until(lambda: site.books.waiting == len(sent))
            gate.set()
            answers = await asyncio.gather(*sent)
            assert await before
            assert sorted(answer.status_code for answer in answers) == [200, 200, 412]
            assert answers[-1].json()["result"] == "YES"

    asyncio.run(work())


@pytest.mark.postgres
def test_of_two_changes_by_two_brokers_only_one_is_made(site: Site) -> None:
    async def work() -> None:
        async with site, Site(site.folder.parent, site.clock) as other:
            path = f"/sessions/{await site.take()}"
            match = {"if-match": (await site.client.get(path)).headers["etag"]}
            asked = [broker.client.post(path, json=LONGER, headers=match) for broker in (site, other) * 4]
            answers = await asyncio.gather(*asked)
            assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7

    asyncio.run(work())


def test_whose_it_is_comes_before_what_it_is(site: Site) -> None:
    async def work() -> None:
        site.settings["auth"] = AUTH
        async with site:
            await enrol(site)
            await enrol(site, BOB)
            asked = await site.client.post("/requests", json={"executable": NOTEBOOK}, auth=ALICE)
            path = f"/sessions/{uuid_of(asked.json()['offers'][0])}"
            answer = await site.client.post(path, json=ACCEPT, auth=BOB, headers={"if-match": '"x"'})
            assert answer.status_code == 403

    asyncio.run(work())


def test_a_reply_is_packed_for_who_takes_it(site: Site) -> None:
    async def work() -> None:
        async with site:
            async with (
                httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url=site.client.base_url) as client,
                client.stream("GET", "/openapi.json", headers=PACKED) as answer,
            ):
                raw = b"".join([piece async for piece in answer.aiter_raw()])
            plain = await site.client.get("/openapi.json", headers=BARE)
            assert gzip.decompress(raw) == plain.content
            assert (answer.headers["content-encoding"], int(answer.headers["content-length"])) == ("gzip", len(raw))
            assert "content-encoding" not in plain.headers
            asked = await site.client.post("/requests", json={"executable": NOTEBOOK}, headers=PACKED)
            assert (asked.headers["content-encoding"], asked.json()["result"]) == ("gzip", "YES")
            assert [one.headers["vary"] for one in (answer, plain, asked)] == [
                "Accept-Encoding",
                "Accept-Encoding",
                "Accept, Accept-Encoding",
            ]
            small = await site.client.get("/healthz", headers=PACKED)
            assert "content-encoding" not in small.headers

    asyncio.run(work())


def test_what_has_ranges_is_never_packed(site: Site) -> None:
    async def work() -> None:
        async with site:
            session = await ran(site)
            (site.store.folder(session) / "home" / "a.json").write_text("[1]" * 5000)
            for path in (f"/sessions/{session}/files/home/a.json", f"/sessions/{session}/stdout"):
                whole = await site.client.get(path, headers=PACKED)
                assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "bytes")
                assert "content-encoding" not in whole.headers
            part = await site.client.get(f"/sessions/{session}/files/home/a.json", headers={**PACKED, "range": "bytes=3-4"})
            assert (part.status_code, part.content) == (206, b"[1")

    asyncio.run(work())


@pytest.mark.parametrize(
    ("header", "packs"),
    [
        ("gzip", True),
        ("x-gzip", True),
        ("GZIP;q=0.001", True),
        ("br, *", True),
        ("gzip;q=0.5, identity;q=0.5", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("identity, gzip;q=0.5", False),
    ],
)
def test_who_takes_gzip(header: str, packs: bool) -> None:
    assert wants_gzip([header] if header else []) is packs
