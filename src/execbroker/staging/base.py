from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from execbroker.model.messages import MessageItem


class DataSettings(BaseModel):
    """What may be fetched, and from where."""

    model_config = ConfigDict(extra="forbid")

    folders: list[Path] = Field(default_factory=list, description="Folders below which file: URLs may be read; none by default.")
    allow_private: list[str] = Field(
        default_factory=list,
        description="Hosts, addresses or networks (10.0.0.0/8) that may be fetched from although they are private.",
    )
    max_size: int | None = Field(None, ge=1, description="The largest file that is fetched, in bytes; unlimited by default.")


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long preparation will take, and how many bytes are fetched, as far as is known; `warnings` say what had to be
    guessed, `reasons` what makes it impossible."""

    seconds: float = 0
    warnings: tuple[MessageItem, ...] = ()
    reasons: tuple[MessageItem, ...] = ()
    size: int = 0


class Forbidden(Exception):
    """This URL may not be fetched here; the message says why."""


class Missing(Exception):
    """There is proof that nothing can be fetched from this URL; the message says what the server answered."""


class Interrupted(Exception):
    """The transfer failed in a way that another try may mend, not before `after` seconds where the server says so."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe learnt of a URL: `size` in bytes where the server says it."""

    size: int | None


@dataclass(frozen=True, slots=True)
class Stream:
    """An open transfer: `offset` is where it really starts (0 where the server cannot resume), `version` identifies the
    bytes (an ETag or a modification time) so that two different files are never joined."""

    offset: int
    total: int | None
    version: str | None
    chunks: AsyncGenerator[bytes, None]


class Fetcher(ABC):
    """One transfer scheme. Retry, resume, checksums, limits and progress are the stager's, once for all schemes."""

    schemes: ClassVar[tuple[str, ...]]

    def __init__(self, settings: DataSettings) -> None:
        self.settings = settings

    @abstractmethod
    def reasons_against(self, url: str, path: str) -> list[MessageItem]:
        """What forbids this URL (of the field `path` of the request), as far as can be said without asking anyone."""

    @abstractmethod
    async def probe(self, url: str) -> Found:
        """Look without fetching. Raises Forbidden, Missing, or Interrupted where nothing can be said."""

    @abstractmethod
    def open(self, url: str, offset: int = 0, version: str | None = None) -> AbstractAsyncContextManager[Stream]:
        """Start a transfer at `offset`, if what is there is still `version`. Raises as `probe`."""

    async def close(self) -> None:
        """The broker stops."""
