from collections.abc import Iterator
from typing import Literal
from urllib.parse import quote

from execbroker.kinds.naming import safe_name
from execbroker.model.base import Wire
from execbroker.model.components import DATA, AbstractDataResource
from execbroker.model.registry import published
from execbroker.model.waist import Named, Source


class RucioDataResourceBlock(Wire):
    endpoint: str | None = None
    scope: str | None = None
    object: str | None = None
    type: Literal["FILE", "CONTAINER", "DATASET"] | None = None


@DATA.register(published("data", "rucio-data-resource"))
class RucioDataResource(AbstractDataResource):
    """A file, dataset or container in Rucio."""

    rucio: RucioDataResourceBlock | None = None

    def sources(self) -> list[Source]:
        if not (self.rucio and self.rucio.scope and self.rucio.object):
            raise ValueError("a Rucio data resource needs `rucio.scope` and `rucio.object`")
        return [Source(f"rucio://{self.rucio.scope}/{self.rucio.object}", safe_name(self.rucio.object))]

    def names(self) -> Iterator[Named]:
        block = self.rucio or RucioDataResourceBlock()
        yield Named("data", "rucio.object", f"rucio://{quote(block.scope or '', safe='')}/{quote(block.object or '')}")
        yield Named("rucio", "rucio.scope", f"{block.scope}:{block.object}")
        if block.endpoint:
            yield Named("hosts", "rucio.endpoint", block.endpoint)
