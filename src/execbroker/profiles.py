from collections import Counter
from typing import Any

from execbroker.model.components import EXECUTABLES
from execbroker.model.waist import Capacity, Launch
from execbroker.platforms.base import Platform

_FORMS = (
    Launch("process", command=("true",)),
    Launch("oci", image="docker.io/library/busybox"),
    Launch("sif", image="docker://docker.io/library/busybox"),
)
UNITS = {"memory": "GiB", "storage": "GiB", "staging": "MB/s", "throughput": "MB/s"}


def profile_of(platform: Platform, capacity: Capacity) -> dict[str, Any]:
    """What programs need to know of a platform to choose among several, before they ask."""
    settings = platform.settings
    counts: Counter[str] = Counter()
    for node in capacity.nodes:
        counts.update(dict(node.accelerators))
    memory = dict(capacity.accelerator_memory)
    forms = {launch.form for launch in _FORMS if not platform.reasons_against(launch, ())}
    found = {
        "executables": sorted(kind for kind, cls in EXECUTABLES.members.items() if getattr(cls, "FORM", None) in forms),
        "accelerators": [{"kind": kind, "count": counts[kind], "memory": memory.get(kind, 0)} for kind in sorted(counts)],
        "performance": settings.performance,
        "throughput": settings.throughput,
        "several_nodes": platform.several_nodes,
        "extendable": platform.extendable,
        "units": UNITS,
    }
    return {name: value for name, value in found.items() if value is not None}
