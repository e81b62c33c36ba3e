from collections.abc import Iterator
from typing import ClassVar

from execbroker.model.base import Integer32, Wire
from execbroker.model.components import EXECUTABLES, AbstractExecutable
from execbroker.model.messages import MessageItem, reason
from execbroker.model.registry import published
from execbroker.model.waist import Form, Launch, Named


class DockerPlatformSpec(Wire):
    architecture: str | None = "amd64"
    os: str | None = "linux"


class DockerImageSpec(Wire):
    locations: list[str] | None = None
    digest: str | None = None
    platform: DockerPlatformSpec | None = None


class DockerInternalPort(Wire):
    port: Integer32 | None = None


class DockerExternalPort(Wire):
    port: Integer32 | None = None
    addresses: list[str] | None = None


class DockerNetworkPort(Wire):
    access: bool | None = None
    internal: DockerInternalPort | None = None
    external: DockerExternalPort | None = None
    protocol: str | None = None
    path: str | None = None


class DockerNetworkSpec(Wire):
    ports: list[DockerNetworkPort] | None = None


@EXECUTABLES.register(published("executable", "docker-container"), "oci-container")
class DockerContainer(AbstractExecutable):
    """An OCI image with its command."""

    FORM: ClassVar[Form] = "oci"
    image: DockerImageSpec | None = None
    privileged: bool | None = False
    command: list[str] | None = None
    entrypoint: str | None = None
    environment: dict[str, str] | None = None
    network: DockerNetworkSpec | None = None

    def reasons_against(self) -> list[MessageItem]:
        against = []
        if not (self.image and self.image.locations):
            against.append(
                reason("no-image", "executable.image.locations", "A container needs at least one image location in {path}")
            )
        if self.privileged:
            against.append(reason("privileged", "executable.privileged", "Privileged containers are never run; leave out {path}"))
        return against

    def names(self) -> Iterator[Named]:
        image = self.image or DockerImageSpec()
        for index, location in enumerate(image.locations or []):
            yield Named("images", f"image.locations[{index}]", location)
            if image.digest:  # by which it may be fetched, too
                yield Named("images", "image.digest", f"{location.partition('@')[0]}@{image.digest}")
        for index, port in enumerate((self.network and self.network.ports) or []):
            for name, number in (("internal", port.internal), ("external", port.external)):
                if number and number.port is not None:
                    yield Named("ports", f"network.ports[{index}].{name}.port", str(number.port))

    def launch(self) -> Launch:
        command = (*([self.entrypoint] if self.entrypoint else []), *(self.command or []))
        return Launch(self.FORM, command, self.environment or {}, image=(self.image or DockerImageSpec()).locations[0])  # type: ignore[index]


@EXECUTABLES.register(published("executable", "singularity-container"), "singular-container", "apptainer-container")
class SingularityContainer(AbstractExecutable):
    """A Singularity or Apptainer image."""

    FORM: ClassVar[Form] = "sif"
    location: str | None = None

    def reasons_against(self) -> list[MessageItem]:
        if self.location:
            return []
        return [reason("no-location", "executable.location", "A Singularity container needs the URL of its image in {path}")]

    def launch(self) -> Launch:
        return Launch(self.FORM, image=self.location)
