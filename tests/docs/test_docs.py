"""What the project has is in the docs."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from execbroker.app import create_app
from execbroker.config import AuthSettings, Config, load, platform_class
from execbroker.model.phases import Phase
from execbroker.web.dialect import dialect, dialect_faces
from execbroker.web.draft import draft, draft_faces
from execbroker.web.openapi import describe

HOME = Path(__file__).parents[2]
DOCS = {path.name: path.read_text() for path in [*(HOME / "docs").glob("*.md"), HOME / "README.md"]}


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting of a model with its sentence, sections as dotted names."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        yield prefix + name, field.description or ""
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")


def settings() -> list[tuple[str, str]]:
    found = list(keys(Config))
    for type_ in ("local", "fake"):
        found += keys(platform_class(type_).Settings, "platforms[].")
    return sorted(set(found))


@pytest.mark.parametrize("key", [key for key, _ in settings()])
def test_every_setting_is_documented(key: str) -> None:
    assert f"`{key}`" in DOCS["configuration.md"]


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models within a type: of a list, of what may be left out."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models(part)


def listed(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The keys of what settings have in lists, or may leave out, with their sentences."""
    for field in model.model_fields.values():
        for inner in models(field.annotation):
            yield from ((one.alias or name, one.description or "") for name, one in inner.model_fields.items())
            yield from listed(inner)


@pytest.mark.parametrize(("key", "sentence"), sorted({*listed(platform_class("fake").Settings), *listed(AuthSettings)}))
def test_every_setting_of_a_list_is_documented(key: str, sentence: str) -> None:
    keys = f"`platforms[].pools.{key}`", f"`auth.admin.{key}`", f"`{key}`"
    rows = [line for line in DOCS["configuration.md"].splitlines() if line.startswith(tuple(f"| {name} |" for name in keys))]
    units = key == "units"  # one sentence, three defaults
    assert any(sentence in row for row in rows) or units, (key, sentence)


def test_every_setting_has_its_sentence() -> None:
    assert [key for key, sentence in settings() if not sentence.endswith(".")] == []


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_is_documented(phase: Phase) -> None:
    assert phase.value in DOCS["concepts.md"]


def routes(tmp_path: Path) -> list[tuple[str, str]]:
    paths: dict[str, Any] = describe(create_app(load(None, folder=tmp_path)))["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    hidden = [*dialect.routes, *dialect_faces.routes, *draft.routes, *draft_faces.routes]
    return found + [(method, route.path) for route in hidden for method in sorted(route.methods - {"HEAD"})]  # type: ignore[attr-defined]


def test_every_route_is_documented(tmp_path: Path) -> None:
    text = DOCS["api.md"]
    missing = [(method, path) for method, path in routes(tmp_path) if f"`{path}`" not in text and f"{method} {path}" not in text]
    assert missing == []


def test_every_command_is_documented() -> None:
    from typer.main import get_command

    from execbroker.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"`execbroker {name}" not in DOCS["command-line.md"]] == []


@pytest.mark.parametrize("page", ["writing-a-kind.md", "writing-a-platform.md"])
def test_the_examples_run(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS[page], re.DOTALL)
    assert blocks
    for block in blocks:
        subprocess.run([sys.executable, "-W", "error", "-c", block], check=True)


def test_links_between_pages_lead_somewhere() -> None:
    for page, text in DOCS.items():
        folder = HOME if page == "README.md" else HOME / "docs"
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (folder / target).exists(), f"{page} links to {target}"
