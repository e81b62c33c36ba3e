"""What opens the doors of brokers, and where it lies."""

import asyncio
import os
from pathlib import Path

import pytest

from execbroker.client import ClientError
from execbroker.client.discovery import find_broker
from execbroker.client.logins import Login, Logins, Password

ALICE, BOB = Password(username="alice", password="a secret"), Password(username="bob", password="another")


def keep(logins: Logins, url: str, login: Login) -> None:
    async def work() -> None:
        async with logins.locked():
            logins.keep(url, login)

    asyncio.run(work())


def test_only_its_owner_reads_the_file_whatever_the_mask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keep(Logins(tmp_path / "c"), "https://a", ALICE)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "c").iterdir()} == {
        "logins.json": 0o600,
        "logins.lock": 0o600,
    }
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_could_read_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    keep(Logins(tmp_path), "https://a", ALICE)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_what_somebody_left_who_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    logins = Logins(tmp_path)
    keep(logins, "https://a", ALICE)
    (tmp_path / "logins.new").write_text('{"https://a": {"usern')
    assert logins.find("https://a") == ALICE
    keep(logins, "https://b", BOB)
    assert (logins.find("https://a"), logins.find("https://b")) == (ALICE, BOB)
    assert not (tmp_path / "logins.new").exists()


def test_each_login_is_for_one_address(tmp_path: Path) -> None:
    logins = Logins(tmp_path)
    keep(logins, "https://Broker.example.org:443/eb/", ALICE)
    assert logins.find("https://broker.example.org/eb") == ALICE
    for other in (
        "http://broker.example.org/eb",
        "https://broker.example.org",
        "https://broker.example.org:8443/eb",
        "https://b/eb",
    ):
        assert logins.find(other) is None
    keep(logins, "http://[::1]:8080", BOB)
    assert logins.find("http://[::1]:8080/") == BOB


def test_nobody_changes_them_meanwhile(tmp_path: Path) -> None:
    async def add(number: int) -> None:
        logins = Logins(tmp_path)
        async with logins.locked():
            known = logins.find("https://count")
            await asyncio.sleep(0)
            count = int(known.username) if isinstance(known, Password) else 0
            logins.keep("https://count", Password(username=str(count + 1), password=str(number)))

    async def work() -> None:
        await asyncio.gather(*(add(number) for number in range(20)))

    asyncio.run(work())
    found = Logins(tmp_path).find("https://count")
    assert isinstance(found, Password)
    assert found.username == "20"


def test_a_token_that_is_named_comes_before_a_login_and_that_before_the_folder_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = "http://127.0.0.1:8080", "https://broker.example.org"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "token").write_text("the folder's")
    keep(Logins(), here, ALICE)
    place = find_broker(here, folder=tmp_path)
    assert (place.token, place.login) == (None, ALICE)
    assert (find_broker(there, folder=tmp_path).token, find_broker(there, folder=tmp_path).login) == (None, None)
    other = find_broker("http://127.0.0.1:8081", folder=tmp_path)
    assert (other.token, other.login) == ("the folder's", None)
    named = find_broker(here, "mine", tmp_path)
    assert (named.token, named.login) == ("mine", None)
    monkeypatch.setenv("EXECBROKER_TOKEN", "the environment's")
    place = find_broker(here, folder=tmp_path)
    assert (place.token, place.login) == ("the environment's", None)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "logins.json").write_text('{"https://a": ')
    with pytest.raises(ClientError, match=r"logins\.json is damaged: remove it"):
        Logins(tmp_path).find("https://a")


def test_secrets_are_not_shown_by_accident() -> None:
    assert "a secret" not in repr(ALICE)
