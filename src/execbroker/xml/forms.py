"""What each field of a model is in XML: which are attributes, which lists are wrapped, what an item's element is called.

The names are those of the models' `Xml` annotations; how they are understood is the XML Object of OpenAPI 3.1. A document is
read in two steps, since XML does not say what is a list and what is a number: `codec` gives maps of `Bare` text, and
`lowered` makes of them what a JSON document would have had.
"""

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin
from xml.etree.ElementTree import Element, SubElement

from pydantic import BaseModel

from execbroker.model.hints import Xml
from execbroker.model.registry import Family, load_kinds
from execbroker.xml.generic import add, fill, number_of, text_of

WRAPPED_ITEM = "item"
"""What some writers call the items of any list."""


class Bare(str):
    """Text of which the document does not say whether it is a string, a number or a truth."""

    __slots__ = ()


class Form:
    """That of anything at all, and so the generic one."""

    def read(self, found: Any) -> Any:
        """Plain data, as they would be in JSON; what does not fit stays as it is, for the model to complain of."""
        if isinstance(found, Bare):
            return self.value(str(found))
        if isinstance(found, list):
            return [self.read(item) for item in found]
        return {key: ANY.read(value) for key, value in found.items()} if isinstance(found, dict) else found

    def take(self, name: str, found: Any) -> Any:
        """What elements of this name have, as the value of the field."""
        return self.read(found)

    def value(self, text: str) -> Any:
        return text

    def put(self, parent: Element, name: str, value: Any) -> None:
        """Write the field `name` of `parent`."""
        self.write(SubElement(parent, name), value)

    def write(self, element: Element, value: Any) -> None:
        fill(element, value)

    def names(self) -> frozenset[str]:
        """Of the fields that it may have."""
        return frozenset()


@dataclass(frozen=True)
class Scalar(Form):
    """One whose type the model says, so that the element need not."""

    reader: Callable[[str], Any]

    def value(self, text: str) -> Any:
        return self.reader(text)

    def write(self, element: Element, value: Any) -> None:
        element.text = text_of(value)


@dataclass(frozen=True)
class Many(Form):
    """A list: its items' elements stand where the list does, or, where it is `wrapped`, in an element of their own."""

    item: Form
    element: str
    field: str
    wrapped: bool

    def take(self, name: str, found: Any) -> Any:
        several = found if isinstance(found, list) else [found]
        if name == self.element != self.field:
            return [self.item.read(item) for item in several]
        return [self.item.read(item) for element in several for item in self._items(element)]

    def _items(self, found: Any) -> list[Any]:
        if isinstance(found, Bare) and not found.strip() and (self.wrapped or isinstance(self.item, OneOf)):
            return []
        if not isinstance(found, dict) or len(found) != 1:
            return [found]
        [(name, inside)] = found.items()
        if not self._wraps(name):
            return [found]
        return inside if isinstance(inside, list) else [inside]

    def _wraps(self, name: str) -> bool:
        """Whether an element with nothing but elements of this name is one that some writers put around a list."""
        if name == self.element != self.field:
            return True
        return name in {self.element, self.field, self.field.removesuffix("s"), WRAPPED_ITEM} - self.item.names()

    def put(self, parent: Element, name: str, value: Any) -> None:
        place = SubElement(parent, name) if self.wrapped else parent
        for item in value:
            self.item.put(place, self.element, item)


@dataclass(frozen=True)
class Map(Form):
    """Of any names: an `entry` for each, since not every name may be that of an element."""

    item: Form

    def read(self, found: Any) -> Any:
        if isinstance(found, Bare) and not found.strip():
            return {}
        return {key: self.item.read(value) for key, value in found.items()} if isinstance(found, dict) else ANY.read(found)

    def write(self, element: Element, value: Any) -> None:
        for name, item in value.items():
            self.item.write(SubElement(element, "entry", name=text_of(name)), item)


@dataclass(frozen=True)
class Field:
    name: str
    form: Form
    attribute: bool


class Record(Form):
    """A model. Attributes and elements are both read, whichever it should have been."""

    def __init__(self, cls: type[BaseModel]) -> None:
        fields = [_field(name, info.annotation, info.metadata) for name, info in cls.model_fields.items()]
        self._fields = {field.name: field for field in fields}
        self._elements = {field.form.element: field for field in fields if isinstance(field.form, Many)} | self._fields
        self._names = frozenset(self._elements)

    def read(self, found: Any) -> Any:
        if isinstance(found, Bare):
            return number_of(found) if found.strip() else {}
        if not isinstance(found, dict):
            return super().read(found)
        plain: dict[str, Any] = {}
        for name, value in found.items():
            if field := self._elements.get(name):
                part = field.form.take(name, value)
                plain[field.name] = plain[field.name] + part if field.name in plain else part
            else:
                plain[name] = ANY.read(value)
        return plain

    def write(self, element: Element, value: Any) -> None:
        for name, part in value.items():
            field = self._fields.get(name)
            if field is None:
                add(element, name, part)
            elif field.attribute:
                element.set(name, text_of(part))
            else:
                field.form.put(element, name, part)

    def names(self) -> frozenset[str]:
        return self._names


@dataclass(frozen=True)
class OneOf(Form):
    """Any model of a family, as its `kind` says."""

    family: Family

    def _record(self, document: dict[str, Any]) -> Record:
        load_kinds()
        kind = document.get("kind")
        return record_of(self.family.resolve(kind.strip()) if isinstance(kind, str) else self.family.unknown)

    def read(self, found: Any) -> Any:
        if isinstance(found, dict):
            return self._record(found).read(found)
        return {} if isinstance(found, Bare) and not found.strip() else super().read(found)

    def write(self, element: Element, value: Any) -> None:
        self._record(value).write(element, value)

    def names(self) -> frozenset[str]:
        return _names_in(self.family)


ANY = Form()
EXACT = Scalar(str)
WORD = Scalar(str.strip)
NUMBER = Scalar(number_of)
TRUTH = Scalar(lambda text: {"true": True, "1": True, "false": False, "0": False}.get(text.strip(), text))
"""As XML Schema writes it."""
_SCALARS: dict[Any, Form] = {str: EXACT, bool: TRUTH, int: NUMBER, float: NUMBER, Any: ANY, object: ANY}


@cache
def record_of(cls: type[BaseModel]) -> Record:
    return Record(cls)


@cache
def _names_in(family: Family) -> frozenset[str]:
    return frozenset[str]().union(*(record_of(cls).names() for cls in family.members.values()))


def form_of(annotation: Any, metadata: Any = (), field: str = "") -> Form:
    """The form of what a type annotation admits; times, identifiers and enumerations are words, with no space around them."""
    if get_origin(annotation) is Annotated:
        return form_of(annotation.__origin__, [*annotation.__metadata__, *metadata], field)
    if get_origin(annotation) in (Union, types.UnionType):
        [annotation] = (choice for choice in get_args(annotation) if choice is not type(None))
        return form_of(annotation, metadata, field)
    for family in (one for one in metadata if isinstance(one, Family)):
        return OneOf(family)
    if get_origin(annotation) in (list, tuple):
        item = get_args(annotation)[0]
        named = next((hint.name for hint in _hints(item) if hint.name), field)
        return Many(form_of(item), named, field, any(one.wrapped for one in metadata if isinstance(one, Xml)))
    if get_origin(annotation) is dict:
        return Map(form_of(get_args(annotation)[1]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return record_of(annotation)
    return _SCALARS.get(annotation, WORD)


def _hints(annotation: Any) -> Iterator[Xml]:
    return (one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Xml))


def _field(name: str, annotation: Any, metadata: list[Any]) -> Field:
    attribute = any(one.attribute for one in metadata if isinstance(one, Xml))
    return Field(name, WORD if attribute else form_of(annotation, metadata, name), attribute)


def is_bare(document: Any) -> bool:
    """Whether it came as XML."""
    if isinstance(document, dict):
        return any(map(is_bare, document.values()))
    return any(map(is_bare, document)) if isinstance(document, list) else isinstance(document, Bare)


def lowered(target: Any, document: Any) -> Any:
    """A document that came as XML as the plain data that JSON would have had for this type; any other as it is."""
    return form_of(target).read(document) if is_bare(document) else document
