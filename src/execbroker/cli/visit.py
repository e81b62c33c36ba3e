import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from rich.console import Console

    from execbroker.client import AsyncClient, ClientError

DONE, NO, USAGE, UNREACHABLE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130

Work = Callable[..., Coroutine[Any, Any, int | None]]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings in YAML; every one has a default.")]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The broker's data folder; else EXECBROKER_FOLDER, else the usual one."),
]
_WHERE = {
    "url": Annotated[
        str | None, typer.Option("--url", help="The broker's address; else EXECBROKER_URL, else that of the data folder.")
    ],
    "data": DataFolder,
    "ca": Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", help="Certificates (PEM) to believe besides the usual ones; else EXECBROKER_CA."),
    ],
}
_FORM = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print the answer as JSON, and nothing else.")],
    "as_yaml": Annotated[bool, typer.Option("--yaml", help="Print the answer as YAML, and nothing else.")],
}


class Stop(Exception):
    """The command ends here: a sentence for stderr, and the exit code."""

    def __init__(self, text: str, code: int = USAGE) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Visit:
    """One run of a command: which broker it talks to, and how it prints."""

    url: str | None = None
    folder: Path | None = None
    form: str | None = None
    ca: Path | None = None

    @cached_property
    def client(self) -> "AsyncClient":
        from execbroker.client import AsyncClient

        try:
            return AsyncClient(self.url, folder=self.folder, ca=self.ca)
        except ValueError as error:
            raise Stop(str(error)) from None

    @cached_property
    def console(self) -> "Console":
        """Where a person reads: stdout, or stderr where stdout is for the payload alone."""
        from execbroker.cli.tables import console

        return console(stderr=self.form is not None)

    def payload(self, value: Any) -> bool:
        """Print a model or plain data on stdout if --json or --yaml asked for it; False where nothing did."""
        from execbroker.codecs import CODECS, plain

        if self.form == "json":
            typer.echo(json.dumps(plain(value), ensure_ascii=False, indent=2))
        elif self.form == "yaml":
            yaml = next(codec for codec in CODECS if codec.media_type == "application/yaml")
            typer.echo(yaml.encode(plain(value)), nl=False)
        return self.form is not None

    async def find(self, text: str) -> UUID:
        """The session with this uuid, or the only one whose uuid begins so. Raises Stop."""
        try:
            return UUID(text)
        except ValueError:
            found = [str(session.meta.uuid) for session in await self.client.sessions(limit=1000) if session.meta]
        matches = sorted({uuid for uuid in found if uuid.startswith(text.lower())})
        if len(matches) > 1:
            raise Stop("\n  ".join([f"{text} is the beginning of {len(matches)} sessions:", *matches[:10]]))
        if not matches:
            raise Stop(f"There is no session whose uuid begins with {text}", REFUSED)
        return UUID(matches[0])

    async def carry_out(self, work: Work, details: dict[str, Any]) -> int:
        try:
            return await work(self, **details) or DONE
        finally:
            if "client" in self.__dict__:
                await self.client.close()


def command(app: typer.Typer, work: Work, *, prints: bool = True, cls: type[TyperCommand] | None = None) -> None:
    """Make `work` a command: with the options that say which broker and, where it `prints` data, how.

    Its first parameter is the Visit; one that is a dataclass stands for all its fields. Errors end the command with
    their exit code and a sentence on stderr.
    """
    _, *own = inspect.signature(work).parameters.values()
    bundles: dict[str, Any] = {parameter.name: parameter.annotation for parameter in own if is_dataclass(parameter.annotation)}

    def run(**given: Any) -> None:
        forms = {name: given.pop(f"as_{name}", False) for name in ("json", "yaml")}
        visit = Visit(
            given.pop("url"), given.pop("data"), next((name for name, wanted in forms.items() if wanted), None), given.pop("ca")
        )
        for name, kind in bundles.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        raise typer.Exit(guarded(lambda: asyncio.run(visit.carry_out(work, given))))

    parameters = [one for parameter in own for one in _unbundled(parameter)] + _common(prints)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(work.__name__.rstrip("_"), cls=cls, help=inspect.getdoc(work))(run)


def _unbundled(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    if not is_dataclass(parameter.annotation):
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    return [_keyword(field.name, field.default, field.type) for field in fields(parameter.annotation)]


def _common(prints: bool) -> list[inspect.Parameter]:
    forms = [_keyword(name, default=False, annotation=kind) for name, kind in _FORM.items()] if prints else []
    return [_keyword(name, None, kind) for name, kind in _WHERE.items()] + forms


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def guarded(work: Callable[[], int]) -> int:
    """The exit code of `work`; what it raises is a sentence on stderr."""
    try:
        return work()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has gone
        return DONE
    except Stop as error:
        say(str(error))
        return error.code
    except Exception as error:
        code = _complain(error)
        if code is None:
            raise
        return code


def _complain(error: Exception) -> int | None:
    """Say what is wrong and give the exit code; None for what nobody expected."""
    from execbroker.client import ClientError, NoAnswer
    from execbroker.errors import StartupError

    if isinstance(error, NoAnswer):
        say(error.detail)
        return UNREACHABLE
    if isinstance(error, ClientError):
        say(_refusal(error))
        return REFUSED
    if isinstance(error, StartupError | OSError):
        say(str(error))
        return USAGE
    return None


def _refusal(error: "ClientError") -> str:
    gap = " " if error.title.endswith("?") else ": "
    first = error.detail if error.detail.startswith(error.title) else f"{error.title}{gap}{error.detail}"
    faults = [f"  {fault.get('path') or 'document'}: {fault.get('message')}" for fault in error.errors]
    return "\n".join([first, *faults])


def say(text: str) -> None:
    """A sentence on stderr."""
    typer.echo(f"execbroker: {text}", err=True)
