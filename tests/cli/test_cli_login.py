"""Logging in from the command line, at a real provider and with an account, to a broker that knows both."""

import asyncio
import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

import recorded
from execbroker.client import AsyncClient, Client
from execbroker.config import Config
from oidcsite import Provider
from processsite import DEADLINE, SITE, Finished, Site, environment, execbroker, spawn

ADMIN = {"username": "boss", "password": "correct horse"}


@contextmanager
def broker_for(folder: Path, *issuers: dict[str, Any]) -> Iterator[str]:
    """The address of a broker that trusts these issuers."""
    auth = {"mode": "accounts", "admin": ADMIN, "issuers": issuers}
    recorded.watch(folder)
    app = recorded.recorded(Config(folder=folder, platforms=[SITE], auth=auth))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await server.serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Its access tokens are so short that each command renews them."""
    with Provider(lifetime=59) as one:
        yield one


@pytest.fixture(scope="module")
def url(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with broker_for(tmp_path_factory.mktemp("accounts"), provider.settings) as found:
        yield found


class Person:
    """Somebody with a configuration folder of their own, at a broker."""

    def __init__(self, home: Path, url: str) -> None:
        self.home, self.url = home, url

    @property
    def where(self) -> dict[str, str]:
        return {"XDG_CONFIG_HOME": str(self.home)}

    def __call__(self, *words: str, **how: str) -> Finished:
        return execbroker(*words, "--url", self.url, **self.where, **how)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return spawn(*words, "--url", self.url, **self.where)

    @property
    def file(self) -> Path:
        return self.home / "execbroker" / "logins.json"

    @property
    def kept(self) -> Any:
        """What is kept for the broker."""
        return json.loads(self.file.read_text())[self.url] if self.file.exists() else None

    def keep(self, **values: Any) -> None:
        self.file.write_text(json.dumps({self.url: self.kept | values}))

    def device_login(self, provider: Provider, username: str = "alice", *, agree: bool = True) -> Finished:
        """`execbroker login`, and what the person does in a browser meanwhile."""
        process = self.start("login")
        said = ""
        while not (match := re.search(r"or open (\S+)\n", said)):
            line = process.stdout.readline()
            assert line, process.communicate()
            said += line
        provider.approve(match[1], username) if agree else provider.deny(match[1])
        out, err = process.communicate(timeout=DEADLINE)
        return Finished(process.returncode, said + out, err)


@pytest.fixture
def alice(tmp_path: Path, url: str) -> Person:
    return Person(tmp_path / "config", url)


def test_a_login_by_a_device_code_is_for_all_commands(alice: Person, provider: Provider) -> None:
    assert alice("platforms").code == 4
    done = alice.device_login(provider)
    assert (done.code, done.err) == (0, "")
    assert f"{provider.issuer}/device\n" in done.out
    assert re.search(r"\n    [A-Z]{4}-[A-Z]{4}\n", done.out)
    assert done.out.endswith(f"Logged in to {alice.url} as alice\n")
    assert alice("platforms").code == 0
    assert alice("platforms", EXECBROKER_TOKEN="another").code == 4
    assert alice.file.stat().st_mode & 0o777 == 0o600


def test_the_python_client_uses_it_too(alice: Person, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    alice.device_login(provider)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(alice.home))
    with Client(alice.url) as client:
        assert client.platforms()["platforms"]


def test_clients_at_the_same_time_do_not_renew_it_twice(
    alice: Person, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that sees a refresh token twice takes it for stolen, and revokes them all."""
    alice.device_login(provider)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(alice.home))

    async def work() -> None:
        for _ in range(2):
            clients = [AsyncClient(alice.url) for _ in range(5)]
            await asyncio.gather(*(client.platforms() for client in clients))
            await asyncio.gather(*(client.close() for client in clients))

    asyncio.run(work())
    alice.keep(expires=0)
    assert alice("platforms").code == 0, "the login can still be renewed"


def test_commands_at_the_same_time_all_find_it_renewed(alice: Person, provider: Provider) -> None:
    alice.device_login(provider)
    first = alice.kept
    running = [alice.start("platforms") for _ in range(4)]
    assert [(process.communicate(timeout=60), process.returncode)[1] for process in running] == [0] * 4
    alice.keep(expires=0)
    assert alice("platforms").code == 0, "the login can still be renewed"
    assert alice.kept["refresh_token"] != first["refresh_token"]
    assert alice.kept["access_token"] != first["access_token"]


def test_logging_out_is_told_to_the_issuer(alice: Person, provider: Provider) -> None:
    alice.device_login(provider)
    kept = alice.kept
    assert alice("logout").out == f"Logged out of {alice.url}\n"
    form = {"grant_type": "refresh_token", "client_id": kept["client_id"], "refresh_token": kept["refresh_token"]}
    assert httpx.post(kept["token_endpoint"], data=form).json()["error"] == "invalid_grant"
    assert alice("platforms").code == 4
    assert alice("logout").out == f"You were not logged in to {alice.url}\n"


def test_who_turns_it_down_is_not_logged_in(alice: Person, provider: Provider) -> None:
    done = alice.device_login(provider, agree=False)
    assert (done.code, done.err) == (
        4,
        f"execbroker: You are not logged in: The request was turned down at {provider.issuer}\n",
    )
    assert alice.kept is None


def test_a_login_that_is_over_says_so(alice: Person, provider: Provider) -> None:
    alice.device_login(provider)
    alice.keep(refresh_token="of yesterday", expires=0)
    done = alice("platforms")
    assert done.code == 4
    assert f"Log in to {alice.url} again: execbroker login" in done.err


def test_an_issuer_that_is_away_is_missed_when_the_login_is_over(alice: Person, provider: Provider) -> None:
    alice.device_login(provider)
    alice.keep(token_endpoint="http://127.0.0.1:9/token")
    assert alice("platforms").code == 0, "what there is still counts"
    alice.keep(expires=0)
    done = alice("platforms")
    assert (done.code, "No answer from http://127.0.0.1:9/token" in done.err) == (3, True)


def test_a_code_that_nobody_enters_expires(tmp_path: Path) -> None:
    with Provider(patience=2) as hasty, broker_for(tmp_path / "broker", hasty.settings) as url:
        done = Person(tmp_path, url)("login")
    assert done.code == 4
    assert "Nobody has agreed in time" in done.err


def test_an_issuer_without_device_codes_is_named(tmp_path: Path) -> None:
    with Provider(device=False) as plain, broker_for(tmp_path / "broker", plain.settings) as url:
        done = Person(tmp_path, url)("login")
    assert (done.code, f"The issuer {plain.issuer} has no login for devices" in done.err) == (4, True)


def test_one_of_several_issuers_is_to_be_named(tmp_path: Path, provider: Provider) -> None:
    other = provider.settings | {"issuer": "https://iam.example.org"}
    without = provider.settings | {"issuer": "https://machines.example.org", "client_id": None}
    with broker_for(tmp_path / "broker", provider.settings, other, without) as url:
        bob = Person(tmp_path, url)
        assert httpx.get(f"{url}/login").json()["basic"]
        done = bob("login")
        assert (done.code, done.err.splitlines()[1:]) == (2, [f"  {provider.issuer}", "  https://iam.example.org"])
        assert "no such one" in bob("login", "--issuer", "https://machines.example.org").err


def test_a_broker_without_issuers_wants_a_name(tmp_path: Path) -> None:
    with broker_for(tmp_path / "broker") as url:
        bob = Person(tmp_path, url)
        assert "name yours by --username" in bob("login").err
        assert bob("login", "--username", "boss", stdin="wrong\n").code == 4
        assert bob.kept is None
        done = bob("login", "--username", "boss", stdin="correct horse\n")
        assert (done.code, done.out) == (0, f"Logged in to {url} as boss\n")
        assert bob("platforms").code == 0
        assert bob("logout").code == 0
        assert bob("platforms").code == 4


def test_a_password_is_not_echoed(tmp_path: Path, alice: Person) -> None:
    main, other = pty.openpty()
    command = [sys.executable, "-m", "execbroker", "login", "--username", "boss", "--url", alice.url]
    process = subprocess.Popen(
        command, env=environment(**alice.where), stdin=other, stdout=other, stderr=other, start_new_session=True
    )
    os.close(other)
    said = b""
    with suppress(OSError):  # the end of a terminal
        while select.select([main], [], [], DEADLINE)[0] and (more := os.read(main, 1000)):
            said += more
            if said.endswith(b"Password: "):
                os.write(main, b"correct horse\n")
    os.close(main)
    assert process.wait(DEADLINE) == 0
    assert b"as boss" in said
    assert b"correct horse" not in said


def test_a_broker_without_accounts_says_so(broker: Site) -> None:
    done = broker("login")
    assert (done.code, done.err) == (2, f"execbroker: The broker at {broker.url} has no accounts: nobody logs in there\n")


@pytest.mark.parametrize("command", ["login", "logout"])
def test_nothing_is_told_where_others_listen(command: str, tmp_path: Path) -> None:
    done = Person(tmp_path, "http://broker.example.org")(command)
    assert (done.code, "is not https" in done.err) == (2, True)


def test_a_damaged_file_is_named(alice: Person) -> None:
    alice.file.parent.mkdir(parents=True)
    alice.file.write_text("{")
    for command in ("platforms", "login", "logout"):
        done = alice(command)
        assert (done.code, f"{alice.file} is damaged: remove it" in done.err) == (4, True)


def test_where_no_broker_is_none_is_found(tmp_path: Path) -> None:
    done = Person(tmp_path, "http://127.0.0.1:9")("login")
    assert (done.code, "does not answer" in done.err) == (3, True)
