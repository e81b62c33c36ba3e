"""A Python client made by openapi-generator from the published schema, in a folder of its own outside the project."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from published import ROOT, lacking

BUNDLER = "@redocly/cli@2"
GENERATOR = "openapi-generator-cli>=7.26,<8"
PACKAGE = "published_client"
START = "from openapi_generator_cli import cli; cli()"

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class GeneratedClient:
    """`folder` holds the client and its dependencies, none of them the broker's."""

    folder: Path

    def run(self, script: Path, *arguments: str, stdin: str = "") -> Done:
        """Run `script` where the generated client can be imported and the broker cannot."""
        return _python((self.folder / "client", self.folder / "needs"), str(script), *arguments, stdin=stdin)


def generate(schema: Path) -> GeneratedClient:
    """The client for `schema`, made once per schema and kept below the system's folder for temporary files.

    The folder gets its name when it is complete, so that a run that was killed leaves nothing half made.
    """
    finished = Path(tempfile.gettempdir()) / f"execbroker-client-{os.getuid()}-{_fingerprint(schema)}"
    if not finished.exists():
        for program, origin in (("npx", "Node.js 20"), ("java", "a Java runtime of version 11")):
            if not shutil.which(program):
                lacking(f"making a client needs {program}: install {origin} or later")
        folder = Path(tempfile.mkdtemp(prefix=f"{finished.name}-"))
        try:
            _make(schema, folder)
            with suppress(OSError):  # another run was faster
                folder.rename(finished)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return GeneratedClient(finished)


def _make(schema: Path, folder: Path) -> None:
    bundle = folder / "bundle.yaml"
    _get("the bundler from the npm registry", "npx", "--yes", BUNDLER, "bundle", str(schema / ROOT), "-o", str(bundle))
    _install(folder / "generator", GENERATOR)
    _write_client(folder / "generator", bundle, folder / "client")
    _install(folder / "needs", "-r", str(folder / "client" / "requirements.txt"))


def generate_from(description: Path, folder: Path, other: GeneratedClient) -> GeneratedClient:
    """The client for an OpenAPI document of one file, with the tools and dependencies of `other`."""
    _write_client(other.folder / "generator", description, folder / "client")
    (folder / "needs").symlink_to(other.folder / "needs")
    return GeneratedClient(folder)


def _write_client(generator: Path, description: Path, client: Path) -> None:
    options = ("-i", str(description), "-g", "python", "-o", str(client), "--package-name", PACKAGE)
    made = _python((generator,), "-c", START, "generate", *options)
    assert made.returncode == 0, made.stdout + made.stderr


def _install(folder: Path, *what: str) -> None:
    _get(f"{what[-1]} from PyPI", sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *what)


def _get(what: str, *command: str) -> None:
    done = _run(command)
    if done.returncode:
        lacking(f"cannot get {what}: {(done.stderr or done.stdout).strip()[-400:]}")


def _python(path: tuple[Path, ...], *arguments: str, stdin: str = "") -> Done:
    """Without site packages, so that nothing but `path` is there to be imported."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return _run((sys.executable, "-S", *arguments), environment, stdin)


def _run(command: tuple[str, ...], environment: dict[str, str] | None = None, stdin: str = "") -> Done:
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, timeout=300, check=False)


def _fingerprint(schema: Path) -> str:
    digest = hashlib.sha256(f"{BUNDLER} {GENERATOR} {sys.version}".encode())
    for path in sorted(schema.rglob("*.yaml")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
