import math
from fractions import Fraction
from typing import Any

from pydantic import model_validator

from execbroker.model.base import Integer, Wire

_UNITS = {prefix: 1000**power for power, prefix in enumerate(("", *"KMGTPEZY"))}
_UNITS |= {f"{prefix}I": 1024**power for power, prefix in enumerate("KMGTPEZY", 1)}


class Gibibytes(Wire):
    """From `min` to `max` whole GiB.

    The extension `units` (`GB`, `MiB`, …) is turned into GiB as it is read, rounded up to whole ones: 1 TB is 932 GiB. Units
    that nobody knows stay, to be complained of.
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
        gib = {name: _whole(document[name], scale) for name in ("min", "max") if name in document}
        return {**document, **gib, "units": None}


def _whole(value: Any, scale: int) -> Any:
    """A number in whole GiB; anything else as it is, for the model to complain of."""
    finite = type(value) is int or (type(value) is float and math.isfinite(value))
    return math.ceil(Fraction(value) * scale / 1024**3) if finite else value
