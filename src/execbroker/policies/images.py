"""References to container images, as registries understand them (OCI distribution specification; Docker's defaults)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from execbroker.policies.locations import Location, LocationPattern, host_of

DOCKER = "docker.io"
_ALIASES = {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"}
_SCHEMES = ("docker://", "oras://")
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}")


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a registry: what is fetched goes by the `digest` where there is one, whatever the tag."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError."""
        name, _, digest = _without_scheme(text).partition("@")
        registry, rest = _registry(name)
        repository, _, tag = rest.partition(":")
        repository = _official(registry, repository)
        wrong = not _NAME.fullmatch(repository) or (tag and not _TAG.fullmatch(tag)) or (digest and not _DIGEST.fullmatch(digest))
        if wrong or (not tag and rest.endswith(":")) or (not digest and "@" in text):
            raise ValueError("it is not a reference such as ghcr.io/owner/image:tag")
        return cls(_host(registry), repository, tag, digest.lower())

    def fetched(self) -> Iterator[str]:
        """The ways to name what would be fetched."""
        yield self.repository
        yield f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag or 'latest'}"

    def written(self) -> Iterator[str]:
        """And those that say more than that."""
        yield from self.fetched()
        if self.tag and self.digest:
            yield f"{self.repository}:{self.tag}"
            yield f"{self.repository}:{self.tag}@{self.digest}"


@dataclass(frozen=True, slots=True)
class ImagePattern:
    """Registry and repository are matched each by itself; `*` goes across the slashes of a repository. A pattern with ://
    is one of addresses, for images that are files."""

    registry: str
    name: str
    location: LocationPattern | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError."""
        if text == "*":
            return cls("*", "*", LocationPattern.read("*"))
        if _is_address(text):
            return cls("", "", LocationPattern.read(text))
        registry, name = _registry(_without_scheme(text))
        if not name:
            raise ValueError(f"{text!r} is not a pattern of images such as ghcr.io/owner/* or python:3.*")
        if any(letter in registry for letter in "*?["):
            return cls(registry.lower(), name)
        return cls(_host(registry), name if name.startswith("*") else _official(registry, name))

    def allows(self, image: "Image | Location") -> bool:
        if isinstance(image, Location):
            return self.location is not None and self.location.allows(image)
        return fnmatchcase(image.registry, self.registry) and any(fnmatchcase(name, self.name) for name in image.fetched())

    def denies(self, image: "Image | Location") -> bool:
        if isinstance(image, Location):
            return self.location is not None and self.location.denies(image)
        return fnmatchcase(image.registry, self.registry) and any(fnmatchcase(name, self.name) for name in image.written())


def read_image(text: str) -> Image | Location:
    """An image of a registry, or one that is a file. Raises ValueError."""
    return Location.read(text) if _is_address(text) else Image.read(text)


def _is_address(text: str) -> bool:
    return "://" in text and not text.lower().startswith(_SCHEMES)


def _without_scheme(text: str) -> str:
    return next((text[len(scheme) :] for scheme in _SCHEMES if text.lower().startswith(scheme)), text)


def _registry(name: str) -> tuple[str, str]:
    """The first part is a registry where it looks like a host; else it is Docker's."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first in ("localhost", "*") or first != first.lower()):
        return first, rest
    return DOCKER, name


def _host(registry: str) -> str:
    host, colon, port = registry.rpartition(":") if registry.rpartition(":")[2].isdigit() else (registry, "", "")
    host = host_of(host.strip("[]"))
    if host in _ALIASES:
        host = DOCKER
    return host if port in ("", "443") else f"{host}{colon}{int(port)}"


def _official(registry: str, repository: str) -> str:
    """Docker's own images need no owner."""
    plain = _host(registry) == DOCKER and "/" not in repository
    return f"library/{repository}" if plain else repository
