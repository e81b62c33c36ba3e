from execbroker.kinds.amounts import Gibibytes
from execbroker.model.base import Integer, Wire
from execbroker.model.components import COMPUTES, AbstractComputeResource
from execbroker.model.registry import published


class SimpleComputeCores(Wire):
    min: Integer | None = None
    max: Integer | None = None


class SimpleComputeMemory(Gibibytes):
    pass


@COMPUTES.register(published("compute", "simple-compute-resource"))
class SimpleComputeResource(AbstractComputeResource):
    """Cores and memory on one node."""

    cores: SimpleComputeCores | None = None
    memory: SimpleComputeMemory | None = None
