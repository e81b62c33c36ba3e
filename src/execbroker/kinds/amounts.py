import math
from fractions import Fraction
from typing import Any

from pydantic import model_validator

from execbroker.model.base import Integer, Wire

_UNITS = {prefix: 1000**power for power, prefix in enumerate(("", *"KMGTPEZY"))}
_UNITS |= {f"{prefix}I": 1024**power for power, prefix in enumerate("KMGTPEZY", 1)}


class Gibibytes(Wire):
    """From `min` to `max` whole GiB.

    The extension `units` (`GB`, `MiB`, …) is turned into GiB as it is read: `min` is rounded up, `max` down but not to 0.
    Units that nobody knows stay, to be complained of.
    """

    min: Integer | None = None
    max: Integer | None = None
    units: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _in_gib(cls, document: Any) -> Any:
        units = document.get("units") if isinstance(document, dict) else None
        scale = _UNITS.get(units.upper().removesuffix("B")) if isinstance(units, str) else None
        if scale is None:
            return document
        read = {"min": math.ceil, "max": lambda size: max(math.floor(size), 1)}
        gib = {name: _whole(document[name], scale, rounded) for name, rounded in read.items() if name in document}
        return {**document, **gib, "units": None}


def _whole(value: Any, scale: int, rounded: Any) -> Any:
    """A number in GiB; anything else as it is, for the model to complain of."""
    finite = type(value) is int or (type(value) is float and math.isfinite(value))
    return rounded(Fraction(value) * scale / 1024**3) if finite else value
