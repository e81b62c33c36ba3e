from collections.abc import Iterator
from urllib.parse import quote

from execbroker.model.components import DATA, AbstractDataResource
from execbroker.model.registry import published
from execbroker.model.waist import Named, Source


@DATA.register(published("data", "S3-data-resource"))
class S3DataResource(AbstractDataResource):
    """An object in an S3 store, or a whole bucket."""

    endpoint: str | None = None
    template: str | None = None
    bucket: str | None = None
    object: str | None = None

    def sources(self) -> list[Source]:
        if not (self.bucket and self.object):
            raise ValueError("an S3 data resource needs a `bucket` and an `object`")
        return [Source(f"s3://{self.bucket}/{self.object}", self.object.rpartition("/")[2])]

    def names(self) -> Iterator[Named]:
        bucket, key = quote(self.bucket or "", safe=""), quote(self.object or "")
        yield Named("data", "object", f"s3://{bucket}/{key}")
        if self.endpoint or not self.template:
            yield Named("endpoints", "endpoint", self.endpoint or "")
        if self.template:
            address = self.template.replace("{bucket}", self.bucket or "").replace("{object}", self.object or "")
            yield Named("endpoints", "template", address)
