"""A real OpenID provider, in a process of its own: npm's `oidc-provider`."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin

import httpx
import pytest

PACKAGE = "oidc-provider@9.13.3"
SCRIPT = Path(__file__).with_suffix(".mjs")
AUDIENCE = "https://broker.example.org"
SECRET = "a secret of the tests"
NODE = "Node.js 20 or later is needed for an OpenID provider: install nodejs and npm"


class Provider:
    """An issuer on a port of this machine that gives tokens to whoever asks for them in the right way.

    It signs with RS256 and ES256; `lifetime` (seconds) is that of its access tokens, `patience` that of its device codes, and
    `groups` are those of the people who log in by a device. People log in under any name, with any password.
    """

    def __init__(self, **settings: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.issuer = f"http://127.0.0.1:{self.port}"
        defaults = {"lifetime": 600, "patience": 600, "groups": [], "device": True}
        given = {"issuer": self.issuer, "port": self.port, "secret": SECRET, "audience": AUDIENCE}
        self._settings = defaults | settings | given
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """With new keys, and nothing known of earlier tokens."""
        command = ["node", "--input-type=module", "--eval", SCRIPT.read_text(), json.dumps(self._settings)]
        self._process = process = subprocess.Popen(
            command, cwd=installed(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if "READY" not in iter(lambda: process.stdout.readline().strip(), ""):
            pytest.fail(f"the OpenID provider did not start: {process.communicate()[1]}")

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    @property
    def settings(self) -> dict[str, Any]:
        """What a broker's `auth.issuers` has of it."""
        return {"issuer": self.issuer, "audience": [AUDIENCE], "client_id": "execbroker-cli"}

    @property
    def introspection(self) -> dict[str, Any]:
        return {"client_id": "broker", "client_secret": SECRET}

    def token(
        self,
        audience: str = AUDIENCE,
        groups: tuple[str, ...] = (),
        subject: str = "alice",
        *,
        alg: str = "RS256",
        opaque: bool = False,
        lifetime: int = 600,
        **claims: Any,
    ) -> str:
        """An access token: a signed one, with further claims, or an `opaque` one, which is revoked by `revoke`."""
        form = {"groups": json.dumps(groups), "subject": subject, "alg": alg, "claims": json.dumps(claims)}
        more = {"lifetime": str(lifetime), **({"opaque": "1"} if opaque else {})}
        answer = self._post("/token", {"grant_type": "client_credentials", "resource": audience, **form, **more})
        return str(answer.json()["access_token"])

    def revoke(self, token: str) -> None:
        """An opaque token; signed ones live until they expire."""
        self._post("/token/revocation", {"token": token})

    def rotate(self) -> None:
        """Sign with new keys, and forget the old ones."""
        httpx.get(f"{self.issuer}/control/rotate").raise_for_status()

    def seen(self, path: str) -> int:
        """How often this path was asked for."""
        return int(httpx.get(f"{self.issuer}/control/seen").json().get(path, 0))

    def public_keys(self) -> list[dict[str, Any]]:
        """Those that it signs with now."""
        return list(httpx.get(f"{self.issuer}/jwks").json()["keys"])

    def _post(self, path: str, form: dict[str, str]) -> httpx.Response:
        answer = httpx.post(self.issuer + path, data=form, auth=("service", SECRET.replace(" ", "+")))
        assert answer.status_code == 200, answer.text
        return answer

    def approve(self, address: str, username: str = "alice") -> None:
        """Do what a person does in a browser at the address that a device has shown: log in, and agree."""
        with httpx.Client(follow_redirects=True) as browser:
            page = browser.get(address)
            while form := re.search(r"<form.*?</form>", page.text, re.DOTALL):
                page = _submit(browser, page, form[0], {"login": username, "password": "any"})
            assert "success" in page.text, page.text

    def deny(self, address: str) -> None:
        """Turn down what a device has asked for."""
        with httpx.Client(follow_redirects=True) as browser:
            page = browser.get(address)
            page = _submit(browser, page, re.search(r"<form.*?</form>", page.text, re.DOTALL)[0], {})
            page = _submit(browser, page, re.search(r"<form.*?</form>", page.text, re.DOTALL)[0], {"abort": "yes"})
            assert "interrupted" in page.text, page.text


def _submit(browser: httpx.Client, page: httpx.Response, form: str, values: dict[str, str]) -> httpx.Response:
    action = re.search(r'action="([^"]*)"', form)[1]
    fields = re.findall(r'name="([^"]*)"[^>]*value="([^"]*)"', form)
    fields += [(name, value) for value, name in re.findall(r'value="([^"]*)"[^>]*name="([^"]*)"', form)]
    named = set(re.findall(r'name="([^"]*)"', form))
    filled = dict(fields) | {name: value for name, value in values.items() if name in named or name == "abort"}
    return browser.post(urljoin(str(page.url), unescape(action)), data=filled)


def installed() -> Path:
    """A folder with the provider, made once and kept below the system's folder for temporary files."""
    finished = Path(tempfile.gettempdir()) / f"execbroker-{PACKAGE.replace('@', '-')}-{os.getuid()}"
    if finished.exists():
        return finished
    if not (shutil.which("node") and shutil.which("npm")):
        lacking(NODE)
    folder = Path(tempfile.mkdtemp(prefix=f"{finished.name}-"))
    try:
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            lacking(f"cannot get {PACKAGE} from the npm registry: {(done.stderr or done.stdout).strip()[-400:]}")
        with suppress(OSError):  # another run was faster
            folder.rename(finished)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return finished


def lacking(what: str) -> None:
    """Skip the test, saying what it needs; where everything has to be there, it fails."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
