import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from execbroker.cli.visit import Stop

_PANEL = "What is asked for"
_SHORT_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.IGNORECASE)


def _option(*names: str, metavar: str | None = None, help: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=_PANEL)


@dataclass
class Wish:
    """What a person asks for on the command line: a file, or options that make one."""

    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A request in YAML or JSON; - is stdin. Or say it with the options below."),
    ] = None
    notebook: Annotated[str | None, _option("--notebook", metavar="URL", help="Run this notebook, a URL or a local path.")] = None
    program: Annotated[
        str | None, _option("--program", metavar="URL", help="Run this Python program, a URL or a local path.")
    ] = None
    batch: Annotated[bool, _option("--batch", help="Execute the notebook without a person.")] = False
    param: Annotated[
        list[str] | None, _option("--param", metavar="NAME=VALUE", help="A parameter of the notebook; VALUE is read as YAML.")
    ] = None
    requirement: Annotated[
        list[str] | None, _option("--requirement", metavar="NAME", help="A Python package to install, such as numpy>=2.")
    ] = None
    arg: Annotated[list[str] | None, _option("--arg", metavar="TEXT", help="An argument of the program.")] = None
    cores: Annotated[str | None, _option("--cores", metavar="N[-M]", help="How many cores, at least and at most.")] = None
    memory: Annotated[str | None, _option("--memory", metavar="N[-M]", help="How much memory in GiB, at least and at most.")] = (
        None
    )
    start: Annotated[
        str | None, _option("--start", metavar="TIME", help="When: an ISO 8601 instant, or an interval such as START/PT1H.")
    ] = None
    duration: Annotated[str | None, _option("--duration", metavar="TIME", help="For how long: 4h, 30m, 1h30m or PT4H.")] = None
    input: Annotated[
        list[str] | None,
        _option("--input", metavar="PATH=URL", help="A file to fetch, a URL or a local path, into the session's folder PATH."),
    ] = None
    storage: Annotated[
        list[str] | None,
        _option(
            "--storage", metavar="NAME=GIB[:PATH]", help="Storage for results, seen at PATH; at NAME where that is left out."
        ),
    ] = None

    def request(self) -> dict[str, Any]:
        """The request document, as the file says or as the options make it. Raises Stop."""
        if self.file is None:
            return _without_empty(self._made())
        named = [f"--{field.name}" for field in fields(self) if field.name != "file" and getattr(self, field.name)]
        if named:
            raise Stop(f"The request is in {self.file}: say {', '.join(named)} there")
        return read_request(self.file)

    def _made(self) -> dict[str, Any]:
        return {
            "executable": self._executable(),
            "compute": self._compute(),
            "storage": [_storage(text) for text in self.storage or []],
            "data": [_data(text) for text in self.input or []],
            "schedule": {"requested": {"duration": _duration(self.duration), "start": self.start}},
        }

    def _executable(self) -> dict[str, Any]:
        from execbroker.model.registry import own, published

        if bool(self.notebook) == bool(self.program):
            raise Stop("Say what to run: a request file, or one of --notebook and --program")
        if self.program:
            if self.batch or self.param:
                raise Stop("--batch and --param are for notebooks; a program takes --arg")
            kind, extra = own("executable", "python-program"), dict[str, Any](arguments=self.arg)
        else:
            if self.arg:
                raise Stop("--arg is for programs; a notebook takes --param")
            kind = published("executable", "jupyter-notebook")
            extra = {"mode": "batch" if self.batch else None, "parameters": _parameters(self.param)}
        location = _url(self.notebook or self.program or "")
        return {"kind": kind, "location": location, "requirements": self.requirement, **extra}

    def _compute(self) -> dict[str, Any]:
        from execbroker.model.registry import published

        asked = {"cores": _range("--cores", self.cores), "memory": _range("--memory", self.memory)}
        volumes = [_volume(name, path) for name, _, path in map(_storage_parts, self.storage or [])]
        volumes += [_volume(path, path) for path, _ in map(_input_parts, self.input or [])]
        if not volumes and not any(asked.values()):
            return {}
        return {"kind": published("compute", "simple-compute-resource"), **asked, "volumes": volumes}


def read_request(name: str) -> dict[str, Any]:
    """A request from a file, or from stdin for `-`. Raises Stop where it is no map in YAML or JSON."""
    from execbroker.codecs import CODECS
    from execbroker.errors import Unreadable

    wanted = "application/json" if name.endswith(".json") else "application/yaml"
    codec = next(codec for codec in CODECS if codec.media_type == wanted)
    try:
        document = codec.decode(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())
    except OSError as error:
        raise Stop(f"The request {name} cannot be read: {error.strerror}") from None
    except Unreadable as error:
        raise Stop(f"{name}: {error.detail}") from None
    if not isinstance(document, dict):
        raise Stop(f"{name}: a request is a map with `executable` and what else is asked for")
    return document


def _url(text: str) -> str:
    """A URL as it is; anything else is a path on this machine."""
    return text if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) else Path(text).expanduser().resolve().as_uri()


def _split(option: str, text: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise Stop(f"{option} {text}: this must look like {example}")
    return name, value


def _range(option: str, text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match:
        raise Stop(f"{option} {text}: this must be a whole number such as 4, or a range such as 4-8")
    least, most = match.groups()
    return {"min": int(least), **({"max": int(most)} if most else {})}


def _duration(text: str | None) -> str | None:
    """`4h` as PT4H; what is ISO 8601 already is the broker's to read."""
    match = _SHORT_DURATION.fullmatch(text) if text else None
    if not match:
        return text
    days, *rest = match.groups()
    time = "".join(f"{amount}{unit}" for amount, unit in zip(rest, "HMS", strict=True) if amount)
    return f"P{f'{days}D' if days else ''}{f'T{time}' if time else ''}"


def _parameters(texts: list[str] | None) -> dict[str, Any]:
    from execbroker.codecs import CODECS
    from execbroker.errors import Unreadable

    yaml = next(codec for codec in CODECS if codec.media_type == "application/yaml")
    found = {}
    for text in texts or []:
        name, value = _split("--param", text, "name=0.5")
        try:
            found[name] = yaml.decode(value.encode())
        except Unreadable as error:
            raise Stop(f"--param {text}: {error.detail}") from None
    return found


def _storage_parts(text: str) -> tuple[str, int, str]:
    """The name, the size in GiB, and the path where it is seen."""
    example = "results=2 or results=2:/my-results"
    name, value = _split("--storage", text, example)
    size, colon, path = value.partition(":")
    if not size.isdigit() or (colon and not path):
        raise Stop(f"--storage {text}: this must look like {example}, the size in GiB")
    return name, int(size), path or name


def _input_parts(text: str) -> tuple[str, str]:
    path, url = _split("--input", text, "data=https://example.org/table.csv")
    if ":" in path:
        raise Stop(f"--input {text}: say where it is to be seen, as in --input data={text}")
    return path, _url(url)


def _storage(text: str) -> dict[str, Any]:
    from execbroker.model.registry import published

    name, size, _ = _storage_parts(text)
    return {"kind": published("storage", "simple-storage-resource"), "meta": {"name": name}, "size": {"min": size}}


def _data(text: str) -> dict[str, Any]:
    from execbroker.model.registry import published

    path, url = _input_parts(text)
    return {"kind": published("data", "simple-data-resource"), "meta": {"name": path}, "location": url}


def _volume(resource: str, path: str) -> dict[str, Any]:
    from execbroker.model.registry import published

    return {"kind": published("volume", "simple-volume-mount"), "path": path, "resource": resource}


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    """Without what was not asked for: the broker fills it in."""
    kept = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in document.items()}
    return {key: value for key, value in kept.items() if value not in (None, {}, [])}
