"""Clients made by openapi-generator, in folders of their own outside the project, unmodified."""

from dataclasses import dataclass
from pathlib import Path

from tools import GENERATOR, Done, alone, get, install, kept, need, python, run, write_client

HERE = Path(__file__).parent
PACKAGE = "published_client"
JAVA = (
    "--library", "native", "--global-property", "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false",
    "--additional-properties", "useSingleRequestParameter=true",
    "--invoker-package", "client", "--api-package", "client.api", "--model-package", "client.model",
    # With one object for all parameters, one that is called `wait` would hide a method that no Java class may have of its own.
    "--parameter-name-mappings", "wait=seconds",
)  # fmt: skip
MAVEN = ("mvn", "--quiet", "--batch-mode", "compile", "dependency:copy-dependencies", "-DincludeScope=compile")
TYPESCRIPT = ("typescript@5.9.3", "@types/node@20")
TSC = ("--strict", "--target", "es2022", "--module", "commonjs", "--moduleResolution", "node", "--esModuleInterop")


@dataclass(frozen=True)
class GeneratedClient:
    """A Python client: `folder` holds it, and `needs` what it depends on, none of that the broker's."""

    folder: Path
    needs: Path

    def run(self, script: Path, *arguments: str, stdin: str = "") -> Done:
        """Run `script` where the generated client can be imported and the broker cannot."""
        return python((self.folder, self.needs), str(script), *arguments, stdin=stdin)

    def visit(self, *arguments: str) -> Done:
        return self.run(HERE / "visit.py", *arguments)


@dataclass(frozen=True)
class JavaClient:
    """A Java client, compiled by Maven, and its dependencies."""

    folder: Path

    def visit(self, *arguments: str) -> Done:
        path = f"{self.folder}/target/classes:{self.folder}/target/lib/*"
        return run("java", "-cp", path, str(HERE / "Visit.java"), *arguments)


@dataclass(frozen=True)
class TypescriptClient:
    """A TypeScript client, compiled together with the visit by it."""

    folder: Path

    def visit(self, *arguments: str) -> Done:
        return run("node", str(self.folder / "made" / "visit.js"), *arguments)


def for_python(description: Path) -> GeneratedClient:
    def make(folder: Path) -> None:
        write_client(description, "python", folder, "--package-name", PACKAGE)

    folder = kept("python-client", make, GENERATOR, description.read_bytes())
    needs = (folder / "requirements.txt").read_text()
    return GeneratedClient(folder, kept("python-needs", lambda made: install(made, "-r", f"{folder}/requirements.txt"), needs))


def for_java(description: Path) -> JavaClient:
    need("java", "mvn")

    def make(folder: Path) -> None:
        write_client(description, "java", folder, *JAVA)
        with alone("maven") as repository:
            where = (f"-Dmaven.repo.local={repository}", f"-DoutputDirectory={folder}/target/lib")
            get("what Java clients need from Maven Central", *MAVEN, *where, cwd=folder, fault="COMPILATION ERROR")

    return JavaClient(kept("java-client", make, GENERATOR, description.read_bytes(), *JAVA))


def for_typescript(description: Path) -> TypescriptClient:
    need("node", "npx")
    tools = kept("typescript", _install_typescript, *TYPESCRIPT)
    visit = HERE / "visit.ts"

    def make(folder: Path) -> None:
        write_client(description, "typescript-fetch", folder / "client")
        (folder / "visit.ts").write_bytes(visit.read_bytes())
        types = ("--typeRoots", f"{tools}/node_modules/@types", "--types", "node")
        done = run(f"{tools}/node_modules/.bin/tsc", *TSC, *types, "--outDir", f"{folder}/made", f"{folder}/visit.ts")
        assert done.returncode == 0, done.stdout + done.stderr

    return TypescriptClient(kept("typescript-client", make, GENERATOR, description.read_bytes(), visit.read_bytes(), *TSC))


def _install_typescript(folder: Path) -> None:
    (folder / "package.json").write_text("{}")
    get("TypeScript from the npm registry", "npm", "install", "--silent", "--no-audit", "--no-fund", *TYPESCRIPT, cwd=folder)
