from typing import Annotated, Literal

from pydantic import BeforeValidator

from execbroker.model.components import VOLUMES, AbstractVolumeMount
from execbroker.model.registry import published

_MODES = {"RW": "READWRITE", "WRITE": "READWRITE", "R": "READONLY", "RO": "READONLY", "READ": "READONLY"}


def _mode(value: object) -> object:
    return _MODES.get(value.upper(), value.upper()) if isinstance(value, str) else value


@VOLUMES.register(published("volume", "simple-volume-mount"), "filesystem-mount")
class SimpleVolumeMount(AbstractVolumeMount):
    """`resource`, a storage or data resource by name or uuid, is a folder at `path` inside the session.

    An absolute path is that very path; a relative one is below the session's home; without one it is `volumes/<name>`.
    """

    path: str | None = None
    mode: Annotated[Literal["READONLY", "READWRITE"] | None, BeforeValidator(_mode)] = None
    resource: str | None = None
