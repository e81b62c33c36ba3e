"""What sessions cost: quotes, tariffs, limits, objectives, extension."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokersite import Site, asked, names, platform, start_of, uuid_of

MONEY, ENERGY, CARBON = (f"urn:ivoa:calycopis:cost:{name}" for name in ("monetary", "energy", "carbon"))
PERFORMANCE, THROUGHPUT = (f"urn:ivoa:calycopis:metric:{name}" for name in ("compute-performance", "io-throughput"))
COST, METRIC = {"kind": "simple-minmax-float-cost"}, {"kind": "simple-minmax-float-metric"}
NIGHT = {"name": "night", "from": "20:00", "until": "06:00", "factor": 0.25}
HOUR, EVENING = 3600, 11 * 3600  # seconds; from nine in the morning until eight in the evening


def tell(folder: Path, story: Callable[[Site], Awaitable[None]], *platforms: dict[str, Any], **offers: Any) -> None:
    async def told() -> None:
        async with Site(folder, platforms=list(platforms), offers={"limit": 1, **offers}) as site:
            await story(site)
            assert await site.faults() == []

    asyncio.run(told())


def priced(name: str = "site", currency: str = "money", **rates: Any) -> dict[str, Any]:
    return platform(name, prices={currency: rates})


def most(document: dict[str, Any], type_: str = MONEY) -> float:
    """What a session or a component costs at most."""
    return next(float(cost["max"]) for cost in document["costs"] if cost["type"] == type_)


def at_most(value: float, type_: str = MONEY) -> list[dict[str, Any]]:
    return [{**COST, "type": type_, "max": value}]


async def first(site: Site, **request: Any) -> dict[str, Any]:
    return (await site.offers(**request))[0]


def hours_until(site: Site, offer: dict[str, Any]) -> float:
    return (start_of(offer) - site.clock.seconds) / HOUR


def test_without_a_price_list_it_is_free_and_says_so(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        offer = await first(site, **asked(2))
        for document in (offer, offer["compute"], await site.show(offer), await site.accept(offer)):
            assert [(cost["type"], cost["description"], cost["min"], cost["max"]) for cost in document["costs"]] == [
                (MONEY, "EUR", 0, 0)
            ]
            assert [(metric["type"], metric["min"], metric["max"]) for metric in document["metrics"]] == [(PERFORMANCE, 2, 2)]
        assert all("costs" not in part for part in (offer["executable"],))

    tell(tmp_path, story, platform())


def test_each_rate_is_charged_for_what_it_is_named_after(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        request = asked(2, 4, "PT2H", replicas_of=None)
        request.pop("replicas_of")
        request["compute"] |= {"replicas": 3, "accelerators": [{"kind": "a100", "count": 1}]}
        request["data"] = [{"kind": "simple-data-resource", "location": "https://example.org/a", "size": 5_000_000_000}]
        request["storage"] = [{"kind": "simple-storage-resource", "size": {"min": 10, "max": 10}, "lifetime": "PT22H"}]
        request["data"][0]["storage"] = "space"
        request["storage"][0]["meta"] = {"name": "space"}
        offer = await first(site, **request)
        compute = 2 * 7 + 2 * 3 * 11 + 2 * 6 * 13 + 2 * 12 * 17 + 2 * 3 * 19  # hour, node, core, GiB, accelerator
        data, storage = 5 * 23, 29 * 10 * 1.073741824  # a day, at the end of which it goes
        (cost,) = offer["costs"]
        assert (cost["type"], cost["description"]) == (MONEY, "CHF")
        assert (cost["min"], cost["max"]) == pytest.approx((data, compute + data + storage))
        (of_compute,) = offer["compute"]["costs"]
        assert (of_compute["min"], of_compute["max"]) == pytest.approx((0, compute))

    rates = {"hour": 7, "node_hour": 11, "core_hour": 13, "gib_hour": 17, "gb_staged": 23, "gb_day": 29}
    nodes = [{"count": 3, "cores": 2, "memory": 4, "storage": 10, "accelerators": [{"kind": "a100"}]}]
    money = {**rates, "accelerator_hour": {"a100": 19, "*": 1000}, "units": "CHF"}
    tell(tmp_path, story, platform(nodes=nodes, prices={"money": money}))


def test_energy_and_carbon_are_quoted_in_their_units(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        found = {cost["type"]: cost for cost in (await first(site, **asked(4, 1, "PT30M")))["costs"]}
        assert {type_: (cost["description"], cost["max"]) for type_, cost in found.items()} == {
            MONEY: ("EUR", 0), ENERGY: ("kWh", 0.5), CARBON: ("kg CO2e", 1.0)
        }  # fmt: skip

    tell(tmp_path, story, platform(prices={"energy": {"core_hour": 0.25}, "carbon": {"node_hour": 2}}))


def test_night_and_day_are_charged_by_the_wall_clock_of_the_zone(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        # Nine o'clock UTC in November is six in the evening in Tokyo: two hours of day, then night.
        for hours, due in ((2, 2), (4, 2 + 2 * 0.25), (13, 2 + 10 * 0.25 + 1)):
            offer = await first(site, **asked(1, 1, f"PT{hours}H", f"{site.clock.at(0)}/PT0S"))
            assert most(offer) == pytest.approx(due)
            await site.update(offer, "REJECTED")

    tell(tmp_path, story, platform(prices={"zone": "Asia/Tokyo", "money": {"hour": 1, "tariffs": [NIGHT]}}))


def test_the_cheapest_is_at_night_and_the_earliest_is_now(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        offers = await site.offers(**asked(1, 1, "PT4H"), objectives=["cheapest", "earliest"])
        found = [(offer["objective"], hours_until(site, offer), most(offer)) for offer in offers]
        assert found == [("cheapest", 11, 1), ("earliest", 0, 4), ("cheapest", 15, 1)]

    tell(tmp_path, story, platform(prices={"money": {"hour": 1, "tariffs": [NIGHT]}}), limit=3)


def test_the_greenest_is_elsewhere(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        for objectives, cost in ((["greenest"], 1), (["cheapest"], 5), ([], 5)):
            offer = await first(site, **asked(1, 1, "PT1H"), **({"objectives": objectives} if objectives else {}))
            assert most(offer, CARBON) == cost
            assert ("objective" in offer) == bool(objectives)
            await site.update(offer, "REJECTED")

    brown, green = priced("brown", "carbon", hour=5), priced("green", "carbon", hour=1)
    brown["prices"]["money"], green["prices"]["money"] = {"hour": 1}, {"hour": 2}
    tell(tmp_path, story, brown, green)


def test_largest_and_longest_and_all_together(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        wishes = ["earliest", "largest", "longest", "cheapest", "greenest"]
        request = {"compute": {"kind": "simple-compute-resource", "cores": {"min": 1}, "memory": {"min": 1}}}
        offers = await site.offers(**request, schedule={"requested": {"duration": "PT1H"}}, objectives=wishes)
        assert [offer["objective"] for offer in offers][:3] == wishes[:3]
        seen = [
            (offer["schedule"]["available"]["start"], str(offer["schedule"]), str(offer["compute"]["cores"])) for offer in offers
        ]
        assert len(set(seen)) == len(seen) <= 10
        by_name = {offer["objective"]: offer for offer in reversed(offers)}
        assert by_name["largest"]["compute"]["cores"]["max"] == 2
        assert by_name["longest"]["schedule"]["available"]["duration"] == "P1D"
        assert all(offer["schedule"]["available"]["duration"] == "PT1H" for offer in offers if offer["objective"] != "longest")

    tell(tmp_path, story, platform(prices={"money": {"hour": 1}}), limit=10)


def test_a_limit_that_is_kept_exactly_is_kept(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        request = asked(3, 1, "PT1H")
        assert most(await first(site, **request, costs=at_most(0.3))) == 0.3  # 3 × 0.1 is a little more than 0.3
        answer = await site.ask(**request, costs=at_most(0.2999))
        assert (answer["result"], names(answer)[0]) == ("NO", "too-dear")

    tell(tmp_path, story, priced(core_hour=0.1))


@pytest.mark.parametrize("type_", [MONEY, "monetary"])
def test_too_dear_says_by_how_much(tmp_path: Path, type_: str) -> None:
    async def story(site: Site) -> None:
        answer = await site.ask(**asked(4, 1, "PT2H"), costs=at_most(5.5, type_))
        reason = next(item for item in answer["meta"]["messages"] if item["level"] == "ERROR")
        assert {name: reason["values"][name] for name in ("path", "due", "missing", "limit", "units")} == {
            "path": "costs[0].max", "due": "8", "missing": "2.5", "limit": "5.5", "units": "EUR"
        }  # fmt: skip
        assert "2.5 more than costs[0].max allows" in reason["message"]

    tell(tmp_path, story, priced(core_hour=1))


def test_each_limit_that_is_too_low_is_named_once(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        costs = [*at_most(5), *at_most(1, CARBON), *at_most(7), *at_most(99), *at_most(0, ENERGY)]
        answer = await site.ask(**asked(4, 1, "PT2H"), costs=costs)
        reasons = [item["values"] for item in answer["meta"]["messages"] if item["level"] == "ERROR"]
        found = sorted((values["path"], values["missing"]) for values in reasons)
        assert found == [("costs[0].max", "3"), ("costs[1].max", "1"), ("costs[2].max", "1")]

    tell(tmp_path, story, platform(prices={"money": {"core_hour": 1}, "carbon": {"hour": 1}}))


def test_limits_that_cannot_be_kept_at_the_same_time_are_named(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        answer = await site.ask(**asked(1, 1, "PT1H"), costs=[*at_most(1), *at_most(1, CARBON)])
        assert (answer["result"], set(names(answer))) == ("NO", {"too-dear", "counter-offer"})

    day_and_night = {"money": {"hour": 4, "tariffs": [NIGHT]}, "carbon": {"hour": 1, "tariffs": [{**NIGHT, "factor": 4}]}}
    tell(tmp_path, story, platform(prices=day_and_night))


def test_a_limit_makes_it_wait_for_the_night_and_no_larger_than_it_may_be(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        request = {"compute": {"kind": "simple-compute-resource", "cores": {"min": 2}, "memory": {"min": 2}}}
        request["schedule"] = {"requested": {"duration": "PT1H"}}
        for limit, hours, cores in ((4, 0, 4), (3, 0, 2), (2, 0, 2), (1, 10 + 2 / 3, 2), (0.5, 11, 2), (1.25, 10.5, 2)):
            offer = await first(site, **request, costs=at_most(limit))
            assert (hours_until(site, offer), offer["compute"]["cores"]["max"]) == (hours, cores), limit
            assert most(offer) <= limit
            await site.update(offer, "REJECTED")

    tell(tmp_path, story, priced(core_hour=1, tariffs=[NIGHT]))


def test_performance_and_throughput(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        offer = await first(site, **asked(2))
        assert {metric["type"]: (metric["description"], metric["min"], metric["max"]) for metric in offer["metrics"]} == {
            PERFORMANCE: ("cores", 5, 5), THROUGHPUT: ("MB/s", 200, 200)
        }  # fmt: skip
        wish = [{**METRIC, "type": PERFORMANCE, "min": 7}, {**METRIC, "type": "io-throughput", "min": 200}]
        offer = await first(site, metrics=wish)
        assert offer["compute"]["cores"]["max"] >= 3
        for low, path, missing in (
            ([{**METRIC, "type": THROUGHPUT, "min": 250}], "metrics[0].min", "50.0"),
            ([{**METRIC, "type": PERFORMANCE, "min": 11}], "metrics[0].min", None),
            ([{**METRIC, "type": PERFORMANCE, "min": 1.5e308}], "metrics[0].min", None),
        ):
            answer = await site.ask(metrics=low)
            reason = next(item["values"] for item in answer["meta"]["messages"] if item["level"] == "ERROR")
            assert (answer["result"], reason["path"], reason.get("missing")) == ("NO", path, missing)
        answer = await site.ask(**asked(2), metrics=[{**METRIC, "type": PERFORMANCE, "min": 11}])
        assert [item["values"]["path"] for item in answer["meta"]["messages"]] == ["metrics[0].min"]

    tell(tmp_path, story, platform(performance=2.5, throughput=200))


@pytest.mark.parametrize("performance", [1e-300, 1e300])
def test_performance_beyond_all_numbers_is_no(tmp_path: Path, performance: float) -> None:
    async def story(site: Site) -> None:
        for least in (1.7e308, -1.7e308, 0.0):
            answer = await site.ask(metrics=[{**METRIC, "type": PERFORMANCE, "min": least}])
            assert answer["result"] == ("NO" if least > 0 else "YES")

    tell(tmp_path, story, platform(performance=performance))


def test_limits_that_nobody_can_check_are_warned_of(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        odd = [{**COST, "type": "urn:beer", "max": 1}, {"kind": "urn:other", "type": MONEY, "max": 0}, {**COST, "max": 0}]
        answer = await site.ask(**asked(), costs=odd, metrics=[{**METRIC, "type": THROUGHPUT, "min": 1}, {**METRIC}])
        assert (answer["result"], names(answer).count("not-checked")) == ("YES", 5)
        assert (await site.ask(**asked(), costs=[{**COST, "type": MONEY}]))["result"] == "YES"  # no maximum
        answer = await site.ask(**asked(), costs=at_most(-1))
        assert (answer["result"], answer["meta"]["messages"][0]["values"]["path"]) == ("NO", "costs[0].max")

    tell(tmp_path, story, priced(hour=0))


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999", "'5'", "[1]", "true"])
def test_costs_that_are_no_numbers_are_refused(tmp_path: Path, value: str) -> None:
    async def story(site: Site) -> None:
        notebook = "executable: {kind: jupyter-notebook, location: 'https://example.org/a.ipynb'}\n"
        for room in ("costs", "metrics"):
            kind = f"simple-minmax-float-{room[:-1]}"
            text = f"{notebook}{room}: [{{kind: {kind}, type: '{MONEY}', min: {value}, max: {value}}}]\n"
            answer = await site.client.post("/requests", content=text, headers={"content-type": "application/yaml"})
            assert answer.status_code in (400, 422), answer.text

    tell(tmp_path, story, priced(hour=1))


@pytest.mark.parametrize("wrong", [5, {"a": 1}, [["earliest"]], [5], [None], True])
def test_objectives_of_a_wrong_type_are_422(tmp_path: Path, wrong: Any) -> None:
    async def story(site: Site) -> None:
        notebook = {"kind": "jupyter-notebook", "location": "https://example.org/a.ipynb"}
        answer = await site.client.post("/requests", json={"executable": notebook, "objectives": wrong})
        assert (answer.status_code, answer.json()["errors"][0]["path"].partition("[")[0]) == (422, "objectives")

    tell(tmp_path, story, priced(hour=1))


def test_objectives_that_nobody_knows_are_no(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        answer = await site.ask(objectives=["earliest", "nicest", "CHEAPEST"])
        assert [item["values"]["path"] for item in answer["meta"]["messages"]] == ["objectives[1]", "objectives[2]"]
        for objectives in ([], ["earliest"] * 500, "largest", None):
            assert (await site.ask(objectives=objectives))["result"] == "YES"

    tell(tmp_path, story, priced(hour=1))


def test_to_be_made_longer_costs_more_and_never_more_than_the_limit(tmp_path: Path) -> None:
    async def extend(site: Site, uuid: str, minutes: int) -> Any:
        update = {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": minutes}
        return await site.client.post(f"/sessions/{uuid}", json=update)

    async def story(site: Site) -> None:
        uuid = await site.take(**asked(2, 1, "PT1H"), costs=at_most(5))
        for minutes, due in ((30, 3), (60, 5), (-90, 2), (-30, 1)):
            answer = await extend(site, uuid, minutes)
            assert answer.status_code == 200, answer.text
            assert (most(answer.json()), most(answer.json()["compute"])) == (due, due)
        await extend(site, uuid, 120)
        answer = await extend(site, uuid, 1)
        assert answer.status_code == 409
        assert "0.0333333 more than its request allows" in answer.json()["detail"]
        assert most(await site.show(uuid)) == 5

    tell(tmp_path, story, priced(core_hour=1))


def test_what_was_quoted_stays_when_prices_change(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        offer, accepted = await first(site, **asked(2, 1, "PT1H")), await site.take(**asked(2, 1, "PT1H"))
        await site.restart(platforms=[priced(core_hour=100)])
        assert (most(await site.show(accepted)), most(await site.accept(uuid_of(offer)))) == (2, 2)
        assert most(await first(site, **asked(2, 1, "PT1H"))) == 200

    tell(tmp_path, story, priced(core_hour=1))


@settings(max_examples=25)
@given(
    rates=st.fixed_dictionaries({"core_hour": st.floats(0, 9), "gib_hour": st.floats(0, 9), "hour": st.floats(0, 9)}),
    factor=st.floats(0, 4), begin=st.integers(0, 23), cores=st.integers(1, 4), minutes=st.integers(1, 900),
    share=st.floats(0, 3),
)  # fmt: skip
def test_the_cheapest_is_no_dearer_than_any_start_and_no_offer_is_above_the_limit(
    rates: dict[str, float], factor: float, begin: int, cores: int, minutes: int, share: float
) -> None:
    tariff = {"from": f"{begin:02}:00", "until": f"{(begin + 7) % 24:02}:00", "factor": factor}

    async def story(site: Site) -> None:
        request = asked(cores, 2 * cores, f"PT{minutes}M")
        cheapest = most(await first(site, **request, objectives=["cheapest"]))
        for hour in range(0, 24, 5):
            request["schedule"]["requested"]["start"] = f"{site.clock.at(hour * HOUR + 7)}/PT0S"
            assert cheapest <= most(await first(site, **request)) * (1 + 1e-8)
        compute = {"kind": "simple-compute-resource", "cores": {"min": cores}, "memory": {"min": 1}}
        limit = cheapest * share
        answer = await site.ask(compute=compute, schedule={"requested": {"duration": f"PT{minutes}M"}}, costs=at_most(limit))
        assert all(most(offer) <= limit * (1 + 1e-8) for offer in answer["offers"])

    nodes = [{"count": 20, "cores": 8, "memory": 8}]
    with TemporaryDirectory() as folder:
        tell(Path(folder), story, platform(nodes=nodes, prices={"money": {**rates, "tariffs": [tariff]}}))
