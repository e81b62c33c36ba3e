from dataclasses import asdict, dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema


@dataclass(frozen=True, slots=True)
class Xml:
    """How a field, or each item of a list, is written in XML, where not as its name says: the annotation that the XML Object of
    OpenAPI 3.1 is made from. `name` is that of an item's element; `wrapped` gives a list an element of its own."""

    name: str | None = None
    attribute: bool = False
    wrapped: bool = False

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "xml": {hint: value for hint, value in asdict(self).items() if value}}
