"""What a request is understood to mean: defaults, references, ranges."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from brokersite import NOTEBOOK
from execbroker.config import OfferSettings
from execbroker.model.sessions import ExecutionRequest
from execbroker.offers.asking import Plan, understand
from execbroker.offers.sizing import NodeAsk
from execbroker.scheduling.asks import FOREVER, Range, StorageAsk

NOW = 1_800_000_000
READ = TypeAdapter(ExecutionRequest)


def plan_of(**request: Any) -> Plan:
    return understand(READ.validate_python({"executable": NOTEBOOK, **request}), OfferSettings(), NOW)


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"meta": {"name": name}, **more}


def storage(name: str, **more: Any) -> dict[str, Any]:
    return named(name, kind="simple-storage-resource", **more)


def data(name: str, **more: Any) -> dict[str, Any]:
    return named(name, kind="simple-data-resource", location="https://example.org/a.fits", **more)


def compute(**more: Any) -> dict[str, Any]:
    return {"kind": "simple-compute-resource", **more}


def test_defaults() -> None:
    plan = plan_of()
    assert (plan.reasons, plan.warnings) == ([], [])
    assert plan.nodes == [NodeAsk("compute", Range(2, 4), Range(2, 4))]
    assert plan.storages == []
    assert (plan.duration, plan.start) == (1800, (NOW, NOW + 86400))
    assert plan.launch is not None


@pytest.mark.parametrize(
    ("asked", "range_"),
    [
        ({}, Range(2, 4)), ({"min": 3}, Range(3, 6)), ({"max": 1}, Range(1, 1)), ({"max": 3}, Range(2, 3)),
        ({"max": 100}, Range(2, 4)), ({"min": 3, "max": 3}, Range(3, 3)), ({"min": 3, "max": 5}, Range(3, 5)),
        ({"min": 3, "max": 50}, Range(3, 6)), ({"min": 3.0}, Range(3, 6)), ({"min": None, "max": None}, Range(2, 4)),
    ],
)  # fmt: skip
def test_up_to_twice_and_never_beyond_a_maximum(asked: dict[str, Any], range_: Range) -> None:
    plan = plan_of(compute=compute(cores=asked, memory=asked))
    range_ = replace(range_, cap=asked.get("max") or FOREVER)
    assert (plan.reasons, plan.nodes) == ([], [NodeAsk("compute", range_, range_)])


def test_data_without_storage_gets_one_of_its_own() -> None:
    plan = plan_of(data=[data("in"), data("more")], storage=[storage("in-storage")])
    assert [item.name for item in plan.request.storage or []] == ["in-storage", "in-storage-1", "more-storage"]
    assert [item.storage for item in plan.request.data or []] == ["in-storage-1", "more-storage"]
    assert [source.path for _, source in plan.sources] == ["storage/in-storage-1/in/a.fits", "storage/more-storage/more/a.fits"]


def test_references_by_name_and_by_uuid() -> None:
    uuid = "6f1c8a52-9c5e-4c83-8b70-0d8cf1d0a000"
    space = storage("space")
    space["meta"]["uuid"] = uuid
    plan = plan_of(data=[data("in", storage=uuid.upper())], storage=[space])
    assert plan.reasons == []
    assert plan.request.data
    assert plan.request.data[0].storage == "space"


def test_volumes() -> None:
    volumes = [
        {"kind": "simple-volume-mount", "meta": {"name": "in"}},
        {"kind": "simple-volume-mount", "resource": "space", "path": "/abs//path/"},
        {"kind": "simple-volume-mount", "resource": "space", "path": "here", "mode": "ro"},
    ]
    plan = plan_of(data=[data("in", storage="space")], storage=[storage("space")], compute=compute(volumes=volumes))
    assert plan.reasons == []
    assert [(mount.source, mount.readonly) for mount in plan.mounts] == [
        ("storage/space/in", True),
        ("storage/space", False),
        ("storage/space", True),
    ]
    assert plan.mounts[0].path == "volumes/in"


@pytest.mark.parametrize("path", ["", "/", ".", "..", "a/../b", "a\0b", "//"])
def test_paths_that_are_no_place_to_mount_at(path: str) -> None:
    volume = {"kind": "simple-volume-mount", "resource": "space", "path": path}
    plan = plan_of(storage=[storage("space")], compute=compute(volumes=[volume]))
    if path:
        assert [reason.values and reason.values["path"] for reason in plan.reasons] == ["compute.volumes[0].path"]
    else:
        assert [mount.path for mount in plan.mounts] == ["volumes/volume-0"]


def test_two_mounts_at_one_place() -> None:
    volumes = [
        {"kind": "simple-volume-mount", "resource": "space", "path": path} for path in ("a/b", "a//b/", "a/c", "/d", "//d")
    ]
    plan = plan_of(storage=[storage("space")], compute=compute(volumes=volumes))
    assert [(reason.kind or "").rpartition(":")[2] for reason in plan.reasons] == ["same-path", "same-path"]


def test_storage_sizes_and_lifetimes() -> None:
    plan = plan_of(
        storage=[storage("a"), storage("b", size={"min": 5}, lifetime="PT0S"), storage("c", size={"min": 5, "max": 6})]
    )
    assert plan.storages == [
        StorageAsk(Range(1, 2), 86400),
        StorageAsk(Range(5, 10), 0),
        StorageAsk(Range(5, 6, 6), 86400),
    ]


def test_a_range_that_has_begun_starts_now() -> None:
    plan = plan_of(schedule={"requested": {"start": "2001-01-01T00:00:00Z/2031-01-01T00:00:00Z"}})
    assert plan.reasons == []
    assert plan.start[0] == NOW


def test_what_was_understood_otherwise_is_a_warning() -> None:
    plan = plan_of(
        colour="blue",
        executable={**NOTEBOOK, "speed": 9},
        schedule={"requested": {"start": "2031-01-01T00:00:00/PT1H"}, "hint": 1},
    )
    assert plan.reasons == []
    assert {((item.kind or "").rpartition(":")[2], (item.values or {})["path"]) for item in plan.warnings} == {
        ("unknown-field", "colour"),
        ("unknown-field", "executable.speed"),
        ("unknown-field", "schedule.hint"),
        ("no-zone", "schedule.requested.start"),
    }


def test_further_computes_are_named_where_the_first_is_missing() -> None:
    plan = plan_of(further_compute=[compute(colour="blue")])
    assert [(item.values or {})["path"] for item in plan.warnings] == ["compute[1].colour"]


def test_a_list_of_computes_is_one_or_a_reason() -> None:
    assert plan_of(compute=[compute()]).reasons == []
    assert plan_of(compute=[]).reasons == []
    several = plan_of(compute=[compute(), compute(cores={"min": 3}, replicas=2)])
    assert several.reasons == []
    assert [(node.path, node.cores.min) for node in several.nodes] == [("compute[0]", 2), ("compute[1]", 3), ("compute[1]", 3)]


def test_a_thousand_of_everything_is_understood_and_more_is_refused() -> None:
    many = [storage(f"s{n}") for n in range(1000)]
    assert len(plan_of(storage=many, data=[data(f"d{n}", storage=f"s{n}") for n in range(1000)]).sources) == 1000
    assert [reason.values for reason in plan_of(storage=[*many, storage("one-more")]).reasons] == [
        {"path": "storage", "most": "1000"}
    ]
