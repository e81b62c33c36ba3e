from execbroker.model.components import DATA, AbstractDataResource
from execbroker.model.registry import published
from execbroker.model.waist import Source


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
