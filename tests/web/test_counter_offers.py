"""A counter-offer is true: with the change it names the answer is YES, and with a little less of it NO."""

import asyncio
import copy
import re
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokersite import MORNING, NOTEBOOK, ManualClock, Site, asked, names, platform, start_of
from execbroker.model.times import format_duration, parse_duration

COMPUTE = "simple-compute-resource"
STORAGE = "simple-storage-resource"
COST = {"kind": "simple-minmax-float-cost", "type": "monetary"}
Document = dict[str, Any]
Set = list[dict[str, str]]


def messages(answer: Document, level: str) -> list[dict[str, str]]:
    return [item["values"] for item in answer["meta"].get("messages", []) if item["level"] == level]


def counter_offers(answer: Document) -> list[Set]:
    """The values of the counter-offers, those of one set together."""
    found = [item["values"] for item in answer["meta"].get("messages", []) if item["kind"].endswith(":counter-offer")]
    return [list(group) for _, group in groupby(found, key=lambda values: values["set"])]


def changed(request: Document, *changes: dict[str, str]) -> Document:
    """A request with these fields as they are to become: all that a program has to know of counter-offers."""
    request = copy.deepcopy(request)
    for change in changes:
        *parents, last = [int(step) if step.isdigit() else step for step in re.findall(r"\w+", change["path"])]
        place: Any = request
        for step in parents:
            place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
        value: Any = change["value"]
        if last in ("min", "max", "count", "replicas"):
            value = float(value) if "costs" in parents or "metrics" in parents else int(value)
        place[last] = value
    return request


async def answered(site: Site, request: Document) -> Document:
    """The answer; what is offered is let go at once."""
    answer = await site.ask(**request)
    for offer in answer.get("offers", []):
        assert (await site.update(offer, "REJECTED")).status_code == 200
    return answer


def nearer(request: Document, change: dict[str, str]) -> dict[str, str] | None:
    """A little less of a change; None where that is no change at all."""
    path, value = change["path"], change["value"]
    if path.endswith("duration"):
        return {**change, "value": format_duration(parse_duration(value) + timedelta(seconds=1))}
    if path.startswith("costs"):
        return {**change, "value": str(float(value) * (1 - 1e-4))} if float(value) else None
    if path.endswith("start"):
        first = request["schedule"]["requested"].get("start", f"{MORNING}/P1D").partition("/")[0]
        last = datetime.fromisoformat(value.partition("/")[0]) - timedelta(seconds=1)
        return {**change, "value": f"{first}/{last.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    return {**change, "value": str(int(value) + 1)} if path.endswith(("min", "count", "replicas")) else None


@st.composite
def ranges(draw: st.DrawFn, most: int) -> Document:
    least = draw(st.integers(1, most))
    return {"min": least, **({"max": least + draw(st.integers(0, 4))} if draw(st.booleans()) else {})}


@st.composite
def accelerators(draw: st.DrawFn, kinds: tuple[str, ...] = ("a100", "l4")) -> list[Document]:
    return [
        {"kind": kind, "count": draw(st.integers(1, 3)), "memory": 40}
        for kind in draw(st.lists(st.sampled_from(kinds), unique=True, max_size=2))
    ]


@st.composite
def price_lists(draw: st.DrawFn) -> Document:
    tariff = {"name": "night", "from": "20:00", "until": "06:00", "factor": draw(st.sampled_from([0.1, 0.5, 3]))}
    money = {"core_hour": draw(st.sampled_from([0.0123457, 0.1, 1])), "hour": draw(st.sampled_from([0, 1 / 3]))}
    money |= {"gb_day": draw(st.sampled_from([0, 0.07])), "accelerator_hour": {"a100": 2.5, "*": 0.6}}
    lists: Document = {"money": {**money, **({"tariffs": [tariff]} if draw(st.booleans()) else {})}}
    return lists | ({"carbon": {"node_hour": 0.37, "tariffs": [{**tariff, "factor": 4}]}} if draw(st.booleans()) else {})


@st.composite
def platforms(draw: st.DrawFn, name: str) -> Document:
    size = st.fixed_dictionaries(
        {"count": st.integers(1, 3), "cores": st.integers(2, 8), "memory": st.integers(4, 32), "storage": st.integers(0, 60)}
    )
    nodes = [{**draw(size), "accelerators": draw(accelerators())} for _ in range(draw(st.integers(1, 2)))]
    more: Document = {"release": draw(st.sampled_from(["PT0S", "PT7S"])), "preparing": draw(st.sampled_from(["PT0S", "PT90S"]))}
    if draw(st.integers(0, 3)):
        more["pools"] = {"licences": {"idl": 2}, **draw(st.sampled_from([{}, {"storage": 30}]))}
    if draw(st.booleans()):
        more["prices"] = draw(price_lists())
    if draw(st.integers(0, 3)) == 0:
        sizes = [("s", 1, 2), ("m", 2, 4), ("l", 4, 8)]
        more["flavours"] = [{"name": name, "cores": cores, "memory": memory} for name, cores, memory in sizes]
    if draw(st.integers(0, 3)) == 0:
        more["kept"] = [{"share": 0.5, "from": "09:00", "until": "18:00"}]
    return platform(name, nodes=nodes, **more)


@st.composite
def requests(draw: st.DrawFn, largest: int) -> Document:
    compute = [draw(computes(largest)) for _ in range(draw(st.sampled_from([1, 1, 1, 2])))]
    duration = draw(st.integers(1, 300)) * draw(st.sampled_from([1, 60, 600]))
    requested: Document = {"duration": format_duration(timedelta(seconds=duration))}
    if draw(st.booleans()):
        opens = datetime.fromisoformat(MORNING) + timedelta(seconds=draw(st.integers(0, 40000)))
        length = draw(st.sampled_from(["PT0S", "PT1M", "PT3H"]))
        requested["start"] = f"{opens:%Y-%m-%dT%H:%M:%SZ}/{length}"
    request: Document = {"compute": compute[0] if len(compute) == 1 else compute, "schedule": {"requested": requested}}
    if draw(st.booleans()):
        storages = st.builds(lambda size, kept: {"kind": STORAGE, "size": size, "lifetime": kept}, ranges(30), st.just("PT1H"))
        request["storage"] = draw(st.lists(storages, min_size=1, max_size=2))
    if draw(st.booleans()):
        request["costs"] = [{**COST, "max": draw(st.sampled_from([0, 0.05, 1.0, 7]))}]
        request["costs"] += [{**COST, "type": "carbon", "max": draw(st.sampled_from([0, 0.3, 2]))}] * draw(st.integers(0, 1))
    if draw(st.booleans()):
        wishes = st.sampled_from(["earliest", "largest", "longest", "cheapest", "greenest"])
        request["objectives"] = draw(st.lists(wishes, min_size=1, max_size=2))
    requested["flexible"] = draw(st.booleans())
    return request | ({"platforms": ["one"]} if draw(st.integers(0, 3)) == 0 else {})


@st.composite
def computes(draw: st.DrawFn, largest: int) -> Document:
    compute: Document = {"kind": COMPUTE, "cores": draw(ranges(largest)), "memory": draw(ranges(2 * largest))}
    if draw(st.integers(0, 4)) == 4:
        wished = draw(st.sampled_from([["a100"], ["l4"], ["gpu"], ["a100", "l4"]]))
        compute["accelerators"] = [{"kind": kind, "count": draw(ranges(3))} for kind in wished]
    if draw(st.integers(0, 2)) == 2:
        compute["replicas"] = draw(st.integers(1, 4))
    if draw(st.integers(0, 5)) == 5:
        compute["licences"] = [{"name": "idl", "count": draw(st.integers(1, 3))}]
    return compute


async def check(site: Site, request: Document) -> int:
    """How many counter-offers were tried."""
    answer = await answered(site, request)
    if answer["result"] == "YES":
        return 0
    reasons = messages(answer, "ERROR")
    assert reasons
    assert all(reason["path"] for reason in reasons), answer
    said = [item["message"] for item in answer["meta"]["messages"]]
    assert len(said) == len(set(said)), answer
    for found in counter_offers(answer):
        await true(site, request, found)
    return len(counter_offers(answer))


async def true(site: Site, request: Document, found: Set) -> None:
    """At once, and later where its start is still to come; and less of it would not do."""
    accepted = await answered(site, changed(request, *found))
    assert accepted["result"] == "YES", (request, found, accepted)
    less = nearer(request, found[0]) if len(found) == 1 else None
    if less is not None:
        refused = await answered(site, changed(request, less))
        assert refused["result"] == "NO", (request, found, less)
    seconds, first = 11, start_of(accepted["offers"][0]) - site.clock.seconds
    if first > seconds + 100:
        site.clock.advance(seconds)
        again = await answered(site, changed(request, *found))
        site.clock.step(-seconds)
        assert again["result"] == "YES", (request, found, again)


@settings(max_examples=25)
@given(st.data())
def test_what_is_suggested_does_it_and_less_would_not(data: st.DataObject) -> None:
    pools = [data.draw(platforms(name)) for name in ("one", "two")[: data.draw(st.integers(1, 2))]]
    booked = data.draw(st.lists(requests(4), min_size=2, max_size=8))
    wanted = data.draw(st.lists(requests(6), min_size=2, max_size=4))

    async def story() -> None:
        with TemporaryDirectory() as folder:
            async with Site(Path(folder), ManualClock(), platforms=pools, offers={"limit": 1}) as site:
                for request in booked:
                    if offers := (await site.ask(**request)).get("offers"):
                        await site.accept(offers[0])
                for request in wanted:
                    await check(site, request)

    asyncio.run(story())


def tell(folder: Path, request: Document, expected: list[list[tuple[str, str]]], *platforms: Document, **more: Any) -> None:
    """That these are the counter-offers, each of them true."""

    async def told() -> None:
        async with Site(folder, platforms=list(platforms), offers={"limit": 1, **more.get("offers", {})}) as site:
            for booked in more.get("booked", []):
                await site.take(**booked(site) if callable(booked) else booked)
            answer = await site.ask(**request)
            assert answer["result"] == "NO", answer
            assert [[(one["path"], one["value"]) for one in found] for found in counter_offers(answer)] == expected
            for found in counter_offers(answer):
                await true(site, request, found)

    asyncio.run(told())


START, LENGTH = "schedule.requested.start", "schedule.requested.duration"


def test_fewer_cores(tmp_path: Path) -> None:
    tell(tmp_path, asked(9), [[("compute.cores.min", "4")]], platform())


def test_all_that_would_do_alone(tmp_path: Path) -> None:
    """The node is taken from ten to twelve, but for a core."""
    request = asked(2, 1, "PT2H", f"{MORNING}/PT30M")
    block = asked(3, 1, "PT2H", "2026-11-20T10:00:00Z/PT0S")
    alone = [[("compute.cores.min", "1")], [(LENGTH, "PT1H")], [(START, "2026-11-20T12:00:00Z/PT1H")]]
    tell(tmp_path, request, alone, platform(), booked=[block])


def test_the_nearest_together_where_none_would_do_alone(tmp_path: Path) -> None:
    tell(tmp_path, asked(9, 99), [[("compute.cores.min", "4"), ("compute.memory.min", "8")]], platform())


def test_in_a_list_by_the_place_in_the_list(tmp_path: Path) -> None:
    small, large = asked(1)["compute"], asked(9)["compute"]
    pair = platform(nodes=[{"count": 2, "cores": 4, "memory": 8}])
    tell(tmp_path / "one", {"compute": [large]}, [[("compute[0].cores.min", "4")]], pair)
    tell(tmp_path / "two", {"compute": [small, large]}, [[("compute[1].cores.min", "4")]], pair)
    many = {"compute": [{**small, "replicas": 5}, large]}
    tell(tmp_path / "many", many, [[("compute[1].cores.min", "4"), ("compute[0].replicas", "1")]], pair)


def test_a_request_without_compute_gets_one_with_its_kind(tmp_path: Path) -> None:
    kind = "https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/compute/simple-compute-resource.yaml"
    small = platform(nodes=[{"cores": 1, "memory": 8}])
    tell(tmp_path, {}, [[("compute.kind", kind), ("compute.cores.min", "1")]], small)


@pytest.mark.parametrize(("count", "field"), [(3, "count"), ({"min": 3}, "count.min"), ({"min": 3, "max": 3}, "count")])
def test_fewer_accelerators_as_they_were_written(tmp_path: Path, count: Any, field: str) -> None:
    request = {"compute": {**asked()["compute"], "accelerators": [{"kind": "l4", "count": count}]}}
    site = platform(nodes=[{"cores": 4, "memory": 8, "accelerators": [{"kind": "l4", "count": 2}]}])
    tell(tmp_path, request, [[(f"compute.accelerators[0].{field}", "2")]], site)


def test_fewer_licences_and_replicas(tmp_path: Path) -> None:
    request = {"compute": {**asked()["compute"], "licences": [{"name": "idl", "count": 3}]}}
    tell(tmp_path / "a", request, [[("compute.licences[0].count", "2")]], platform(pools={"licences": {"idl": 2}}))
    request = {"compute": {**asked()["compute"], "replicas": 3}}
    tell(tmp_path / "b", request, [[("compute.replicas", "1")]], platform())


def test_less_storage(tmp_path: Path) -> None:
    request = {"storage": [{"kind": STORAGE, "size": {"min": size}} for size in (30, 80)]}
    tell(tmp_path, request, [[("storage[0].size.min", "20")], [("storage[1].size.min", "70")]], platform())


def test_another_platform_than_was_named(tmp_path: Path) -> None:
    request = {**asked(6), "platforms": ["small", "nowhere"]}
    large = platform("large", nodes=[{"cores": 8, "memory": 8}])
    tell(tmp_path, request, [[("compute.cores.min", "4")], [("platforms", "large")]], platform("small"), large)


def test_only_nowhere_was_named(tmp_path: Path) -> None:
    tell(tmp_path, {**asked(), "platforms": ["nowhere"]}, [[("platforms", "site")]], platform())


@pytest.mark.parametrize("rate", [0.1, 1 / 3, 0.12345649, 123.4564999, 98765.4321, 1e-7, 2e9])
def test_what_it_costs_rounded_up(tmp_path: Path, rate: float) -> None:
    """Six digits that were rounded to the nearest would be too few where they were rounded down."""

    async def story() -> None:
        async with Site(tmp_path, platforms=[platform(prices={"money": {"core_hour": rate}})]) as site:
            request = {**asked(1, 1, "PT1H"), "costs": [{**COST, "max": 0}]}
            (dear,) = [found for found in counter_offers(await site.ask(**request)) if found[0]["path"] == "costs[0].max"]
            assert rate <= float(dear[0]["value"]) <= rate * 1.00001
            await true(site, request, dear)

    asyncio.run(story())


def test_of_several_limits_only_those_that_are_too_low(tmp_path: Path) -> None:
    prices = {"money": {"core_hour": 1}, "carbon": {"hour": 3}}
    carbon = {**COST, "type": "carbon"}
    half, quarter = [("compute.cores.min", "2")], [(LENGTH, "PT30M")]
    first = {**asked(4, 1, "PT1H"), "costs": [{**carbon, "max": 5}, {**COST, "max": 2}]}
    tell(tmp_path / "one", first, [half, quarter, [("costs[1].max", "4")]], platform(prices=prices))
    twice = {**asked(4, 1, "PT1H"), "costs": [{**COST, "max": 3}, {**carbon, "max": 5}, {**COST, "max": 2}, {**COST, "max": 9}]}
    tell(tmp_path / "twice", twice, [half, quarter, [("costs[0].max", "4"), ("costs[2].max", "4")]], platform(prices=prices))
    both = {**asked(4, 1, "PT1H"), "costs": [{**COST, "max": 3}, {**carbon, "max": 1}]}
    tell(tmp_path / "both", both, [[(LENGTH, "PT20M")], [("costs[0].max", "4"), ("costs[1].max", "3")]], platform(prices=prices))


def test_with_flavours_the_sizes_that_there_are(tmp_path: Path) -> None:
    flavours = [{"name": "s", "cores": 2, "memory": 4}, {"name": "l", "cores": 8, "memory": 16}]
    site = platform(nodes=[{"cores": 32, "memory": 64}], flavours=flavours)
    tell(tmp_path, {"compute": {"kind": COMPUTE, "cores": {"min": 20}}}, [[("compute.cores.min", "8")]], site)


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        ({"compute": {"kind": COMPUTE, "cores": {"min": 3, "max": 1}}}, "compute.cores"),
        ({"data": [{"kind": "simple-data-resource", "location": "https://a.org/b", "storage": "lost"}]}, "data[0].storage"),
        ({"schedule": {"requested": {"start": "2001-01-01T00:00:00Z/PT1H"}}}, "schedule.requested.start"),
        ({"schedule": {"requested": {"duration": "PT0S"}}}, "schedule.requested.duration"),
        ({"executable": {"kind": "docker-container", "privileged": True}}, "executable.privileged"),
    ],
)
def test_what_stands_in_the_request_itself_has_no_counter_offer(tmp_path: Path, request_: Document, path: str) -> None:
    async def story() -> None:
        async with Site(tmp_path) as site:
            answer = await site.ask(**request_)
            assert (answer["result"], counter_offers(answer)) == ("NO", [])
            assert path in [reason["path"] for reason in messages(answer, "ERROR")]

    asyncio.run(story())


def test_what_nobody_has_at_all_has_none_either(tmp_path: Path) -> None:
    async def story() -> None:
        async with Site(tmp_path) as site:
            for wish in ({"accelerators": [{"kind": "h100"}]}, {"licences": [{"name": "matlab"}]}):
                answer = await site.ask(compute={**asked()["compute"], **wish})
                assert (answer["result"], counter_offers(answer)) == ("NO", [])
                assert messages(answer, "ERROR")

    asyncio.run(story())


IMPOSSIBLE: dict[str, Document] = {
    "everything": {
        "compute": [
            {"kind": COMPUTE, "cores": {"min": 10**9}, "memory": {"min": 10**9}, "replicas": 30, "accelerators": [{"count": 99}]},
            {"kind": COMPUTE, "cores": {"min": 50}, "licences": [{"name": "idl", "count": 10**9}]},
        ],
        "storage": [{"kind": STORAGE, "size": {"min": 10**9}}] * 3,
        "schedule": {"requested": {"duration": "P3000D"}},
        "costs": [{**COST, "max": 0}, {**COST, "type": "carbon", "max": 0}],
    },
    "busy": asked(8, 1, "P30D", f"{MORNING}/PT1H"),
    "too dear": {**asked(4, 4, "P2D"), "costs": [{**COST, "max": 0.01}], "objectives": ["longest", "largest", "cheapest"]},
    "many nodes": {"compute": {**asked(8)["compute"], "replicas": 256, "accelerators": [{"count": 1}]}},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_is_impossible_in_many_ways_is_no(tmp_path: Path, name: str) -> None:
    """On 20 nodes with 400 sessions."""
    gpus = [{"kind": "a100", "count": 2}, {"kind": "l4", "count": 2}]
    nodes = [{"count": 20, "cores": 8, "memory": 32, "storage": 100, "accelerators": gpus}]
    night = [{"from": "20:00", "until": "06:00", "factor": 0.5}]
    prices = {"money": {"core_hour": 1, "tariffs": night}, "carbon": {"hour": 1, "tariffs": night}}

    async def story() -> None:
        site = platform(nodes=nodes, prices=prices, pools={"licences": {"idl": 2}})
        async with Site(tmp_path, platforms=[site], offers={"limit": 1}) as desk:
            for number in range(20):
                document = {"executable": NOTEBOOK, **asked(1 + number % 7, 1, f"PT{20 + number}M")}
                answers = await asyncio.gather(*(desk.client.post("/direct", json=document) for _ in range(20)))
                assert {answer.status_code for answer in answers} <= {200, 400}
            answer = await desk.ask(**IMPOSSIBLE[name])
            assert answer["result"] == "NO"
            assert names(answer)

    asyncio.run(story())
