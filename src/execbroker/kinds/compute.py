from typing import Any

from pydantic import model_validator

from execbroker.kinds.amounts import Gibibytes
from execbroker.model.base import Integer, Wire
from execbroker.model.components import COMPUTES, AbstractComputeResource
from execbroker.model.registry import published


class SimpleComputeCores(Wire):
    min: Integer | None = None
    max: Integer | None = None


class SimpleComputeMemory(Gibibytes):
    pass


class Count(Wire):
    min: Integer | None = None
    max: Integer | None = None

    @model_validator(mode="before")
    @classmethod
    def _number(cls, document: Any) -> Any:
        """`count: 2` is two, no more."""
        return {"min": document, "max": document} if isinstance(document, int) else document


class Accelerators(Wire):
    """An extension: `count` accelerators of a `kind`, or, where that is `gpu` or left out, of any kind, all the same."""

    kind: str | None = None
    count: Count | None = None
    memory: SimpleComputeMemory | None = None


class Licences(Wire):
    """An extension: so many of a platform's licences, held as long as the session."""

    name: str
    count: Integer = 1


@COMPUTES.register(published("compute", "simple-compute-resource"), "generic-compute")
class SimpleComputeResource(AbstractComputeResource):
    """Cores and memory on one node.

    Extensions: `accelerators` on it; `replicas`, the same on so many nodes at the same time; `licences`; in replies
    `flavour`, the name of the fixed size that it is.
    """

    cores: SimpleComputeCores | None = None
    memory: SimpleComputeMemory | None = None
    accelerators: list[Accelerators] | None = None
    replicas: Integer | None = None
    licences: list[Licences] | None = None
    flavour: str | None = None
