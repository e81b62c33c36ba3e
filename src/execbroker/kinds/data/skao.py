from collections.abc import Iterator
from typing import Literal

from execbroker.kinds.data.ivoa import IvoaDataResourceBlock
from execbroker.kinds.naming import safe_name
from execbroker.model.base import Integer, Wire
from execbroker.model.components import DATA, AbstractDataResource
from execbroker.model.registry import published
from execbroker.model.waist import Named, Source


class SkaoChecksumItem(Wire):
    type: str | None = None
    value: str | None = None


class SkaoReplicaItem(Wire):
    rsename: str | None = None
    dataurl: str | None = None


class SkaoDataResourceBlock(Wire):
    namespace: str | None = None
    objectname: str | None = None
    objecttype: Literal["FILE", "CONTAINER", "DATASET"] | None = None
    datasize: Integer | None = None
    checksum: SkaoChecksumItem | None = None
    replicas: list[SkaoReplicaItem] | None = None


@DATA.register(published("data", "skao-data-resource"))
class SkaoDataResource(AbstractDataResource):
    """An object in the SKAO data lake, by the first of its replicas that has an address."""

    ivoa: IvoaDataResourceBlock | None = None
    skao: SkaoDataResourceBlock | None = None

    def sources(self) -> list[Source]:
        block = self.skao or SkaoDataResourceBlock()
        url = next((replica.dataurl for replica in block.replicas or [] if replica.dataurl), None)
        if not url:
            raise ValueError("a SKAO data resource needs a replica with a `dataurl`")
        if block.datasize is not None and not 0 <= block.datasize < 1 << 63:
            raise ValueError("its `datasize` in bytes must be 0 or more, and that of a file")
        checksum = f"{block.checksum.type}:{block.checksum.value}".lower() if block.checksum else None
        return [Source(url, safe_name(block.objectname or url.rpartition("/")[2]), block.datasize, checksum)]

    def names(self) -> Iterator[Named]:
        yield from super().names()
        yield Named("skao", "skao.namespace", (self.skao and self.skao.namespace) or "")
        yield from self.ivoa.names() if self.ivoa else ()
