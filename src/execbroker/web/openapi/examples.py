"""The examples of our OpenAPI: what clients may send, and what they may be told."""

from typing import Any

NOTEBOOK = {"kind": "jupyter-notebook", "location": "https://example.org/analysis.ipynb"}
KINDS = "https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds"
REQUESTS: dict[str, Any] = {
    "notebook": {
        "summary": "A notebook, some time today",
        "value": {
            "executable": {"kind": f"{KINDS}/executable/jupyter-notebook.yaml", "location": "https://example.org/analysis.ipynb"},
            "compute": {
                "kind": f"{KINDS}/compute/simple-compute-resource.yaml",
                "cores": {"min": 2, "max": 4},
                "memory": {"min": 4},
            },
            "schedule": {"requested": {"duration": "PT2H"}},
        },
    },
    "cheapest": {
        "summary": "Within two days, as soon and as cheap as possible; the bare names of kinds do as well",
        "value": {
            "executable": NOTEBOOK,
            "schedule": {"requested": {"duration": "PT30M", "flexible": True}},
            "objectives": ["earliest", "cheapest"],
        },
    },
}
UPDATES: dict[str, Any] = {
    "accept": {"value": {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}},
    "cancel": {"value": {"kind": "uri:enum-value-update", "path": "phase", "value": "CANCELLED"}},
    "extend": {
        "value": {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": 30, "units": "minutes"}
    },
}
OF_BODIES: dict[str, dict[str, Any]] = {
    "ExecutionRequest": REQUESTS,
    "DirectExecution": REQUESTS,
    "SessionUpdate": UPDATES,
    "IdentityCreate": {"new": {"value": {"username": "alice", "password": "a long sentence of hers", "groups": ["survey"]}}},
    "IdentityUpdate": {"disable": {"value": {"disabled": True}}},
}
PROBLEM = {
    "type": "about:blank",
    "title": "The document does not fit the schema",
    "status": 422,
    "detail": "1 fault in the document",
    "errors": [{"path": "compute.cores.min", "kind": "int_type", "message": "Input should be a valid integer", "input": "four"}],
}
REFUSED = {
    "kind": f"{KINDS}/offerset/execution-offerset.yaml",
    "meta": {
        "uuid": "2e164a1b-7ff6-11ef-8412-4bc36fe20000",
        "messages": [
            {
                "kind": "urn:execbroker:message:too-large",
                "level": "ERROR",
                "template": "{path} asks for {asked}, and the most there is is {most}",
                "values": {"path": "compute.cores.min", "asked": "64", "most": "32"},
                "message": "compute.cores.min asks for 64, and the most there is is 32",
            }
        ],
    },
    "result": "NO",
}
OF_REPLIES: dict[tuple[str, str], dict[str, Any]] = {
    ("ExecutionRequest", "200"): {"refused": {"summary": "Why not", "value": REFUSED}},
    ("Health", "200"): {"here": {"value": {"status": "ok"}}},
}
