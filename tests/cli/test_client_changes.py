"""Whatever a broker suggests can be asked for, and is then answered YES."""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execbroker.client import Change, Client, changed, counter_offers
from execbroker.model.sessions import ExecutionRequest
from processsite import Site

NOTEBOOK = {"kind": "jupyter-notebook", "location": "https://example.org/a.ipynb"}
KIND = "simple-compute-resource"
NODE = {"cores": 8, "memory": 32, "storage": 100, "accelerators": [{"kind": "a100", "count": 2, "memory": 80}]}
PLATFORMS = [
    {
        "name": "pool",
        "type": "fake",
        "nodes": [{"count": 2, **NODE}],
        "prices": {"money": {"core_hour": 1}},
        "pools": {"licences": {"idl": 2}},
    },
    {"name": "large", "type": "fake", "nodes": [{"cores": 16, "memory": 64, "storage": 100}]},
]


def compute(cores: Any = None, **more: Any) -> dict[str, Any]:
    return {"kind": KIND, "cores": cores or {"min": 1, "max": 1}, **more}


REQUESTS: dict[str, dict[str, Any]] = {
    "no compute at all": {},
    "compute of nothing": {"compute": None},
    "cores": {"compute": compute({"min": 20})},
    "cores in a list of one": {"compute": [compute({"min": 20, "max": 40})]},
    "the second of a list": {"compute": [compute(), compute({"min": 20})]},
    "one beside the first": {"compute": compute(), "further_compute": [compute(memory={"min": 90})]},
    "memory in other units": {"compute": compute(memory={"min": 200_000, "max": 300_000, "units": "MB"})},
    "accelerators": {"compute": compute(accelerators=[{"kind": "a100", "count": {"min": 5, "max": 6}}])},
    "accelerators as a number": {"compute": compute(accelerators=[{"count": 3}])},
    "licences": {"compute": compute(licences=[{"name": "idl", "count": 3}])},
    "nodes": {"compute": compute(replicas=5)},
    "storage": {"compute": compute(), "storage": [{"kind": "simple-storage-resource", "size": {"min": 300}}]},
    "all at once": {"compute": compute({"min": 99}, memory={"min": 999}, replicas=9)},
    "a platform": {"compute": compute({"min": 12}), "platforms": "pool"},
    "a limit": {
        "compute": compute({"min": 8, "max": 8}),
        "platforms": ["pool"],
        "costs": [{"kind": "simple-minmax-float-cost", "type": "monetary", "max": 0.5}],
    },
    "a time": {"compute": compute(), "schedule": {"requested": {"start": "2020-01-01T00:00:00Z/P1D"}}},
    "a duration": {
        "compute": compute(memory={"min": 40}),
        "platforms": ["large"],
        "schedule": {"requested": {"duration": "PT9H", "start": "2032-01-01T06:00:00Z/PT0S"}},
    },
}
HOPELESS = {"a time"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a broker whose defaults are larger than it can give, with a booking on the larger node."""
    offers = {"cores": 32, "memory": 1, "storage": 150}
    site = Site(tmp_path_factory.mktemp("changes"), {"platforms": PLATFORMS, "offers": offers}).start()
    with Client(folder=site.data) as client:
        busy = {"compute": compute(memory={"min": 60}), "platforms": "large"}
        at = {"schedule": {"requested": {"start": "2032-01-01T12:00:00Z/PT0S"}}}
        client.accept(client.ask({"executable": NOTEBOOK, **busy, **at}).offers[0].meta.uuid)
        yield client
    site.stop()


def ask(client: Client, request: dict[str, Any]) -> Any:
    """The answer, whose offers are given back at once."""
    answer = client.ask(request)
    for offer in answer.offers or []:
        client.reject(offer.meta.uuid)
    return answer


@pytest.mark.parametrize("name", REQUESTS)
def test_every_suggestion_can_be_made_and_is_answered_yes(client: Client, name: str) -> None:
    request = {"executable": NOTEBOOK, **REQUESTS[name]}
    before = deepcopy(request)
    answer = ask(client, request)
    assert answer.result == "NO"
    ways = counter_offers(answer)
    assert bool(ways) == (name not in HOPELESS)
    for way in ways:
        again = ask(client, changed(request, way))
        assert again.result == "YES", (way, [item.message for item in again.meta.messages])
    assert request == before


def test_a_yes_suggests_nothing(client: Client) -> None:
    assert counter_offers(ask(client, {"executable": NOTEBOOK, "compute": compute()})) == []


def test_a_model_is_changed_as_its_document_is() -> None:
    request = ExecutionRequest.model_validate({"executable": NOTEBOOK, "compute": compute({"min": 9})})
    assert changed(request, [Change("compute.cores.min", "4")])["compute"]["cores"]["min"] == 4


def test_what_is_missing_on_the_way_is_added() -> None:
    found = changed({}, [Change("schedule.requested.duration", "PT1H"), Change("compute.cores.min", "2")])
    assert found["schedule"] == {"requested": {"duration": "PT1H"}}
    assert found["compute"] == {"cores": {"min": 2}}


@pytest.mark.parametrize("path", ["", "compute..min", "compute.cores[", "costs[5].max", "storage[99999].size.min", "costs[0]"])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"path|There is no|item of a list"):
        changed({"costs": [{}], "compute": compute()}, [Change(path, "1")])


@pytest.mark.parametrize("request_", [{"compute": "large"}, {"compute": {"cores": "many"}}, {"compute": {"accelerators": {}}}])
def test_a_change_that_does_not_fit_the_request_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not a"):
        changed(request_, [Change("compute.cores.min", "1"), Change("compute.accelerators[0].count.min", "1")])


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.sampled_from(["GB", "MiB", "TB", "k"]))
def test_a_size_in_other_units_is_in_gib_afterwards(most: int, least: int, units: str) -> None:
    request = {"compute": {"memory": {"min": most, "max": most, "units": units}}}
    [memory] = [changed(request, [Change("compute.memory.min", str(least), "GiB")])["compute"]["memory"]]
    assert memory["min"] == least
    assert "units" not in memory
    whole = ExecutionRequest.model_validate({"compute": {"kind": KIND, **request["compute"]}}).compute
    assert memory["max"] == whole.memory.max


@given(st.text())
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    for change in (Change(text, "1"), Change("compute.cores.min", text)):
        with suppress(ValueError):
            changed({"compute": compute()}, [change])
