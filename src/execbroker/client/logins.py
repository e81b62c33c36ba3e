import asyncio
import base64
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from execbroker.client.problems import ClientError
from execbroker.places import config_folder

PORTS = {"http": 80, "https": 443}
PATIENCE = 0.05  # seconds between two looks at a lock


class Password(BaseModel):
    """An account of the broker's own."""

    username: str
    password: str = Field(repr=False)

    @property
    def header(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Tokens(BaseModel):
    """What an issuer gave for a broker, and where it gives more; `expires` is in seconds since 1970, None where it did not say.

    `target` is what names the broker in each request for a token.
    """

    issuer: str
    client_id: str
    token_endpoint: str
    revocation_endpoint: str | None = None
    target: dict[str, str] = {}
    access_token: str = Field(repr=False)
    refresh_token: str | None = Field(None, repr=False)
    expires: float | None = None

    @property
    def header(self) -> str:
        return f"Bearer {self.access_token}"

    def is_over(self, ahead: float = 0) -> bool:
        """Whether it has expired, or will within so many seconds."""
        return self.expires is not None and time.time() + ahead >= self.expires


Login = Password | Tokens
LOGINS: TypeAdapter[dict[str, Login]] = TypeAdapter(dict[str, Login])


class Logins:
    """What opens the doors of brokers, each for the one it was made for: a file that only its owner reads."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or config_folder()
        self._path = self._folder / "logins.json"

    def find(self, url: str) -> Login | None:
        """The login for the broker at this address. Raises ClientError where the file is damaged."""
        return self._read().get(_origin(url))

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Nobody else changes them meanwhile, in this process or another one."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        with open(os.open(self._folder / "logins.lock", os.O_RDWR | os.O_CREAT, 0o600), "w") as lock:  # noqa: PTH123, ASYNC230
            while not _taken(lock.fileno()):  # noqa: ASYNC110 -- another process sets no event of ours
                await asyncio.sleep(PATIENCE)
            yield

    def keep(self, url: str, login: Login) -> None:
        """Under the lock."""
        self._write(self._read() | {_origin(url): login})

    def forget(self, url: str) -> Login | None:
        """What it was, if there was one. Under the lock."""
        logins = self._read()
        found = logins.pop(_origin(url), None)
        if found:
            self._write(logins)
        return found

    def _read(self) -> dict[str, Login]:
        try:
            return LOGINS.validate_json(self._path.read_bytes())
        except OSError:
            return {}
        except ValidationError:
            raise ClientError(
                None, "The logins cannot be read", f"{self._path} is damaged: remove it, and log in again"
            ) from None

    def _write(self, logins: dict[str, Login]) -> None:
        """In whole or not at all, and at no instant for others to read."""
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)  # of somebody who was killed here
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({url: login.model_dump() for url, login in logins.items()}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _origin(url: str) -> str:
    """An address as it is compared: `HTTPS://Broker.example.org:443/` is `https://broker.example.org`."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
