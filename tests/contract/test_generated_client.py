import json
from pathlib import Path
from typing import Any

import pytest
from generated import GeneratedClient, for_python
from tools import bundled

from execbroker.kinds.compute import SimpleComputeCores, SimpleComputeMemory, SimpleComputeResource
from execbroker.kinds.data.ivoa import IvoaDataResource, IvoaDataResourceBlock, IvoaObsCoreItem
from execbroker.kinds.data.rucio import RucioDataResource, RucioDataResourceBlock
from execbroker.kinds.data.s3 import S3DataResource
from execbroker.kinds.data.simple import SimpleDataResource
from execbroker.kinds.data.skao import SkaoDataResource, SkaoDataResourceBlock, SkaoReplicaItem
from execbroker.kinds.executables.containers import (
    DockerContainer,
    DockerImageSpec,
    DockerInternalPort,
    DockerNetworkPort,
    DockerNetworkSpec,
    SingularityContainer,
)
from execbroker.kinds.executables.notebook import JupyterNotebook
from execbroker.kinds.storage import SimpleStorageResource, SimpleStorageSize
from execbroker.kinds.volume import SimpleVolumeMount
from execbroker.model.components import (
    AbstractExecutable,
    ComponentMetadata,
    LifecycleSchedule,
    LifecycleStartDurationInstant,
    LifecycleStartDurationInterval,
    SimpleMinMaxFloatCost,
    SimpleMinMaxFloatMetric,
)
from execbroker.model.messages import warning
from execbroker.model.options import EnumValueOption, IntegerDeltaOption, IntegerValueOption, StringValueOption
from execbroker.model.phases import LifecyclePhase, Phase
from execbroker.model.sessions import (
    ExecutionRequest,
    OfferSetResponse,
    ScheduledExecutionSchedule,
    ScheduledExecutionSession,
    ScheduleStartDurationInstant,
    ScheduleStartDurationInterval,
    SimpleSessionConnector,
)
from published import folder

HERE = Path(__file__).parent
UUID = "2e164a1b-7ff6-11ef-8412-4bc36fe2face"


@pytest.fixture(scope="session")
def client() -> GeneratedClient:
    return for_python(bundled(folder()))


def meta(name: str, **more: Any) -> ComponentMetadata:
    url = f"http://127.0.0.1:8000/components/{UUID}"
    return ComponentMetadata.model_validate({"uuid": UUID, "name": name, "url": url, "created": "2026-11-21T09:00:00Z"} | more)


def lifecycle() -> dict[str, Any]:
    instant = LifecycleStartDurationInstant(start="2026-11-21T10:00:00Z", duration="PT5M")
    interval = LifecycleStartDurationInterval(start="2026-11-21T10:05:00Z/PT0S", duration="PT4H")
    schedule = LifecycleSchedule(preparing=instant, available=interval, releasing=instant)
    return {"phase": LifecyclePhase.INITIALIZING, "schedule": schedule}


def executables() -> list[AbstractExecutable]:
    ports = [DockerNetworkPort(access=True, internal=DockerInternalPort(port=8080), protocol="HTTP", path="/lab")]
    return [
        JupyterNotebook(meta=meta("notebook"), location="http://example.org/a.ipynb", **lifecycle()),
        DockerContainer(
            meta=meta("docker"),
            image=DockerImageSpec(locations=["ghcr.io/ivoa/oligia-webtop:1"], digest="sha256:00"),
            command=["run"],
            environment={"MODE": "fast"},
            network=DockerNetworkSpec(ports=ports),
            **lifecycle(),
        ),
        SingularityContainer(meta=meta("sif"), location="http://example.org/a.sif", **lifecycle()),
    ]


def offer(executable: AbstractExecutable) -> ScheduledExecutionSession:
    instant = ScheduleStartDurationInstant(start="2026-11-21T10:00:00Z", duration="PT5M")
    interval = ScheduleStartDurationInterval(start="2026-11-21T10:05:00Z/PT0S", duration="PT4H")
    options = [
        EnumValueOption(path="phase", values=["ACCEPTED", "REJECTED"]),
        IntegerDeltaOption(path="schedule.available.duration", min=0, max=60, units="minutes"),
        IntegerValueOption(path="cores", min=1, max=2),
        StringValueOption(path="name", pattern="^.*$"),
    ]
    ivoa = IvoaDataResourceBlock(ivoid="ivo://example/1", obscore=IvoaObsCoreItem(access_url="http://example.org/o"))
    skao = SkaoDataResourceBlock(objecttype="FILE", datasize=7, replicas=[SkaoReplicaItem(dataurl="http://example.org/s")])
    return ScheduledExecutionSession(
        meta=meta("offer", options=options, messages=[warning("unknown", "colour", "{path} is not known")]),
        phase=Phase.OFFERED,
        expires="2026-11-21T09:05:00Z",
        # Never the kind abstract-cost-item: it is its own subclass, and a generated client reads it for ever.
        costs=[SimpleMinMaxFloatCost(type="urn:ivoa:calycopis:cost:energy", min=0.5, max=2)],
        metrics=[SimpleMinMaxFloatMetric(type="urn:ivoa:calycopis:metric:io-throughput", max=9)],
        executable=executable,
        compute=SimpleComputeResource(
            meta=meta("compute"),
            cores=SimpleComputeCores(min=4, max=8),
            memory=SimpleComputeMemory(min=8, max=16),
            volumes=[SimpleVolumeMount(meta=meta("volume"), path="/my-data", mode="READONLY", resource=UUID)],
            **lifecycle(),
        ),
        storage=[SimpleStorageResource(meta=meta("storage"), size=SimpleStorageSize(min=1), data=[UUID], **lifecycle())],
        data=[
            SimpleDataResource(meta=meta("simple"), location="http://example.org/d", storage=UUID, **lifecycle()),
            S3DataResource(meta=meta("s3"), endpoint="http://example.org", bucket="b", object="o", storage=UUID),
            RucioDataResource(meta=meta("rucio"), rucio=RucioDataResourceBlock(scope="s", object="o", type="DATASET")),
            IvoaDataResource(meta=meta("ivoa"), ivoa=ivoa),
            SkaoDataResource(meta=meta("skao"), ivoa=ivoa, skao=skao),
        ],
        connectors=[SimpleSessionConnector(kind="urn:x", status="PREPARING", protocol="HTTP", location="http://127.0.0.1:1")],
        schedule=ScheduledExecutionSchedule(preparing=instant, available=interval, releasing=instant),
    )


def test_a_generated_client_keeps_every_subclass_of_our_offers(client: GeneratedClient) -> None:
    offerset = OfferSetResponse(meta=meta("offerset"), result="YES", offers=[offer(one) for one in executables()])
    ours = offerset.model_dump(mode="json", exclude_none=True)

    done = client.run(HERE / "reads.py", stdin=offerset.model_dump_json(exclude_none=True))
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)

    offers = theirs["classes"]["offers"]
    assert [one[""] for one in offers] == ["ScheduledExecutionSession"] * 3
    assert [one["executable"][""] for one in offers] == ["JupyterNotebook", "DockerContainer", "SingularityContainer"]
    assert offers[0]["schedule"]["available"][""] == "ScheduleStartDurationInterval"
    assert offers[0]["compute"][""] == "SimpleComputeResource"
    assert offers[0]["compute"]["volumes"][0][""] == "SimpleVolumeMount"
    assert [one[""] for one in offers[0]["storage"]] == ["SimpleStorageResource"]
    kinds = ["SimpleDataResource", "S3DataResource", "RucioDataResource", "IvoaDataResource", "SkaoDataResource"]
    assert [one[""] for one in offers[0]["data"]] == kinds
    assert [one[""] for one in offers[0]["costs"]] == ["SimpleMinMaxFloatCost"]
    options = ["EnumValueOption", "IntegerDeltaOption", "IntegerValueOption", "StringValueOption"]
    assert [one[""] for one in offers[0]["meta"]["options"]] == options
    assert OfferSetResponse.model_validate(theirs["offerset"]) == OfferSetResponse.model_validate(ours)


def test_a_generated_client_builds_a_request_for_a_notebook(client: GeneratedClient) -> None:
    done = client.run(HERE / "reads.py", stdin='{"result": "NO"}')
    assert done.returncode == 0, done.stderr

    request = ExecutionRequest.model_validate(json.loads(done.stdout)["request"])

    assert isinstance(request.executable, JupyterNotebook)
    assert request.executable.location == "http://example.org/a.ipynb"
    assert isinstance(request.compute, SimpleComputeResource)
    assert request.compute.cores == SimpleComputeCores(min=4, max=8)
    assert request.schedule is not None
    assert str(request.schedule.requested.start) == "2026-11-21T10:00:00Z/PT1H"


def test_a_generated_client_cannot_see_the_broker_s_packages(client: GeneratedClient, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import published_client, execbroker")
    done = client.run(script)
    assert "No module named 'execbroker'" in done.stderr
