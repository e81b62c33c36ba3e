"""More than one node of cores and memory: accelerators, several nodes, flavours, pools, licences, bandwidth."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from brokersite import Site, asked, names, platform, start_of, uuid_of

COMPUTE = {"kind": "simple-compute-resource"}
STORAGE = {"kind": "simple-storage-resource"}
HALF_HOUR = 1800
GPUS = [{"kind": "a100", "count": 4, "memory": 40}, {"kind": "l4", "count": 2, "memory": 24}]
Story = Callable[[Site], Awaitable[None]]


def tell(folder: Path, story: Story, **settings: Any) -> None:
    """On one platform with these settings, one offer to a request."""

    async def told() -> None:
        async with Site(folder, platforms=[platform(**settings)], offers={"limit": 1}) as site:
            await story(site)
            assert await site.faults() == []

    asyncio.run(told())


def compute(cores: int = 1, **more: Any) -> dict[str, Any]:
    amount = {"min": cores, "max": cores}
    return {**COMPUTE, "cores": amount, "memory": amount, **more}


async def first(site: Site, **request: Any) -> dict[str, Any]:
    return (await site.offers(**request))[0]


async def wait_of(site: Site, **request: Any) -> int:
    """Take the first offer; in how many seconds it starts."""
    accepted = await site.accept(await first(site, **request))
    return start_of(accepted) - site.clock.seconds


async def refusal(site: Site, **request: Any) -> list[dict[str, str]]:
    """The values of every reason for NO."""
    answer = await site.ask(**request)
    assert answer["result"] == "NO", answer
    return [item["values"] for item in answer["meta"]["messages"] if item["level"] == "ERROR"]


def test_accelerators_are_held_with_the_node(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        two = compute(accelerators=[{"kind": "a100", "count": {"min": 2, "max": 2}}])
        offer = await first(site, compute=two)
        assert offer["compute"]["accelerators"] == [{"kind": "a100", "count": {"min": 2, "max": 2}}]
        await site.accept(offer)
        assert await wait_of(site, compute=two) == 0
        assert await wait_of(site, compute=two) == HALF_HOUR
        assert await wait_of(site, compute=compute(accelerators=[{"kind": "l4", "count": 2}])) == 0
        assert await wait_of(site, compute=compute(2)) == 0  # the cores beside them are free

    tell(tmp_path, story, nodes=[{"cores": 8, "memory": 8, "accelerators": GPUS}])


def test_up_to_twice_as_many_accelerators_where_they_are_free(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        for wish, held in (({"min": 1}, 2), ({"min": 1, "max": 1}, 1), ({"min": 3}, 4), (None, 2), (3, 3)):
            count = {} if wish is None else {"count": wish}
            offer = await first(site, compute=compute(accelerators=[{"kind": "a100", **count}]))
            assert offer["compute"]["accelerators"][0]["count"]["max"] == held
            await site.update(offer, "REJECTED")

    tell(tmp_path, story, nodes=[{"cores": 8, "memory": 8, "accelerators": GPUS}])


def test_accelerators_of_any_kind_are_of_one_that_does(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        for wish, kind in (({}, "a100"), ({"kind": "gpu", "memory": {"max": 10}}, "a100"), ({"memory": {"min": 30}}, "a100")):
            offer = await first(site, compute=compute(accelerators=[{"count": 2, **wish}]))
            assert offer["compute"]["accelerators"][0]["kind"] == kind
            await site.update(offer, "REJECTED")
        await wait_of(site, compute=compute(accelerators=[{"kind": "a100", "count": 4}]))
        offer = await first(site, compute=compute(accelerators=[{"count": 2}]))
        assert (offer["compute"]["accelerators"][0]["kind"], start_of(offer)) == ("l4", site.clock.seconds)
        assert await wait_of(site, compute=compute(accelerators=[{"count": 2, "memory": {"min": 30}}])) == HALF_HOUR

    tell(tmp_path, story, nodes=[{"cores": 8, "memory": 8, "accelerators": GPUS}])


@pytest.mark.parametrize("replicas", [2, 30, 256])
def test_many_nodes_with_accelerators_of_any_kind_are_all_of_one_kind(tmp_path: Path, replicas: int) -> None:
    async def story(site: Site) -> None:
        async with asyncio.timeout(5):
            answer = await site.ask(compute=compute(accelerators=[{"count": 1}], replicas=replicas))
        assert answer["result"] == ("YES" if replicas <= 30 else "NO")
        if replicas == 30:  # there are 20 nodes with the one kind, and 40 with the other
            assert answer["offers"][0]["compute"]["accelerators"][0]["kind"] == "l4"

    kinds = [(20, "a100"), (40, "l4")]
    tell(
        tmp_path,
        story,
        nodes=[{"count": n, "cores": 2, "memory": 2, "accelerators": [{"kind": kind, "count": 1}]} for n, kind in kinds],
    )


@pytest.mark.parametrize("wish", [{"kind": "h100"}, {"memory": {"min": 80}}, {"kind": "cores"}, {"kind": "batch cores"}])
def test_accelerators_that_nobody_has_are_no(tmp_path: Path, wish: dict[str, Any]) -> None:
    async def story(site: Site) -> None:
        reasons = await refusal(site, compute=compute(accelerators=[wish]))
        assert [(values["path"], values["known"]) for values in reasons] == [("compute.accelerators", "a100, l4")]

    tell(tmp_path, story, nodes=[{"cores": 8, "memory": 8, "accelerators": GPUS}])


def test_of_several_kinds_that_would_do_the_one_with_enough_is_not_too_much(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await wait_of(site, compute=compute(accelerators=[{"kind": "l4", "count": 3}]))
        only_now = {"requested": {"start": f"{site.clock.at(0)}/PT0S"}}
        reasons = await refusal(site, compute=compute(accelerators=[{"count": 3}]), schedule=only_now)
        assert [values["path"] for values in reasons] == ["schedule.requested.start"]

    gpus = [{"kind": "a100", "count": 1}, {"kind": "l4", "count": 4}]
    tell(tmp_path, story, nodes=[{"cores": 8, "memory": 8, "accelerators": gpus}])


def test_replicas_are_on_different_nodes_at_the_same_time(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        three = compute(4, replicas=3)
        offer = await first(site, compute=three)
        assert offer["compute"]["replicas"] == 3
        assert "further_compute" not in offer
        await site.accept(offer)
        assert await wait_of(site, compute=compute(4)) == HALF_HOUR
        assert await wait_of(site, compute=compute(4, replicas=2)) == HALF_HOUR
        assert await wait_of(site, compute=three) == 2 * HALF_HOUR
        assert [values["path"] for values in await refusal(site, compute=compute(1, replicas=4))] == ["compute"]
        await site.update(offer, "CANCELLED")
        await site.settle()
        assert await wait_of(site, compute=three) == 0

    tell(tmp_path, story, nodes=[{"count": 3, "cores": 4, "memory": 8}])


def test_a_list_of_compute_resources_is_one_session_of_several_nodes(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        head, workers = compute(1, meta={"name": "head"}), compute(4, meta={"name": "workers"}, replicas=2)
        offer = await first(site, compute=[head, workers])
        assert isinstance(offer["compute"], dict)
        assert [part["meta"]["name"] for part in (offer["compute"], *offer["further_compute"])] == ["head", "workers"]
        assert [part["cores"]["max"] for part in (offer["compute"], *offer["further_compute"])] == [1, 4]
        uuids = {part["meta"]["uuid"] for part in (offer, offer["compute"], *offer["further_compute"])}
        assert len(uuids) == 3
        for part in (offer["compute"], *offer["further_compute"]):
            answer = await site.client.get(part["meta"]["url"])
            assert (answer.status_code, answer.json()["meta"]["uuid"]) == (200, part["meta"]["uuid"])
        await site.accept(offer)
        assert await wait_of(site, compute=compute(4)) == HALF_HOUR

    tell(tmp_path, story, nodes=[{"count": 3, "cores": 4, "memory": 8}])


def test_alike_parts_are_equally_large(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await wait_of(site, compute=compute(5))
        offer = await first(site, compute={**COMPUTE, "cores": {"min": 2}, "memory": {"min": 2}, "replicas": 2})
        assert (offer["compute"]["cores"]["max"], offer["compute"]["memory"]["max"]) == (3, 3)

    tell(tmp_path, story, nodes=[{"count": 2, "cores": 8, "memory": 8}])


def test_what_is_mounted_is_on_the_first_node_and_the_others_are_told(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        volumes = [{"kind": "simple-volume-mount", "resource": "out"}]
        storage = [{**STORAGE, "meta": {"name": "out"}}]
        answer = await site.ask(compute=[compute(volumes=volumes), compute(volumes=volumes)], storage=storage)
        assert (answer["result"], names(answer)) == ("YES", ["not-mounted"])
        assert answer["meta"]["messages"][0]["values"]["path"] == "compute[1].volumes"

    tell(tmp_path, story, nodes=[{"count": 2, "cores": 8, "memory": 8, "storage": 10}])


FLAVOURS = [
    {"name": "small", "cores": 2, "memory": 4},
    {"name": "large", "cores": 8, "memory": 32},
    {"name": "gpu", "cores": 4, "memory": 16, "accelerators": [{"kind": "a100", "count": 1, "memory": 40}]},
]
BIG = {"cores": 8, "memory": 32, "accelerators": [{"kind": "a100", "count": 1, "memory": 40}]}


@pytest.mark.parametrize(
    ("wish", "flavour", "cores", "memory"),
    [
        ({}, "small", 2, 4),
        ({"cores": {"min": 1}, "memory": {"min": 1}}, "small", 2, 4),
        ({"memory": {"min": 5}}, "gpu", 4, 16),
        ({"cores": {"min": 5}}, "large", 8, 32),
        ({"accelerators": [{"count": 1}]}, "gpu", 4, 16),
    ],
)
def test_the_smallest_flavour_that_is_enough(tmp_path: Path, wish: dict[str, Any], flavour: str, cores: int, memory: int) -> None:
    async def story(site: Site) -> None:
        part = (await first(site, compute={**COMPUTE, **wish}))["compute"]
        assert (part["flavour"], part["cores"]["max"], part["memory"]["max"]) == (flavour, cores, memory)
        assert part["cores"]["min"] == wish.get("cores", {}).get("min", 2)

    tell(tmp_path, story, nodes=[BIG], flavours=FLAVOURS)


def test_a_flavour_holds_all_of_itself(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        assert [await wait_of(site) for _ in range(5)] == [0, 0, 0, 0, HALF_HOUR]

    tell(tmp_path, story, nodes=[{"cores": 8, "memory": 32}], flavours=FLAVOURS[:1])


def test_no_flavour_is_as_small_as_was_asked_for_at_most(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        reasons = await refusal(site, compute={**COMPUTE, "cores": {"min": 1, "max": 1}, "memory": {"min": 1, "max": 1}})
        assert [values["path"] for values in reasons] == ["compute"]
        reasons = await refusal(site, compute={**COMPUTE, "cores": {"min": 16}})
        assert [(values["path"], values["most"]) for values in reasons] == [("compute.cores.min", "8")]

    tell(tmp_path, story, nodes=[BIG], flavours=FLAVOURS)


def test_storage_of_a_pool_is_shared_by_the_nodes(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        sixty = [{**STORAGE, "size": {"min": 60, "max": 60}, "lifetime": "PT0S"}]
        assert await wait_of(site, storage=sixty) == 0
        assert await wait_of(site, storage=sixty) == HALF_HOUR
        assert await wait_of(site, storage=[{**STORAGE, "size": {"min": 40, "max": 40}, "lifetime": "PT0S"}]) == 0
        two = [{**STORAGE, "size": {"min": 60}}] * 2
        assert [(values["path"], values["most"]) for values in await refusal(site, storage=two)] == [("storage", "100")]

    tell(tmp_path, story, nodes=[{"count": 3, "cores": 8, "memory": 8, "storage": 999}], pools={"storage": 100})


def test_licences_are_held_as_long_as_the_session(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        idl = compute(licences=[{"name": "idl"}])
        assert [await wait_of(site, compute=idl) for _ in range(3)] == [0, 0, HALF_HOUR]
        assert await wait_of(site, compute=compute(licences=[{"name": "idl", "count": 2}])) == 2 * HALF_HOUR
        assert await wait_of(site, compute=compute()) == 0

    tell(tmp_path, story, nodes=[{"count": 3, "cores": 8, "memory": 8}], pools={"licences": {"idl": 2}})


@pytest.mark.parametrize("name", ["storage", "staging", "cores", "memory", "matlab", "", "batch cores"])
def test_what_is_no_licence_cannot_be_had_as_one(tmp_path: Path, name: str) -> None:
    async def story(site: Site) -> None:
        space = [{**STORAGE, "size": {"min": 100, "max": 100}, "lifetime": "PT0S"}]
        reasons = await refusal(site, compute=compute(licences=[{"name": name}]), storage=space)
        assert all(values["path"].startswith("compute.licences") for values in reasons)
        assert [await wait_of(site, storage=space) for _ in range(2)] == [0, HALF_HOUR]

    pools = {"licences": {"idl": 2}, "storage": 100, "staging": 10}
    tell(tmp_path, story, nodes=[{"count": 3, "cores": 8, "memory": 8}], pools=pools)


def test_data_is_staged_within_the_bandwidth_of_the_platform(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        data = [{"kind": "simple-data-resource", "location": "https://example.org/sky.fits", "size": 600_000_000}]
        assert [await wait_of(site, data=data) for _ in range(3)] == [60, 60, 120]  # 10 MB/s each
        assert await wait_of(site, compute=compute()) == 60  # nothing to stage, though it too has to be made ready

    tell(tmp_path, story, nodes=[{"count": 9, "cores": 8, "memory": 8, "storage": 20}], pools={"staging": 25}, preparing="PT1M")


@pytest.mark.parametrize(
    "odd",
    [
        {"replicas": 0}, {"replicas": -1}, {"replicas": 10**9}, {"replicas": 10**400},
        {"accelerators": [{"kind": "a100", "count": -1}]}, {"accelerators": [{"kind": "a100", "count": 0}]},
        {"accelerators": [{"kind": "a100", "count": {"min": 3, "max": 1}}]}, {"accelerators": [{"count": 10**30}]},
        {"accelerators": [{"kind": "a100"}, {"kind": "a100"}]}, {"accelerators": [{"count": 1}] * 999},
        {"accelerators": [{"kind": f"k{n}"} for n in range(999)]}, {"accelerators": [{"memory": {"min": 1, "units": "parsec"}}]},
        {"licences": [{"name": "idl", "count": -3}]}, {"licences": [{"name": "idl", "count": 10**30}]},
        {"licences": [{"name": f"l{n}"} for n in range(999)]}, {"cores": {"min": 10**300}}, {"memory": {"min": -(10**300)}},
    ],
    ids=str,
)  # fmt: skip
def test_odd_sizes_are_no_with_the_path(tmp_path: Path, odd: dict[str, Any]) -> None:
    async def story(site: Site) -> None:
        name = next(iter(odd))
        for wanted, path in (({**COMPUTE, **odd}, f"compute.{name}"), ([COMPUTE, {**COMPUTE, **odd}], f"compute[1].{name}")):
            async with asyncio.timeout(5):
                reasons = await refusal(site, compute=wanted)
            assert reasons
            shared = "compute.licences" if name == "licences" else "compute"  # of all nodes together
            assert all(values["path"].startswith(path) or values["path"] == shared for values in reasons), reasons
        assert await wait_of(site, **asked()) == 0

    pools = {"licences": {"idl": 2}}
    tell(tmp_path, story, nodes=[{"count": 3, "cores": 8, "memory": 8, "accelerators": GPUS}], pools=pools)


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas": "three"}, {"replicas": 1.5}, {"replicas": True}, {"replicas": []}, {"accelerators": {}},
        {"accelerators": [3]}, {"accelerators": [{"count": "two"}]}, {"accelerators": [{"count": True}]},
        {"accelerators": [{"count": [1]}]}, {"accelerators": [{"kind": 3}]}, {"licences": ["idl"]}, {"licences": [{}]},
        {"licences": [{"name": "idl", "count": 0.5}]}, {"licences": [{"name": None}]}, {"licences": "idl"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_types_are_422_with_the_path(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async def story(site: Site) -> None:
        notebook = {"kind": "jupyter-notebook", "location": "https://example.org/a.ipynb"}
        answer = await site.client.post("/requests", json={"executable": notebook, "compute": {**COMPUTE, **wrong}})
        assert answer.status_code == 422, answer.text
        assert all(fault["path"].startswith(f"compute.{next(iter(wrong))}") for fault in answer.json()["errors"]), answer.text

    tell(tmp_path, story, nodes=[{"cores": 8, "memory": 8}])


def test_the_2024_dialect_asks_for_several_nodes_too(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        nodes = [{"name": "head", "cores": {"min": 1, "max": 1}}, {"name": "worker", "cores": {"min": 4, "max": 4}}]
        request = {
            "executable": {"type": "urn:jupyter-notebook-0.1", "notebook": "https://example.org/a.ipynb"},
            "resources": {"compute": nodes},
        }
        answer = (await site.client.post("/offerset", json=request)).json()
        parts = answer["offers"][0]["resources"]["compute"]
        assert [(part["name"], part["cores"]["max"]) for part in parts] == [("head", 1), ("worker", 4)]
        update = {"update": {"type": "uri:enum-value-update", "path": "state", "value": "ACCEPTED"}}
        accepted = await site.client.post(f"/execution/{answer['offers'][0]['uuid']}", json=update)
        assert accepted.status_code == 200
        shown = (await site.client.get(f"/sessions/{answer['offers'][0]['uuid']}")).json()
        assert shown["further_compute"][0]["meta"]["name"] == "worker"
        assert await wait_of(site, compute=compute(4, replicas=2)) == HALF_HOUR

    tell(tmp_path, story, nodes=[{"count": 2, "cores": 4, "memory": 8}])


def test_replies_to_plain_requests_have_nothing_of_all_this(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        answer = await site.ask(compute=compute(), storage=[STORAGE])
        text = str([answer, await site.accept(answer["offers"][0]), await site.show(uuid_of(answer["offers"][0]))])
        for word in ("accelerators", "replicas", "further_compute", "licences", "objective", "urn:execbroker:kind"):
            assert word not in text

    nodes = [{"count": 3, "cores": 8, "memory": 8, "storage": 50, "accelerators": GPUS}]
    tell(tmp_path, story, nodes=nodes, pools={"licences": {"idl": 2}}, prices={"money": {"core_hour": 1}})
