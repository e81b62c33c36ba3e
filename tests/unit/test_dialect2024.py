import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from execbroker.dialect2024 import downgrade, upgrade
from execbroker.kinds.compute import SimpleComputeCores, SimpleComputeResource
from execbroker.kinds.data.simple import SimpleDataResource
from execbroker.kinds.executables.containers import DockerContainer, DockerImageSpec
from execbroker.kinds.executables.notebook import JupyterNotebook
from execbroker.kinds.storage import SimpleStorageResource, SimpleStorageSize
from execbroker.kinds.volume import SimpleVolumeMount
from execbroker.model.components import AbstractExecutable, ComponentMetadata, LifecycleSchedule, LifecycleStartDurationInterval
from execbroker.model.messages import warning
from execbroker.model.options import EnumValueOption, EnumValueUpdate, IntegerDeltaOption, IntegerDeltaUpdate, Update
from execbroker.model.phases import LifecyclePhase, Phase
from execbroker.model.registry import published
from execbroker.model.sessions import (
    ExecutionRequest,
    OfferSetResponse,
    ScheduledExecutionSchedule,
    ScheduledExecutionSession,
    ScheduleStartDurationInstant,
    ScheduleStartDurationInterval,
    SimpleSessionConnector,
)

GOLDEN = Path(__file__).parents[1] / "golden"
TALKS = sorted((GOLDEN / "talks").glob("*.yaml"))
BASE = "http://127.0.0.1:8082"
UUIDS = [f"0000000{n}-65ce-11ef-83e8-cfedc5d0a92e" for n in range(8)]


def dump(model: Any) -> Any:
    return model.model_dump(mode="json", exclude_none=True)


def meta(number: int, name: str | None = None, room: str = "components", **more: Any) -> ComponentMetadata:
    fields = {"uuid": UUIDS[number], "name": name, "url": f"{BASE}/{room}/{UUIDS[number]}", "created": "2024-08-29T06:18:27Z"}
    return ComponentMetadata.model_validate(fields | more)


def session(executable: AbstractExecutable, phase: Phase = Phase.OFFERED) -> ScheduledExecutionSession:
    volume = SimpleVolumeMount(meta=meta(2, "Volume 001"), path="/my-data", mode="READONLY", resource=UUIDS[4])
    instant = ScheduleStartDurationInstant(start="2024-08-29T10:00:00Z", duration="PT5M")
    options = [
        EnumValueOption(path="phase", values=["ACCEPTED", "REJECTED"]),
        IntegerDeltaOption(path="schedule.available.duration", min=-10, max=60, units="minutes"),
    ]
    return ScheduledExecutionSession(
        meta=meta(0, room="sessions", options=options, messages=[warning("unknown", "colour", "{path} is not known here")]),
        phase=phase,
        expires="2024-08-29T06:23:27Z",
        executable=executable,
        compute=SimpleComputeResource(meta=meta(1, "Compute 001"), cores=SimpleComputeCores(min=4, max=8), volumes=[volume]),
        storage=[SimpleStorageResource(meta=meta(3, "results"), size=SimpleStorageSize(min=10240), data=[UUIDS[4]])],
        data=[SimpleDataResource(meta=meta(4, "Resource 001"), location="http://data.example.org/1", storage=UUIDS[3])],
        connectors=[SimpleSessionConnector(kind="urn:x", status="PREPARING", protocol="HTTP", location=f"{BASE}/lab")],
        schedule=ScheduledExecutionSchedule(
            preparing=instant,
            available=ScheduleStartDurationInterval(start="2024-08-29T10:05:00Z/PT0S", duration="PT4H"),
            releasing=instant,
        ),
    )


def notebook() -> JupyterNotebook:
    available = LifecycleStartDurationInterval(start="2024-08-29T10:05:00Z/PT10M", duration="PT4H")
    return JupyterNotebook(
        meta=meta(5, "Test executable"),
        phase=LifecyclePhase.AVAILABLE,
        schedule=LifecycleSchedule(available=available),
        location="http://there.example.org/a.ipynb",
    )


@pytest.mark.parametrize("path", TALKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("wire", ["yaml", "json"])
def test_every_request_of_the_talks_is_understood(path: Path, wire: str) -> None:
    document = yaml.safe_load(path.read_text())
    if wire == "json":
        document = json.loads(json.dumps(document))
    before = json.dumps(document)

    upgraded = upgrade(document)
    request = ExecutionRequest.model_validate(upgraded)

    assert upgrade(upgraded) == upgraded
    assert dump(request) == yaml.safe_load((GOLDEN / "upgraded" / path.name).read_text())
    assert json.dumps(document) == before


def test_the_talks_are_all_there() -> None:
    assert len(TALKS) == 14


@pytest.mark.parametrize(
    "schedule",
    [
        {"requested": {"executing": {"start": "2024-08-29T10:00Z/PT1H", "duration": "PT4H"}}},
        {"requested": {"executing": None, "start": "2024-08-29T10:00Z/PT1H", "duration": "PT4H"}},
        {"requested": {"start": "2024-08-29T10:00ZPT1H", "duration": "PT4H"}},
        {"start": "2024-08-29T10:00ZPT1H", "duration": "P4H"},
        {"executing": {"start": "2024-08-29T10:00Z/T11:00Z"}, "duration": "PT4H"},
    ],
)
def test_the_schedule_in_any_depth(schedule: dict[str, Any]) -> None:
    request = ExecutionRequest.model_validate(upgrade({"schedule": schedule}))
    assert dump(request) == {"schedule": {"requested": {"duration": "PT4H", "start": "2024-08-29T10:00:00Z/PT1H"}}}


@pytest.mark.parametrize(
    ("size", "gib"),
    [
        ({"min": 3}, 3),
        ({"requested": {"min": 2, "units": "TiB"}}, 2048),
        ({"min": 1, "units": "TB"}, 932),
        ({"min": 512, "units": "MiB"}, 1),
        ({"min": 20, "units": "Gi"}, 20),
        ({"min": 1.5, "units": "GiB"}, 2),
        ({"min": 2**31, "units": "B"}, 2),
    ],
)
def test_sizes_become_whole_gib(size: dict[str, Any], gib: int) -> None:
    document = {"resources": {"storage": [{"size": size}], "compute": [{"memory": size}]}}
    request = dump(ExecutionRequest.model_validate(upgrade(document)))
    assert request["storage"][0]["size"] == request["compute"]["memory"] == {"min": gib}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"resources": {"storage": {"size": {"min": 10}}}}, ("storage",)),
        ({"resources": {"compute": [{"cores": {"min": "many"}}]}}, ("compute", "cores", "min")),
        ({"resources": {"compute": [{"volumes": [7]}]}}, ("compute", "volumes", 0)),
        ({"executable": {"notebook": ["a", "b"], "type": "urn:jupyter-notebook-0.1"}}, ("executable", "location")),
        ({"executable": {"notebook": "http://there"}}, ("executable",)),
        ({"executable": {"type": "urn:docker-container-0.1", "image": ["a"]}}, ("executable", "image")),
        ({"executable": "notebook"}, ("executable",)),
        ({"schedule": "soon"}, ("schedule",)),
        ({"schedule": {"requested": "soon"}}, ("schedule", "requested")),
        ({"schedule": {"duration": "long"}}, ("schedule", "requested", "duration")),
    ],
)
def test_what_is_not_understood_is_reported_where_it_stands(document: dict[str, Any], path: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        ExecutionRequest.model_validate(upgrade(document))
    found = [tuple(step for step in error["loc"] if not str(step).startswith("kind=")) for error in caught.value.errors()]
    assert found == [path]


def test_what_the_prototype_had_no_place_for_is_passed_on() -> None:
    resources = {"network": {"ports": [80]}, "compute": [None, {"colour": "red"}], "data": []}
    request = upgrade({"resources": resources, "colour": "blue", "schedule": None})
    kind = published("compute", "simple-compute-resource")
    assert request == {
        "resources": {"network": {"ports": [80]}},
        "compute": {"kind": kind, "colour": "red"},
        "data": [],
        "colour": "blue",
    }


def test_several_nodes_stay_several() -> None:
    request = ExecutionRequest.model_validate(upgrade({"resources": {"compute": [{"name": "a"}, {"name": "b"}]}}))
    assert request.compute is not None
    assert [node.name for node in (request.compute, *(request.further_compute or []))] == ["a", "b"]


@pytest.mark.parametrize("kind", ["uri:enum-value-update", "urn:enum-value-update"])
@pytest.mark.parametrize("path", ["state", "/state", "phase"])
@pytest.mark.parametrize("term", ["kind", "type"])
def test_updates_of_the_state(kind: str, path: str, term: str) -> None:
    document = {term: kind, "path": path, "value": "ACCEPTED"}
    for body in (document, {"update": document}):
        update = TypeAdapter(Update).validate_python(upgrade(body))
        assert isinstance(update, EnumValueUpdate)
        assert (update.path, update.value) == ("phase", "ACCEPTED")


def test_a_bare_state_is_an_update() -> None:
    update = TypeAdapter(Update).validate_python(upgrade({"state": "ACCEPTED"}))
    assert update == EnumValueUpdate(path="phase", value="ACCEPTED")


def test_the_duration_of_a_session_is_updated_by_either_path() -> None:
    document = {"type": "uri:integer-delta-update", "path": "schedule.executing.duration", "delta": 30}
    update = TypeAdapter(Update).validate_python(upgrade(document))
    assert update == IntegerDeltaUpdate(path="schedule.available.duration", delta=30)


def test_an_offerset_as_the_prototype_wrote_it() -> None:
    offerset = OfferSetResponse(meta=meta(6, room="offersets"), result="YES", offers=[session(notebook())])
    assert downgrade(dump(offerset)) == {
        "type": published("offerset", "execution-offerset"),
        "uuid": UUIDS[6],
        "href": f"{BASE}/offerset/{UUIDS[6]}",
        "created": "2024-08-29T06:18:27Z",
        "result": "YES",
        "offers": [downgrade(dump(session(notebook())))],
    }


def test_a_refusal_keeps_its_reasons() -> None:
    refusal = OfferSetResponse(meta=meta(6, room="offersets", messages=[warning("late", "schedule", "late")]), result="NO")
    older = downgrade(dump(refusal))
    assert older["result"] == "NO"
    assert "offers" not in older
    assert older["messages"][0]["type"] == "urn:execbroker:message:late"


def test_a_session_as_the_prototype_wrote_it() -> None:
    older = downgrade(dump(session(notebook())))
    step = {"start": "2024-08-29T10:00:00Z", "duration": "PT5M"}
    assert (older["uuid"], older["href"], older["state"]) == (UUIDS[0], f"{BASE}/execution/{UUIDS[0]}", "OFFERED")
    assert older["expires"] == "2024-08-29T06:23:27Z"
    assert older["schedule"] == {
        "preparing": step,
        "executing": {"start": "2024-08-29T10:05:00Z", "duration": "PT4H"},
        "releasing": step,
    }
    assert older["executable"] == {
        "type": published("executable", "jupyter-notebook"),
        "uuid": UUIDS[5],
        "name": "Test executable",
        "href": f"{BASE}/components/{UUIDS[5]}",
        "created": "2024-08-29T06:18:27Z",
        "state": "READY",
        "schedule": {"executing": {"start": "2024-08-29T10:05:00Z/PT10M", "duration": "PT4H"}},
        "notebook": "http://there.example.org/a.ipynb",
    }
    (compute,), (data,), (storage,) = (older["resources"][family] for family in ("compute", "data", "storage"))
    assert (compute["name"], compute["cores"]) == ("Compute 001", {"min": 4, "max": 8})
    assert (compute["volumes"][0]["name"], compute["volumes"][0]["resource"]) == ("Volume 001", data["uuid"])
    assert (storage["uuid"], storage["size"]) == (data["storage"], {"min": 10240})
    assert older["connectors"][0]["type"] == "urn:x"
    assert [option["path"] for option in older["options"]] == ["state", "schedule.executing.duration"]
    assert older["messages"][0]["message"] == "colour is not known here"
    assert words(older).isdisjoint({"kind", "meta", "phase", "available"})


def words(document: Any) -> set[str]:
    if isinstance(document, list):
        return set().union(*map(words, document))
    return set(document).union(*map(words, document.values())) if isinstance(document, dict) else set()


@pytest.mark.parametrize(("phase", "state"), [(Phase.AVAILABLE, "READY"), (Phase.RUNNING, "RUNNING"), (Phase.FAILED, "FAILED")])
def test_states(phase: Phase, state: str) -> None:
    assert downgrade(dump(session(notebook(), phase)))["state"] == state


@pytest.mark.parametrize(
    ("location", "parts"),
    [
        ("ghcr.io/ivoa/oligia:v1", {"repository": "ghcr.io/ivoa", "image": "oligia", "tag": "v1"}),
        ("localhost:5000/oligia", {"repository": "localhost:5000", "image": "oligia"}),
        ("oligia", {"image": "oligia"}),
        ("ghcr.io/oligia@sha256:00", {"repository": "ghcr.io", "image": "oligia@sha256:00"}),
    ],
)
def test_a_container_there_and_back(location: str, parts: dict[str, str]) -> None:
    container = DockerContainer(image=DockerImageSpec(locations=[location], digest="sha256:00"))
    older = downgrade(dump(session(container)))["executable"]
    assert older == {"type": published("executable", "docker-container"), "digest": "sha256:00", "privileged": False, **parts}
    assert ExecutionRequest.model_validate(upgrade({"executable": older})).executable == container


def test_an_offer_can_be_asked_for_again() -> None:
    offer = dump(session(notebook()))
    again = upgrade(downgrade(offer))
    assert again["executable"]["meta"] == offer["executable"]["meta"]
    assert again["compute"] == offer["compute"]
    assert (again["data"], again["storage"]) == (offer["data"], offer["storage"])
    ExecutionRequest.model_validate(again)


@pytest.mark.parametrize("document", [{"title": "Not found", "status": 404}, [], None, "text", 7])
def test_other_documents_stay_what_they_are(document: Any) -> None:
    assert downgrade(document) == document


TERMS = {name for path in TALKS for name in words(yaml.safe_load(path.read_text()))} | {"state", "path", "kind", "update", "meta"}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["GiB", "state", "PT1H", "", "/"])
ODD = st.recursive(
    LEAVES, lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from(sorted(TERMS)), parts, max_size=5)
)


@given(ODD)
def test_odd_shapes_never_raise_and_are_left_alone(document: Any) -> None:
    before = json.dumps(document)
    json.dumps(upgrade(document))
    assert json.dumps(document) == before
