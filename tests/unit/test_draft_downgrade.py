"""What v1.0 says, as the draft writes it; its offers through the front door are in tests/web/test_draft.py."""

from typing import Any

import pytest

from execbroker.draft.downgrading import Form, downgrade, downgrade_offer, form_of
from execbroker.model.messages import reason
from execbroker.model.registry import published

BASE = "http://127.0.0.1:8082/execution"
UUID = "2c89f536-3fff-48f7-943f-bcc5c3225be7"
SPEC = {"type": "jupyter-notebook", "spec": {"notebook": "https://example.org/a.ipynb"}}
FILE = {"type": "jupyter-notebook", "notebook": {"file": "https://example.org/a.ipynb"}}
S3 = {"type": "uri:amazon-s3-storage"}


def session(**more: Any) -> dict[str, Any]:
    return {
        "kind": published("session", "scheduled-execution-session"),
        "meta": {"uuid": UUID, "url": f"{BASE}/sessions/{UUID}"},
        "phase": "RUNNING",
        "executable": {"kind": published("executable", "jupyter-notebook"), "location": "https://example.org/a.ipynb"},
        **more,
    }


def test_a_live_notebook_has_its_endpoint() -> None:
    """6.2.2; stdout and stderr are not where it is used."""
    live = "http://127.0.0.1:9000/lab?token=t"
    connectors = [
        {"kind": "urn:execbroker:connector:stdout", "protocol": "HTTP", "location": f"{BASE}/stdout"},
        {"kind": "urn:execbroker:connector:http", "protocol": "HTTP", "location": live},
    ]
    spec = {"notebook": "https://example.org/a.ipynb"}
    assert downgrade_offer(session())["job"]["request"]["executable"]["spec"] == spec
    found = downgrade_offer(session(connectors=connectors))
    assert (
        found["job"]["request"]["executable"]["spec"]
        == found["offer"]["request"]["executable"]["spec"]
        == spec | {"endpoint": live}
    )
    assert found["offer"]["href"] == f"{BASE}/offers/{UUID}"


@pytest.mark.parametrize(
    ("phase", "status", "stage"),
    [
        ("INITIAL", "OFFERED", None),
        ("OFFERED", "OFFERED", None),
        ("REJECTED", "REJECTED", None),
        ("EXPIRED", "EXPIRED", None),
        ("WAITING", "ACCEPTED", "WAITING"),
        ("AVAILABLE", "ACCEPTED", "READY"),
        ("FAILED", "ACCEPTED", "FAILED"),
    ],
)
def test_the_status_of_an_offer_and_the_phase_of_a_job(phase: str, status: str, stage: str | None) -> None:
    found = downgrade_offer(session(phase=phase))
    assert (found["offer"]["status"], found.get("job", {}).get("phase")) == (status, stage)


@pytest.mark.parametrize(
    ("request_", "path", "written"),
    [
        ({"executable": SPEC}, "executable.location", "executable.spec.notebook"),
        ({"executable": FILE}, "executable.location", "executable.notebook.file"),
        ({"executable": {"type": "python-program"}}, "executable.location", "executable.location"),
        ({"executable": SPEC}, "executable.kind", "executable.type"),
        ({"executable": SPEC}, "executable", "executable"),
        (
            {"resources": {"compute": [{"spec": {"cores": {"min": 1}}}]}},
            "compute.cores.min",
            "resources.compute[0].spec.cores.min",
        ),
        ({"resources": {"compute": {"cores": {"min": 1}}}}, "compute.cores.min", "resources.compute.cores.min"),
        ({"resources": {"compute": [{"cores": {"requested": {"min": 1}}}]}}, "compute.cores", "resources.compute[0].cores"),
        (
            {"resources": {"compute": [{"cores": {"requested": {"min": 1}}}]}},
            "compute.cores.min",
            "resources.compute[0].cores.requested.min",
        ),
        ({"executable": SPEC}, "compute.volumes[0].kind", "resources.compute[0].spec.volumes[0].type"),
        ({"executable": SPEC}, "storage[0].meta.name", "resources.storage[0].name"),
        ({"resources": {"storage": [S3, {"name": "b"}], "data": [{}]}}, "data[1].location", "resources.storage[0].location"),
        ({"resources": {"storage": [S3, {"name": "b"}], "data": [{}]}}, "storage[0].size.min", "resources.storage[1].size.min"),
        ({"executable": SPEC}, "schedule.requested.duration", "datetime[0].duration.min"),
        ({"executable": SPEC}, "schedule.requested.start", "datetime[0].start"),
        ({"schedule": {"duration": "PT1H"}}, "schedule.requested.start", "schedule.requested.start"),
        ({"executable": SPEC}, "costs[0].max", "costs[0].max"),
    ],
)
def test_a_reason_names_the_place_in_the_request_as_it_was_written(request_: dict[str, Any], path: str, written: str) -> None:
    form = form_of({"request": request_})
    assert form is not None
    why = reason("wrong", path, "There is something wrong at {path}").model_dump(exclude_none=True)
    refusal = {
        "result": "NO",
        "meta": {"uuid": UUID, "url": f"{BASE}/offersets/{UUID}", "messages": [why]},
        "kind": "k",
        "offers": [],
    }
    found = downgrade(refusal, form)
    assert found["response"]["reasons"] == [{"path": written, "text": f"There is something wrong at {written}"}]
    assert "messages" not in found["response"]


def test_the_form_of_the_data_model_is_what_there_is_without_a_request() -> None:
    data_model = {
        "executable": SPEC,
        "resources": {"compute": [{"spec": {"cores": {"min": 1}}}]},
        "datetime": [{"start": "2023-08-14/P1D"}],
    }
    assert form_of({"request": data_model}) == Form()


@pytest.mark.parametrize(
    "document", [{"executable": {"kind": "jupyter-notebook"}}, {"executable": {"kind": "x"}, "compute": [{}]}]
)
def test_v1_has_no_form_of_the_draft(document: Any) -> None:
    assert form_of(document) is None
