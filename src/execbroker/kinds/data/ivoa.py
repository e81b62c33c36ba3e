from collections.abc import Iterator

from execbroker.kinds.naming import file_name
from execbroker.model.base import Integer32, Uri, Wire
from execbroker.model.components import DATA, AbstractDataResource
from execbroker.model.registry import published
from execbroker.model.waist import Named, Source


class IvoaObsCoreItem(Wire):
    """A row of ObsCore."""

    obs_id: str | None = None
    obs_collection: str | None = None
    obs_publisher_did: str | None = None
    obs_creator_did: str | None = None
    dataproduct_type: str | None = None
    calib_level: Integer32 | None = 0
    access_url: str | None = None
    access_format: str | None = None


class IvoaDataLinkItem(Wire):
    """A row of DataLink."""

    ID: str | None = None
    access_url: str | None = None
    service_def: str | None = None
    error_message: str | None = None
    description: str | None = None
    semantics: str | None = None
    content_type: str | None = None
    content_length: Integer32 | None = None
    content_qualifier: str | None = None
    local_semantics: str | None = None
    link_auth: str | None = None
    link_authorized: str | None = None


class IvoaDataResourceBlock(Wire):
    ivoid: Uri | None = None
    obscore: IvoaObsCoreItem | None = None
    datalink: IvoaDataLinkItem | None = None

    def access_url(self) -> str | None:
        """Where the file itself is, as far as the metadata say."""
        rows = (self.datalink, self.obscore)
        return next((row.access_url for row in rows if row and row.access_url), None)

    def names(self) -> Iterator[Named]:
        """Its identifiers, or that it has none."""
        ids = {
            "ivoa.ivoid": self.ivoid,
            "ivoa.obscore.obs_publisher_did": self.obscore and self.obscore.obs_publisher_did,
            "ivoa.datalink.ID": self.datalink and self.datalink.ID,
        }
        yield from [Named("ivoids", path, text) for path, text in ids.items() if text] or [Named("ivoids", "ivoa.ivoid", "")]


@DATA.register(published("data", "ivoa-data-resource"))
class IvoaDataResource(AbstractDataResource):
    """A dataset of the Virtual Observatory, by the access URL of its DataLink or ObsCore row."""

    ivoa: IvoaDataResourceBlock | None = None

    def sources(self) -> list[Source]:
        url = self.ivoa.access_url() if self.ivoa else None
        if not url:
            raise ValueError("an IVOA data resource needs an `access_url` in `ivoa.datalink` or `ivoa.obscore`")
        return [Source(url, file_name(url))]

    def names(self) -> Iterator[Named]:
        yield from super().names()
        yield from self.ivoa.names() if self.ivoa else ()
