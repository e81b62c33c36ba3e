from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from posixpath import normpath
from typing import Any, Protocol, Self

from execbroker.model.policies import SORTS, Patterns
from execbroker.policies.images import ImagePattern, read_image
from execbroker.policies.locations import Location, LocationPattern, host_of


class Pattern(Protocol):
    """Something that is compared with what was read of a sort: to allow it, or, less narrowly, to deny it."""

    def allows(self, value: Any, /) -> bool: ...
    def denies(self, value: Any, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class TextPattern:
    text: str

    def allows(self, value: str) -> bool:
        return fnmatchcase(value, self.text)

    denies = allows


@dataclass(frozen=True, slots=True)
class ScopePattern:
    """A Rucio scope, or a scope and a name in it."""

    scope: str
    name: str

    @classmethod
    def read(cls, text: str) -> Self:
        scope, _, name = text.partition(":")
        return cls(scope, name or "*")

    def allows(self, value: tuple[str, str]) -> bool:
        return fnmatchcase(value[0], self.scope) and fnmatchcase(value[1], self.name)

    denies = allows


@dataclass(frozen=True, slots=True)
class PathPattern:
    """What hides a path that is denied, because it is mounted above it, is denied, too."""

    text: str

    def allows(self, value: str) -> bool:
        return fnmatchcase(value, self.text)

    def denies(self, value: str) -> bool:
        plain = self.text[: min((self.text.find(letter) for letter in "*?[" if letter in self.text), default=len(self.text))]
        return fnmatchcase(value, self.text) or fnmatchcase(f"{value}/", self.text) or plain.startswith(f"{value}/")


@dataclass(frozen=True, slots=True)
class EndpointPattern:
    """Without a scheme it allows https alone, and denies all."""

    allowed: LocationPattern
    denied: LocationPattern

    def allows(self, value: Location) -> bool:
        return self.allowed.allows(value)

    def denies(self, value: Location) -> bool:
        return self.denied.denies(value)


@dataclass(frozen=True, slots=True)
class Sort:
    """How what a request names is read, and how a pattern is; both raise ValueError."""

    read: Callable[[str], Any]
    pattern: Callable[[str], Pattern]


def _text(text: str) -> str:
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError("it is empty, or has characters in it that cannot be compared")
    return text


def _scope(text: str) -> tuple[str, str]:
    scope, _, name = _text(text).partition(":")
    return scope, name


def _path(text: str) -> str:
    return f"/{normpath(text).lstrip('/')}" if text.startswith("/") else normpath(_text(text))


def _endpoint(text: str) -> Location:
    return Location.read(text if "://" in text else f"https://{text}")


def _endpoint_pattern(text: str) -> EndpointPattern:
    named = "://" in text or text == "*"
    pattern = LocationPattern.read(text if named else f"https://{text}")
    pattern = replace(pattern, path="*") if pattern.path == "/" else pattern
    return EndpointPattern(pattern, pattern if named else replace(pattern, scheme="*"))


def _host(text: str) -> str:
    """A host alone, or that of an address."""
    return Location.read(text).host if "://" in text else host_of(text)


def _host_pattern(text: str) -> TextPattern:
    wild = any(letter in text for letter in "*?")
    return TextPattern(text.lower().rstrip(".") if wild else host_of(text.strip("[]")))


_LOCATIONS = Sort(Location.read, LocationPattern.read)
_TEXTS = Sort(_text, TextPattern)
READERS: dict[str, Sort] = {
    "images": Sort(read_image, ImagePattern.read),
    "notebooks": _LOCATIONS,
    "programs": _LOCATIONS,
    "data": _LOCATIONS,
    "hosts": Sort(_host, _host_pattern),
    "endpoints": Sort(_endpoint, _endpoint_pattern),
    "ivoids": _LOCATIONS,
    "rucio": Sort(_scope, ScopePattern.read),
    "skao": _TEXTS,
    "ports": _TEXTS,
    "paths": Sort(_path, PathPattern),
}


def read_patterns(patterns: Patterns) -> Mapping[str, tuple[Pattern, ...]]:
    """Those that are given, by sort. Raises ValueError."""
    return {sort: tuple(_read(sort, given)) for sort in SORTS if (given := patterns.of(sort)) is not None}


def _read(sort: str, texts: Iterable[str]) -> Iterable[Pattern]:
    for text in texts:
        try:
            yield READERS[sort].pattern(text)
        except ValueError as error:
            raise ValueError(f"{sort}: {text!r} cannot be a pattern: {error}") from None
