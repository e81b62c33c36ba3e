"""Generators, bundlers and compilers that are not ours: fetched once, into folders of their own outside the project."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from published import ROOT, lacking

BUNDLER = "@redocly/cli@2"
GENERATOR = "openapi-generator-cli>=7.26,<8"
START = "from openapi_generator_cli import cli; cli()"
ORIGINS = {"npx": "Node.js 20", "node": "Node.js 20", "java": "a JDK of version 17", "mvn": "Apache Maven 3.8"}
TRIES = 3
PATIENCE = 3600  # seconds

Done = subprocess.CompletedProcess[str]


def kept(name: str, make: Callable[[Path], None], *of: bytes | str) -> Path:
    """The folder that `make` makes, once for whatever it is made `of`, below the system's folder for temporary files.

    It gets its name when it is complete, so that a run that was killed leaves nothing half made.
    """
    finished = Path(tempfile.gettempdir()) / f"execbroker-{name}-{os.getuid()}-{_digest(*of, sys.version)}"
    if not finished.exists():
        folder = Path(tempfile.mkdtemp(prefix=f"{finished.name}-"))
        try:
            make(folder)
            with suppress(OSError):  # another run was faster
                folder.rename(finished)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return finished


def bundled(schema: Path) -> Path:
    """The published schema as one file."""
    need("npx")

    def make(folder: Path) -> None:
        get(
            "the bundler from the npm registry",
            "npx",
            "--yes",
            BUNDLER,
            "bundle",
            str(schema / ROOT),
            "-o",
            f"{folder}/bundle.yaml",
        )

    return kept("bundle", make, BUNDLER, *(path.read_bytes() for path in sorted(schema.rglob("*.yaml")))) / "bundle.yaml"


def write_client(description: Path, language: str, folder: Path, *options: str) -> None:
    """What openapi-generator makes of an OpenAPI document."""
    need("java")
    generator = kept("generator", lambda folder: install(folder, GENERATOR), GENERATOR)
    words = ("generate", "-i", str(description), "-g", language, "-o", str(folder), *options)
    made = python((generator,), "-c", START, *words)
    assert made.returncode == 0, made.stdout + made.stderr


def need(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            lacking(f"making a client needs {program}: install {ORIGINS[program]} or later")


def install(folder: Path, *what: str) -> None:
    """Python packages into a folder."""
    get(f"{what[-1]} from PyPI", sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *what)


def get(what: str, *command: str, cwd: Path | None = None, fault: str = "\0") -> None:
    """Run what downloads something, and again where that fails; that it says `fault` is no matter of downloads."""
    for _ in range(TRIES):
        done = run(*command, cwd=cwd)
        if not done.returncode:
            return
        assert fault not in done.stdout + done.stderr, done.stdout + done.stderr
    lacking(f"cannot get {what}: {(done.stderr + done.stdout).strip()[-800:]}")


def python(path: tuple[Path, ...], *arguments: str, stdin: str = "", cwd: Path | None = None) -> Done:
    """Without site packages, so that nothing but `path` is there to be imported."""
    return run(sys.executable, "-S", *arguments, stdin=stdin, cwd=cwd, PYTHONPATH=os.pathsep.join(map(str, path)))


def run(*command: str, stdin: str = "", cwd: Path | None = None, **environment: str) -> Done:
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        input=stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def alone(name: str) -> Iterator[Path]:
    """A folder for downloads that only one process at a time may write to."""
    folder = Path(tempfile.gettempdir()) / f"execbroker-{name}-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _digest(*of: bytes | str) -> str:
    digest = hashlib.sha256()
    for one in of:
        content = one.encode() if isinstance(one, str) else one
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:16]
