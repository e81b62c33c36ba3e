"""An issuer in this process that says what a test wants it to say, with keys that the test knows."""

import base64
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from execbroker.config import IssuerSettings

AUDIENCE = "https://broker.example.org"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
ANY = jws.JWSRegistry(algorithms=list(jws.JWSRegistry.algorithms), strict_check_header=False)
ANY.header_registry.pop("crit")


def public(*keys: Any) -> list[dict[str, Any]]:
    return [key.as_dict(private=False) for key in keys]


def packed(document: Any) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")


class IssuerSite:
    """Serves `keys`, and answers introspection with what `known` has of a token.

    `says` replaces the answer of a path, `then` its answers one after the other; `forms` are those that were sent.
    """

    def __init__(self) -> None:
        self.keys = public(RSA, EC)
        self.known: dict[str, dict[str, Any]] = {}
        self.says: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.then: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self.seen: Counter[str] = Counter()
        self.forms: list[dict[str, str]] = []
        self.credentials: set[str] = set()
        self._open()

    def _open(self, port: int = 0) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (_Handler,), {"site": self}))
        self._server.daemon_threads = True
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def start(self) -> None:
        """Again, where it was."""
        self._open(self._server.server_port)

    def settings(self, **more: Any) -> IssuerSettings:
        return IssuerSettings.model_validate({"issuer": self.issuer, "audience": [AUDIENCE], **more})

    def document(self) -> dict[str, Any]:
        endpoints = {"jwks_uri": f"{self.issuer}/keys", "introspection_endpoint": f"{self.issuer}/introspect"}
        return {"issuer": self.issuer, **endpoints}

    def claims(self, now: int, **more: Any) -> dict[str, Any]:
        found = {"iss": self.issuer, "sub": "alice", "aud": AUDIENCE, "iat": now, "exp": now + 600, **more}
        return {name: value for name, value in found.items() if value is not None}

    def token(self, now: int, key: Any = RSA, alg: str = "RS256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Signed; a header or a claim that is None is left out."""
        headers = {"alg": alg, "kid": key.kid, **(header or {})}
        headers = {name: value for name, value in headers.items() if value is not None}
        return self.signed(headers, json.dumps(self.claims(now, **claims)).encode(), key)

    def signed(self, header: dict[str, Any], payload: bytes, key: Any = RSA) -> str:
        text = packed(header) + b"." + base64.urlsafe_b64encode(payload).rstrip(b"=")
        signature = ANY.algorithms[header["alg"]].sign(text, key)
        return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


class _Handler(BaseHTTPRequestHandler):
    site: IssuerSite

    def do_GET(self) -> None:
        documents = {"/.well-known/openid-configuration": self.site.document(), "/keys": {"keys": self.site.keys}}
        self._answer(documents.get(self.path, {"path": self.path}))

    def do_POST(self) -> None:
        form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        self.site.forms.append(form)
        if credentials := self.headers.get("Authorization"):
            self.site.credentials.add(base64.b64decode(credentials.partition(" ")[2]).decode())
        self._answer(self.site.known.get(form.get("token", ""), {"active": False}))

    def _answer(self, document: dict[str, Any]) -> None:
        self.site.seen[self.path] += 1
        status, headers, content = self.site.says.get(self.path, (200, {}, json.dumps(document).encode()))
        if left := self.site.then.get(self.path):
            status, document = left.pop(0)
            content = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
