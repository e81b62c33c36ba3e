from execbroker.kinds.amounts import Gibibytes
from execbroker.model.components import STORAGES, AbstractStorageResource
from execbroker.model.registry import published
from execbroker.model.times import DateTime, Duration


class SimpleStorageSize(Gibibytes):
    pass


@STORAGES.register(published("storage", "simple-storage-resource"), "persistent-storage", "simple-storage")
class SimpleStorageResource(AbstractStorageResource):
    """A folder of the session's own.

    Extensions: `lifetime`, how long after the end it is kept; in replies `location`, where its content is listed, and
    `expires`, when it is deleted.
    """

    size: SimpleStorageSize | None = None
    lifetime: Duration | None = None
    location: str | None = None
    expires: DateTime | None = None
