from typing import Annotated

from execbroker.model.base import Integer, Kinded
from execbroker.model.hints import Xml
from execbroker.model.registry import Family


class AbstractOption(Kinded):
    """What the caller may do now to the thing at `path`."""

    kind: Annotated[str, Xml(attribute=True)] = ""
    path: str


class UnknownOption(AbstractOption):
    pass


class AbstractUpdate(Kinded):
    """What the caller does to the thing at `path`."""

    kind: Annotated[str, Xml(attribute=True)] = ""
    path: str


class UnknownUpdate(AbstractUpdate):
    pass


OPTIONS = Family("options", AbstractOption, UnknownOption)
UPDATES = Family("updates", AbstractUpdate, UnknownUpdate)


@OPTIONS.register("uri:string-value-option")
class StringValueOption(AbstractOption):
    pattern: str | None = None


@OPTIONS.register("uri:enum-value-option")
class EnumValueOption(AbstractOption):
    values: list[str]


@OPTIONS.register("uri:integer-value-option")
class IntegerValueOption(AbstractOption):
    min: Integer | None = None
    max: Integer | None = None
    units: str | None = None


@OPTIONS.register("uri:integer-delta-option")
class IntegerDeltaOption(AbstractOption):
    min: Integer | None = None
    max: Integer | None = None
    units: str | None = None


@UPDATES.register("uri:string-value-update")
class StringValueUpdate(AbstractUpdate):
    value: str


@UPDATES.register("uri:enum-value-update")
class EnumValueUpdate(AbstractUpdate):
    value: str


@UPDATES.register("uri:integer-value-update")
class IntegerValueUpdate(AbstractUpdate):
    value: Integer
    units: str | None = None


@UPDATES.register("uri:integer-delta-update")
class IntegerDeltaUpdate(AbstractUpdate):
    delta: Integer
    units: str | None = None


Option = Annotated[AbstractOption, OPTIONS]
Update = Annotated[AbstractUpdate, UPDATES]
