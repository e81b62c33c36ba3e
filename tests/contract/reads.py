"""Run with the generated client: reads an offerset from stdin, writes what it became, and a request of its own."""

import json
import sys
from typing import Any

from published_client import ExecutionRequest, JupyterNotebook, OfferSetResponse, SimpleComputeCores, SimpleComputeResource
from published_client.models.requested_schedule_block import RequestedScheduleBlock
from published_client.models.requested_schedule_item import RequestedScheduleItem

KINDS = "https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds"


def classes(value: Any) -> Any:
    """The name of the class of every object inside `value`."""
    if isinstance(value, list):
        return [classes(one) for one in value]
    if not hasattr(value, "to_dict"):
        return None
    inside = {name: classes(getattr(value, name)) for name in type(value).model_fields}
    return {"": type(value).__name__, **{name: found for name, found in inside.items() if found}}


def a_request() -> ExecutionRequest:
    return ExecutionRequest(
        executable=JupyterNotebook(kind=f"{KINDS}/executable/jupyter-notebook.yaml", location="http://example.org/a.ipynb"),
        compute=SimpleComputeResource(
            kind=f"{KINDS}/compute/simple-compute-resource.yaml", cores=SimpleComputeCores(min=4, max=8)
        ),
        schedule=RequestedScheduleBlock(
            requested=RequestedScheduleItem(duration="PT4H", start="2026-11-21T10:00:00Z/2026-11-21T11:00:00Z")
        ),
    )


offerset = OfferSetResponse.from_json(sys.stdin.read())
result = {"offerset": offerset.to_dict(), "classes": classes(offerset), "request": a_request().to_dict()}
sys.stdout.write(json.dumps(result, default=str))
