from execbroker.kinds.naming import file_name
from execbroker.model.base import Integer
from execbroker.model.components import DATA, AbstractDataResource
from execbroker.model.registry import published
from execbroker.model.waist import Source


@DATA.register(published("data", "simple-data-resource"))
class SimpleDataResource(AbstractDataResource):
    """A file to download.

    Extensions: `checksum` (`sha256:<hex>`), verified after the download; `size` in bytes, believed for estimates and
    enforced.
    """

    location: str | None = None
    checksum: str | None = None
    size: Integer | None = None

    def sources(self) -> list[Source]:
        if not self.location:
            raise ValueError("a data resource needs a `location`, the URL to download")
        if self.size is not None and not 0 <= self.size < 1 << 63:
            raise ValueError("its `size` in bytes must be 0 or more, and that of a file")
        return [Source(self.location, file_name(self.location), self.size, self.checksum)]
