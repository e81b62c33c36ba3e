import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import recorded
import stores

DEADLINE = 20.0
RECORDED = Path(__file__).with_name("recorded.py")
SITE = {
    "name": "site",
    "type": "fake",
    "lasts": "PT3S",
    "poll": "PT1S",
    "nodes": [{"count": 4, "cores": 8, "memory": 32, "storage": 100}],
}


@dataclass
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass
class Site:
    """A broker process of its own, with its data folder, and the commands that talk to it."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=lambda: {"platforms": [SITE]})
    port: int = 0
    process: subprocess.Popen[str] | None = None
    log: int = subprocess.PIPE
    """Where it logs. A pipe that nobody reads is full some day, and then the broker waits: who makes it say much needs a file."""

    def start(self) -> "Site":
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump({"database": stores.address(self.data), **self.settings}))
        recorded.watch(self.data)
        self.process = spawn(
            "serve", "--config", str(config), "--port", str(self.port), "--data", str(self.data), judged=True, log=self.log
        )
        self.said = [self.process.stdout.readline().strip() for _ in range(2)]
        if not all(self.said):
            pytest.fail(f"the broker did not start: {self.process.communicate()[1]}")
        self.url = json.loads((self.data / "server.json").read_text())["url"]
        return self

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def authorization(self) -> str:
        """How requests say who comes, where that is whoever can read the token."""
        return f"Bearer {(self.data / 'token').read_text().strip()}"

    def stop(self, how: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Its exit code, and all that it still said."""
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err

    def __call__(self, *words: str, **how: Any) -> Finished:
        database = {"EXECBROKER_DATABASE": address} if (address := stores.address(self.data)) else {}
        return execbroker(*words, "--data", str(self.data), **database, **how)


def environment(**values: str) -> dict[str, str]:
    """Ours, without what would lead a command to another broker, or make its output look different."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXECBROKER_") and name != "COLUMNS"}
    return {**kept, "TZ": "UTC", **values}


def spawn(*words: str, judged: bool = False, log: int = subprocess.PIPE, **values: str) -> subprocess.Popen[str]:
    """Start a command; a broker that is to be `judged` writes down what it answers."""
    return subprocess.Popen(
        [sys.executable, *([str(RECORDED)] if judged else ["-m", "execbroker"]), *words],
        env=environment(**values),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )


def execbroker(*words: str, stdin: str = "", **values: str) -> Finished:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "execbroker", *words],
        env=environment(**values),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Finished(done.returncode, done.stdout, done.stderr)


async def until(true: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """What `true` says once it says yes."""
    async with asyncio.timeout(deadline):
        while not (found := true()):  # noqa: ASYNC110 -- another process sets no event of ours
            await asyncio.sleep(0.05)
    return found
