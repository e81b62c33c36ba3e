from typing import ClassVar
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from execbroker.kinds.naming import file_name
from execbroker.model.components import EXECUTABLES, AbstractExecutable
from execbroker.model.messages import MessageItem, reason
from execbroker.model.registry import own
from execbroker.model.waist import Form, Launch, Source


def requirements_against(requirements: list[str] | None) -> list[MessageItem]:
    """What is wrong with a list of Python requirements (PEP 508): names and versions only, no options, no addresses."""
    against = []
    for index, text in enumerate(requirements or []):
        path = f"executable.requirements[{index}]"
        try:
            if Requirement(text).url:
                against.append(reason("requirement-url", path, "{text} at {path} names an address; a name is needed", text=text))
        except (InvalidRequirement, RecursionError):
            against.append(reason("bad-requirement", path, "{text} at {path} is not a requirement such as numpy>=2", text=text))
    return against


def location_against(location: str | None, what: str) -> list[MessageItem]:
    try:
        if location and urlsplit(location):
            return []
    except ValueError:
        pass
    return [reason("no-location", "executable.location", "{what} needs its URL in {path}", what=what)]


@EXECUTABLES.register(own("executable", "python-program"))
class PythonProgram(AbstractExecutable):
    """A Python program by URL, with the requirements to install for it, its arguments and environment."""

    FORM: ClassVar[Form] = "process"
    location: str | None = None
    requirements: list[str] | None = None
    arguments: list[str] | None = None
    environment: dict[str, str] | None = None

    def reasons_against(self) -> list[MessageItem]:
        return [*location_against(self.location, "A Python program"), *requirements_against(self.requirements)]

    def launch(self) -> Launch:
        location = self.location or ""
        program = file_name(location, "program.py")
        return Launch(
            self.FORM,
            ("python", program, *(self.arguments or [])),
            self.environment or {},
            tuple(self.requirements or []),
            (Source(location, program),),
        )
