"""Imports point one way, and the client stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import execbroker

ROOT = Path(execbroker.__file__).parent
TIERS = [
    {"model", "errors", "faults", "places"},
    {"codecs", "dialect2024", "documents", "draft", "kinds", "xml"},
    {"scheduling", "staging", "platforms"},
    {"config"},
    {
        "ledger",
        "lowering",
        "store",
        "offers",
        "policies",
        "books",
        "engine",
        "broker",
        "faces",
        "profiles",
        "rendering",
        "metrics",
        "access",
    },
    {"web"},
    {"app"},
]
VISITORS = {"client", "cli", "demo"}
LIGHT = {"model", "kinds", "codecs", "errors", "places", "xml"} | VISITORS
SERVING = {"app", "config", "web"}


def rooms_imported(path: Path, *, top_only: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("execbroker.")}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_imports_point_one_way() -> None:
    tier_of = {room: number for number, rooms in enumerate(TIERS) for room in rooms}
    files = [path for path in ROOT.rglob("*.py") if room_of(path) in tier_of]
    assert {room_of(path) for path in files} == set(tier_of)
    wrong = [
        f"{path.relative_to(ROOT)} imports {room}"
        for path in files
        for room in rooms_imported(path, top_only=False)
        if tier_of.get(room, 99) > tier_of[room_of(path)]
    ]
    assert wrong == []


def test_scheduling_and_platforms_do_not_know_each_other() -> None:
    apart = {"scheduling": {"model", "scheduling"}, "platforms": {"model", "errors", "staging", "platforms"}}
    for room, allowed in apart.items():
        for path in (ROOT / room).rglob("*.py"):
            assert rooms_imported(path, top_only=False) <= allowed, path


def test_visitors_import_only_what_travels() -> None:
    for path in ROOT.rglob("*.py"):
        if room_of(path) in VISITORS:
            assert rooms_imported(path, top_only=True) <= LIGHT, path
            assert rooms_imported(path, top_only=False) <= LIGHT | SERVING, path


def test_the_client_is_light() -> None:
    code = "import sys, execbroker.client, execbroker.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sqlalchemy", "fastapi", "uvicorn", "alembic", "execbroker.app"} & set(loaded)
