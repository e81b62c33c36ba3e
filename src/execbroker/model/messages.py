from typing import ClassVar, Literal

from execbroker.model.base import Wire
from execbroker.model.times import DateTime

Level = Literal["DEBUG", "INFO", "WARN", "ERROR", "OTHER"]


class MessageItem(Wire):
    """A message by template and values (https://messagetemplates.org), with the rendered text beside them."""

    ELEMENT: ClassVar[str] = "message"
    kind: str | None = None
    time: DateTime | None = None
    level: Level | None = None
    template: str | None = None
    values: dict[str, str] | None = None
    message: str | None = None


def message(level: Level, name: str, template: str, /, **values: object) -> MessageItem:
    """A message of kind `urn:execbroker:message:<name>`; every `{word}` of the template is one of `values`."""
    texts = {key: str(value) for key, value in values.items()}
    rendered = template.format_map(texts)
    return MessageItem(kind=f"urn:execbroker:message:{name}", level=level, template=template, values=texts, message=rendered)


def reason(name: str, path: str, template: str, /, **values: object) -> MessageItem:
    """Why the answer is NO: an ERROR about the field at `path`."""
    return message("ERROR", name, template, path=path, **values)


def warning(name: str, path: str, template: str, /, **values: object) -> MessageItem:
    """What was understood otherwise than written, about the field at `path`."""
    return message("WARN", name, template, path=path, **values)
