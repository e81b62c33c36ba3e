import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from execbroker.cli.reading import (
    read_cost,
    read_duration,
    read_input,
    read_licence,
    read_parameters,
    read_range,
    read_storage,
    read_url,
)
from execbroker.cli.visit import Stop

_PANEL = "What is asked for"


def _option(*names: str, metavar: str | None = None, help: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=_PANEL)


@dataclass
class Wish:
    """What a person asks for on the command line: a file, or options that make one."""

    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A request in YAML, JSON or XML; - is stdin. Or say it with the options below."),
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
    gpus: Annotated[
        str | None, _option("--gpus", metavar="N[-M]", help="How many accelerators on a node, at least and at most.")
    ] = None
    gpu_kind: Annotated[
        str | None, _option("--gpu-kind", metavar="KIND", help="Accelerators of this kind, such as a100; else of any.")
    ] = None
    gpu_memory: Annotated[
        int | None, _option("--gpu-memory", metavar="GIB", help="Accelerators with so much memory each, in GiB.")
    ] = None
    nodes: Annotated[int | None, _option("--nodes", metavar="N", help="All of this on each of so many nodes at once.")] = None
    licence: Annotated[list[str] | None, _option("--licence", metavar="NAME[=N]", help="A licence, or several of a kind.")] = None
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
    flexible: Annotated[bool, _option("--flexible", help="It may also start sooner than offered, when room comes free.")] = False
    best: Annotated[
        list[str] | None,
        _option(
            "--best", metavar="WHAT", help="An offer that is the earliest, largest, longest, cheapest, greenest; one for each."
        ),
    ] = None
    on: Annotated[
        list[str] | None, _option("--on", metavar="PLATFORM", help="Run it on this platform, or one of these; else on any.")
    ] = None
    max_cost: Annotated[
        list[str] | None, _option("--max-cost", metavar="[WHAT=]N", help="The most it may cost in money, energy= or carbon=.")
    ] = None
    performance: Annotated[
        float | None, _option("--performance", metavar="N", help="As fast as so many reference cores, at least.")
    ] = None
    throughput: Annotated[
        float | None, _option("--throughput", metavar="MBS", help="Reading and writing at so many MB/s, at least.")
    ] = None

    def request(self) -> dict[str, Any]:
        """The request document, as the file says or as the options make it. Raises Stop."""
        if self.file is None:
            return _without_empty(self._made())
        given = [field.name for field in fields(self) if field.name != "file" and getattr(self, field.name)]
        if named := [f"--{name.replace('_', '-')}" for name in given]:
            raise Stop(f"The request is in {self.file}: say {', '.join(named)} there")
        return read_request(self.file)

    def _made(self) -> dict[str, Any]:
        requested = {"duration": read_duration(self.duration), "start": self.start, "flexible": self.flexible or None}
        return {
            "executable": self._executable(),
            "compute": self._compute(),
            "storage": [_storage(text) for text in self.storage or []],
            "data": [_data(text) for text in self.input or []],
            "schedule": {"requested": requested},
            "costs": [_limit("costs", kind, max=most) for kind, most in map(read_cost, self.max_cost or [])],
            "metrics": self._metrics(),
            "objectives": self.best,
            "platforms": self.on,
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
            extra = {"mode": "batch" if self.batch else None, "parameters": read_parameters(self.param)}
        location = read_url(self.notebook or self.program or "")
        return {"kind": kind, "location": location, "requirements": self.requirement, **extra}

    def _compute(self) -> dict[str, Any]:
        from execbroker.model.registry import published

        volumes = [_volume(name, path) for name, _, path in map(read_storage, self.storage or [])]
        volumes += [_volume(path, path) for path, _ in map(read_input, self.input or [])]
        asked = {
            "cores": read_range("--cores", self.cores),
            "memory": read_range("--memory", self.memory),
            "accelerators": self._accelerators(),
            "replicas": self.nodes,
            "licences": [{"name": name, "count": count} for name, count in map(read_licence, self.licence or [])],
            "volumes": volumes,
        }
        return {"kind": published("compute", "simple-compute-resource"), **asked} if _without_empty(asked) else {}

    def _accelerators(self) -> list[dict[str, Any]]:
        memory = None if self.gpu_memory is None else {"min": self.gpu_memory}
        wanted = {"kind": self.gpu_kind, "count": read_range("--gpus", self.gpus), "memory": memory}
        return [found] if (found := _without_empty(wanted)) else []

    def _metrics(self) -> list[dict[str, Any]]:
        wanted = {"compute-performance": self.performance, "io-throughput": self.throughput}
        types = {f"urn:ivoa:calycopis:metric:{name}": least for name, least in wanted.items() if least is not None}
        return [_limit("metrics", kind, min=least) for kind, least in types.items()]


def read_request(name: str) -> dict[str, Any]:
    """A request from a file, or from stdin for `-`. Raises Stop where it is no map in YAML, JSON or XML."""
    from execbroker.codecs import CODECS
    from execbroker.errors import Unreadable
    from execbroker.model.sessions import ExecutionRequest
    from execbroker.xml.forms import lowered

    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        codec = next(codec for codec in CODECS if codec.media_type == _media_type(name, content))
        document = lowered(ExecutionRequest, codec.decode(content))
    except OSError as error:
        raise Stop(f"The request {name} cannot be read: {error.strerror}") from None
    except Unreadable as error:
        raise Stop(f"{name}: {error.detail}") from None
    if not isinstance(document, dict):
        raise Stop(f"{name}: a request is a map with `executable` and what else is asked for")
    return document


def _media_type(name: str, content: bytes) -> str:
    """That of a file by its name, but what begins like XML is XML: no request in another form does."""
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "application/xml"
    return "application/json" if name.endswith(".json") else "application/yaml"


def _storage(text: str) -> dict[str, Any]:
    from execbroker.model.registry import published

    name, size, _ = read_storage(text)
    return {"kind": published("storage", "simple-storage-resource"), "meta": {"name": name}, "size": {"min": size}}


def _data(text: str) -> dict[str, Any]:
    from execbroker.model.registry import published

    path, url = read_input(text)
    return {"kind": published("data", "simple-data-resource"), "meta": {"name": path}, "location": url}


def _volume(resource: str, path: str) -> dict[str, Any]:
    from execbroker.model.registry import published

    return {"kind": published("volume", "simple-volume-mount"), "path": path, "resource": resource}


def _limit(family: str, kind: str, **bound: float) -> dict[str, Any]:
    from execbroker.model.registry import published

    return {"kind": published(family, f"simple-minmax-float-{family.removesuffix('s')}"), "type": kind, **bound}


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    """Without what was not asked for: the broker fills it in."""
    kept = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in document.items()}
    return {key: value for key, value in kept.items() if value not in (None, {}, [])}
