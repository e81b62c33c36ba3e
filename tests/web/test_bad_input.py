"""Whatever is sent: a clear answer, never a 5xx, and nothing left behind."""

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokersite import NOTEBOOK, ManualClock, Site, names

JSON, YAML = {"content-type": "application/json"}, {"content-type": "application/yaml"}
HEAD = "executable: {kind: jupyter-notebook, location: 'https://example.org/a.ipynb'"


def run(site: Site, work: Callable[[Site], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with site:
            await work(site)

    asyncio.run(opened())


def strictly(text: str) -> Any:
    """JSON as RFC 8259 has it: without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


UNREADABLE = {
    "empty": (JSON, b""),
    "truncated": (JSON, b'{"executable": {"kind": "jup'),
    "not-a-number": (JSON, b'{"executable": NaN}'),
    "infinite": (JSON, b'{"executable": {"kind": "a", "x": 1e999}}'),
    "too-many-digits": (JSON, b'{"executable": ' + b"9" * 5000 + b"}"),
    "deep-lists": (JSON, b"[" * 100_000 + b"]" * 100_000),
    "deep-maps": (JSON, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "deeper-than-allowed": (JSON, b'{"a":' * 65 + b"1" + b"}" * 65),
    "half-a-surrogate": (JSON, b'{"executable": {"kind": "jupyter-notebook", "location": "\\ud800"}}'),
    "half-a-surrogate-in-a-name": (JSON, b'{"\\ud800": 1}'),
    "half-a-surrogate-in-bytes": (JSON, b'{"executable": {"kind": "\xed\xa0\x80"}}'),
    "invalid-utf-8": (JSON, b'{"a": "\xff"}'),
    "utf-16": (JSON, '{"a": 1}'.encode("utf-16") + b"\0"),
    "yaml-truncated": (YAML, b"executable: {kind: jupyter"),
    "yaml-deep": (YAML, b"[" * 300_000),
    "yaml-two-documents": (YAML, b"a: 1\n---\nb: 2\n"),
    "yaml-key-twice": (YAML, b"executable: {kind: a, kind: b}"),
    "yaml-of-itself": (YAML, b"&a [*a]"),
    "yaml-invalid-utf-8": (YAML, b"a: \xff"),
    "yaml-nul": (YAML, b"a: \x00"),
    "yaml-list-as-key": (YAML, b"? [a]\n: b\n"),
    "yaml-python": (YAML, b"!!python/object/apply:os.system ['true']"),
    "yaml-bytes": (YAML, f"{HEAD}, parameters: {{a: !!binary gIE=}}}}".encode()),
    "yaml-set": (YAML, b"a: !!set {b}"),
    "yaml-date": (YAML, b"schedule: {requested: {start: !!timestamp 2020-01-01}}"),
    "yaml-no-bool": (YAML, b"executable: !!bool maybe"),
    "yaml-no-float": (YAML, b"executable: !!float ''"),
    "yaml-no-int": (YAML, b"executable: !!int ''"),
    "yaml-infinite": (YAML, b"executable: !!float .inf"),
    "yaml-too-large": (YAML, b"executable: 1e999"),
    "yaml-alias-bomb": (
        YAML,
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(ord("b"), ord("j"))),
    ),
    "yaml-long-text-many-times": (YAML, b"a: &a '" + b"x" * 200_000 + b"'\nb: [" + b"*a," * 5000 + b"]"),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("path", ["/requests", "/direct"])
def test_what_cannot_be_read_is_400(site: Site, name: str, path: str) -> None:
    async def work(site: Site) -> None:
        headers, body = UNREADABLE[name]
        for accept in ("application/json", "application/yaml"):
            answer = await site.client.post(path, content=body, headers={**headers, "accept": accept})
            assert answer.status_code == 400, answer.text
        answer = await site.client.post(path, content=body, headers=headers)
        problem = strictly(answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["title"] == "The body cannot be read"
        assert len(problem["detail"]) < 400
        assert (await site.client.get("/sessions")).json() == {"sessions": []}

    run(site, work)


WRONG = [
    ([], [""]),
    ("text", [""]),
    (None, [""]),
    ({"executable": 7}, ["executable"]),
    ({"executable": {}}, ["executable.kind"]),
    ({"executable": {"kind": None}}, ["executable.kind"]),
    ({"executable": {"kind": {"a": 1}}}, ["executable.kind"]),
    ({"executable": {**NOTEBOOK, "location": 7}}, ["executable.location"]),
    ({"executable": NOTEBOOK, "compute": {"kind": "simple-compute-resource", "cores": {"min": "4"}}}, ["compute.cores.min"]),
    ({"executable": NOTEBOOK, "compute": {"kind": "simple-compute-resource", "cores": {"min": 1.5, "max": True}}},
     ["compute.cores.min", "compute.cores.max"]),
    ({"executable": NOTEBOOK, "data": [{"kind": "simple-data-resource", "location": "x"}, {"location": "y"}, 3]},
     ["data[1].kind", "data[2]"]),
    ({"executable": NOTEBOOK, "schedule": {"requested": {"duration": "soon", "start": "then"}}},
     ["schedule.requested.duration", "schedule.requested.start"]),
    ({"executable": NOTEBOOK, "storage": {"kind": "simple-storage-resource"}}, ["storage"]),
]  # fmt: skip


@pytest.mark.parametrize(("document", "paths"), WRONG)
def test_wrong_types_are_422_with_every_path(site: Site, document: Any, paths: list[str]) -> None:
    async def work(site: Site) -> None:
        body = json.dumps(document)
        for accept in ("application/json", "application/yaml"):
            answer = await site.client.post("/requests", content=body, headers={**JSON, "accept": accept})
            assert answer.status_code == 422, answer.text
        problem = strictly((await site.client.post("/requests", content=body, headers=JSON)).text)
        assert sorted(fault["path"] for fault in problem["errors"]) == sorted(paths)
        assert all(fault["message"] and fault["kind"] for fault in problem["errors"])

    run(site, work)


def no(site: Site, document: dict[str, Any], *reasons: tuple[str, str]) -> None:
    """The request is answered NO, with exactly these reasons, each with its path."""

    async def work(site: Site) -> None:
        answer = await site.client.post("/requests", json=document)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["result"] == "NO"
        assert "offers" not in found or found["offers"] == []
        errors = [item for item in found["meta"]["messages"] if item["level"] == "ERROR"]
        assert {(item["kind"].rpartition(":")[2], item["values"]["path"]) for item in errors} == {*reasons}
        refused = await site.client.post("/direct", json=document)
        assert (refused.status_code, refused.json()["phase"]) == (400, "FAILED")
        kept = await site.client.get(f"/sessions/{refused.json()['meta']['uuid']}")
        assert kept.json()["phase"] == "FAILED"
        assert {*names(kept.json())} >= {name for name, _ in reasons}
        assert site.books.holdings._held == {}

    run(site, work)


def test_no_with_every_reason_at_once(site: Site, clock: ManualClock) -> None:
    storage = {"kind": "simple-storage-resource", "meta": {"name": "same"}, "size": {"min": -1}, "lifetime": "-PT1H"}
    volume = {"kind": "simple-volume-mount", "path": "../../etc", "resource": "nothing"}
    no(
        site,
        {
            "executable": {**NOTEBOOK, "location": None, "requirements": ["numpy", "-r x", "a @ https://b"]},
            "compute": {
                "kind": "simple-compute-resource",
                "cores": {"min": 4, "max": 2},
                "memory": {"min": 0},
                "volumes": [volume, {"kind": "simple-volume-mount"}],
            },
            "storage": [storage],
            "data": [{"kind": "simple-data-resource", "meta": {"name": "same"}, "storage": "other"}],
            "schedule": {"requested": {"duration": "PT0S", "start": f"{clock.at(100)}/{clock.at(10)}"}},
        },
        ("no-location", "executable.location"),
        ("bad-requirement", "executable.requirements[1]"),
        ("requirement-url", "executable.requirements[2]"),
        ("min-above-max", "compute.cores"),
        ("not-positive", "compute.memory.min"),
        ("not-positive", "schedule.requested.duration"),
        ("empty-range", "schedule.requested.start"),
        ("duplicate-name", "data[0].meta.name"),
        ("dangling", "data[0].storage"),
        ("no-source", "data[0]"),
        ("not-positive", "storage[0].size.min"),
        ("not-positive", "storage[0].lifetime"),
        ("dangling", "compute.volumes[0].resource"),
        ("bad-path", "compute.volumes[0].path"),
        ("dangling", "compute.volumes[1].resource"),
    )


def test_unknown_kinds_are_no(site: Site) -> None:
    no(
        site,
        {
            "executable": {"kind": "urn:from-mars"},
            "compute": {"kind": "quantum", "volumes": [{"kind": "wormhole"}]},
            "storage": [{"kind": "tape"}],
            "data": [{"kind": "dream"}],
        },
        *(("unknown-kind", f"{path}.kind") for path in ("executable", "compute", "compute.volumes[0]", "storage[0]", "data[0]")),
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"executable": None}, ("no-executable", "executable")),
        ({"executable": {**NOTEBOOK, "location": "http://[::1"}}, ("no-location", "executable.location")),
        ({"executable": {**NOTEBOOK, "requirements": ["a; " + "(" * 5000]}}, ("bad-requirement", "executable.requirements[0]")),
        ({"schedule": {"requested": {"start": "9999-12-31T23:59:59Z/PT0S"}}}, ("too-far", "schedule.requested.start")),
        ({"schedule": {"requested": {"start": "2001-01-01T00:00:00Z/PT1H"}}}, ("start-is-past", "schedule.requested.start")),
        ({"data": [{"kind": "simple-data-resource", "location": "http://a/b", "size": -5}]}, ("no-source", "data[0]")),
        ({"data": [{"kind": "simple-data-resource", "location": "http://a/b", "size": 10**400}]}, ("no-source", "data[0]")),
        ({"data": [{"kind": "simple-data-resource", "location": "http://[/b"}]}, ("no-source", "data[0]")),
        ({"compute": {"kind": "simple-compute-resource", "cores": {"min": 5}}}, ("too-much-cores", "compute.cores.min")),
    ],
)
def test_one_thing_wrong_is_no(site: Site, changes: dict[str, Any], reason: tuple[str, str]) -> None:
    no(site, {"executable": NOTEBOOK, **changes}, reason)


@pytest.mark.parametrize("number", [2**70, 1e30, 10**4000, -(2**70), 1 << 40])
def test_absurd_amounts_are_no(site: Site, number: float) -> None:
    async def work(site: Site) -> None:
        text = json.dumps({"executable": NOTEBOOK, "compute": {"kind": "simple-compute-resource", "cores": {"min": number}}})
        answer = await site.client.post("/requests", content=text, headers=JSON)
        assert (answer.status_code, answer.json()["result"]) == (200, "NO")

    run(site, work)


def test_what_is_longest_and_farthest_is_answered(site: Site) -> None:
    async def work(site: Site) -> None:
        answer = await site.ask(
            schedule={"requested": {"start": "4999-01-01T00:00:00Z/PT1H", "duration": "P99999Y"}},
            storage=[{"kind": "simple-storage-resource", "lifetime": "P99999Y"}],
        )
        assert answer["result"] == "YES"

    run(site, work)


def test_what_is_read_liberally(site: Site) -> None:
    async def work(site: Site) -> None:
        for headers, body in (
            (JSON, b"\xef\xbb\xbf" + json.dumps({"executable": NOTEBOOK}).encode()),
            (YAML, b"\xef\xbb\xbf" + f"{HEAD}}}".encode()),
            ({"content-type": "application/json; charset=utf-8"}, json.dumps({"executable": NOTEBOOK}).encode()),
            ({}, json.dumps({"executable": NOTEBOOK}).encode()),
            (YAML, f"{HEAD}, parameters: {{a: NO, b: 0o17, c: 1e3, d: 1:30, e: 2020-01-01}}}}".encode()),
        ):
            answer = await site.client.post("/requests", content=body, headers=headers)
            assert (answer.status_code, answer.json()["result"]) == (200, "YES"), answer.text
        read = answer.json()["offers"][0]["executable"]["parameters"]
        assert read == {"a": "NO", "b": 15, "c": 1000, "d": "1:30", "e": "2020-01-01"}

    run(site, work)


FULL = {
    "executable": {
        **NOTEBOOK,
        "meta": {"name": "n", "description": "d"},
        "parameters": {"a": [1, {"b": 2}]},
        "requirements": ["x"],
    },
    "compute": {
        "kind": "simple-compute-resource",
        "cores": {"min": 1, "max": 2},
        "memory": {"min": 1, "max": 2},
        "volumes": [{"kind": "simple-volume-mount", "path": "in", "mode": "rw", "resource": "input"}],
    },
    "storage": [{"kind": "simple-storage-resource", "meta": {"name": "space"}, "size": {"min": 1}, "lifetime": "PT1H"}],
    "data": [{"kind": "simple-data-resource", "meta": {"name": "input"}, "location": "https://a/b", "storage": "space"}],
    "schedule": {"requested": {"duration": "PT1H", "start": "2026-11-20T09:00:00Z/PT4H"}},
    "costs": [{"kind": "simple-minmax-float-cost", "type": "urn:a", "max": 1.5}],
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in items for place in places(child, (*path, key)))]


scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["PT1H", "P9999Y", "-P1D", "9999-12-31T23:59:59Z/P1D", "0001-01-01T00:00:00+14:00/PT1H", "../..", "/",
                       "simple-data-resource", "docker-container", "\0", "http://[", "a" * 3000])
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.just("kind"), inner, max_size=3)
)


def put(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    document = copy.deepcopy(document)
    inside = document
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return document


@settings(max_examples=25)
@given(st.data())
def test_a_document_spoilt_anywhere_is_never_a_5xx(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    changes = data.draw(
        st.lists(st.lists(st.tuples(st.sampled_from(places(FULL)), values), min_size=1, max_size=2), min_size=8, max_size=8)
    )

    async def work(site: Site) -> None:
        for several in changes:
            document: Any = FULL
            for place, value in several:
                document = put(document, place, value) if place in places(document) else document
            for path in ("/requests", "/direct", "/offerset"):
                body = json.dumps(document).encode()
                answer = await site.client.post(path, content=body, headers=JSON)
                assert answer.status_code in {200, 400, 422}, (document, answer.text)
                strictly(answer.text)
            again = await site.client.post("/requests", content=body, headers={**YAML, "accept": "application/yaml"})
            assert again.status_code in {200, 400, 422}
        assert await site.faults() == []

    run(Site(Path(tmp_path_factory.mktemp("spoilt")), ManualClock()), work)


@settings(max_examples=10)
@given(
    st.lists(st.dictionaries(st.sampled_from(["kind", "path", "value", "delta", "units", "x"]), values, max_size=4), max_size=10)
)
def test_any_update_is_never_a_5xx(tmp_path_factory: pytest.TempPathFactory, updates: list[dict[str, Any]]) -> None:
    async def work(site: Site) -> None:
        (offer, *_) = await site.offers()
        for update in updates:
            for change in (update, {"kind": "uri:enum-value-update", "path": "phase", **update}):
                answer = await site.client.post(f"/sessions/{offer['meta']['uuid']}", json=change)
                assert answer.status_code == 422, answer.text

    run(Site(Path(tmp_path_factory.mktemp("updates")), ManualClock()), work)


def test_what_the_platform_has_against_it_comes_with_all_else(site: Site) -> None:
    async def work(site: Site) -> None:
        request = {
            "executable": {"kind": "jupyter-notebook", "location": "http://127.0.0.1/a.ipynb"},
            "compute": {"kind": "simple-compute-resource", "cores": {"min": -1}, "memory": {"min": 9}},
            "data": [{"kind": "simple-data-resource", "location": "http://10.0.0.1/x", "storage": "nowhere"}],
        }
        answer = (await site.client.post("/requests", json=request)).json()
        assert answer["result"] == "NO"
        reasons = [item["kind"].rpartition(":")[2] for item in answer["meta"]["messages"]]
        assert {"not-positive", "dangling"} <= set(reasons)
        assert reasons.count("forbidden-url") == 2  # the notebook's and the data's

    run(Site(site.folder.parent, platforms=[{"name": "here", "type": "local"}]), work)
