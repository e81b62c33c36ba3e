"""Local accounts: who is let in, who makes them, what a wrong one costs."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from brokersite import Site
from execbroker.access.accounts import WAITING
from execbroker.config import Config, load
from execbroker.errors import Busy, StartupError, Unauthorized
from people import ADMIN, ALICE, AUTH, enrol


def run(tmp_path: Path, work: Callable[[Site], Awaitable[None]], **auth: Any) -> None:
    async def all_of_it() -> None:
        async with Site(tmp_path, auth=AUTH | auth) as site:
            await work(site)

    asyncio.run(all_of_it())


def test_an_account_from_the_first_day_to_the_last(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        made = await enrol(site, groups=["astro"])
        assert (made.status_code, set(made.json())) == (201, {"uuid", "username"})
        uuid = made.json()["uuid"]
        answer = await site.client.get("/sessions", auth=ALICE)
        assert (answer.status_code, answer.headers["x-vo-authenticated"]) == (200, "alice")
        (known,) = (await site.client.get("/admin/identities", auth=ADMIN)).json()["identities"]
        assert (known["uuid"], known["username"], known["groups"], known["disabled"]) == (uuid, "alice", ["astro"], False)

        away = await site.client.post(f"/admin/identities/{uuid}", json={"disabled": True}, auth=ADMIN)
        assert (away.status_code, away.json()["disabled"]) == (200, True)
        assert (await site.client.get("/sessions", auth=ALICE)).status_code == 403
        back = {"disabled": False, "password": "another password"}
        assert (await site.client.post(f"/admin/identities/{uuid}", json=back, auth=ADMIN)).status_code == 200
        assert (await site.client.get("/sessions", auth=ALICE)).status_code == 401
        assert (await site.client.get("/sessions", auth=("alice", "another password"))).status_code == 200

    run(tmp_path, work)


def test_accounts_outlive_the_broker(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        await enrol(site)
        await site.restart()
        assert (await site.client.get("/sessions", auth=ALICE)).status_code == 200

    run(tmp_path, work)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        answers = await asyncio.gather(*(enrol(site, ("alice", f"password {number}")) for number in range(8)))
        made = [answer.json()["uuid"] for answer in answers if answer.status_code == 201]
        taken = [answer.json() for answer in answers if answer.status_code == 409]
        assert (len(made), len(taken), {document["uuid"] for document in taken}) == (1, 7, set(made))
        assert (await enrol(site, ADMIN)).status_code == 409

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"username": "a:b", "password": "long enough"}, "username"),
        ({"username": "", "password": "long enough"}, "username"),
        ({"username": "alice\n", "password": "long enough"}, "username"),
        ({"username": "alice", "password": "short"}, "password"),
        ({"username": "alice", "password": "x" * 1025}, "password"),
        ({"username": "alice", "password": "long enough", "groups": ["a b"]}, "groups[0]"),
        ({"username": "alice"}, "password"),
        ({"password": "long enough"}, "username"),
        ({"username": "alice", "password": ["long enough"]}, "password"),
        ({"username": "alice", "password": "long enough", "admin": True}, "admin"),
        ({"username": 1, "password": "long enough"}, "username"),
    ],
)
def test_an_account_that_cannot_be(tmp_path: Path, document: dict[str, Any], path: str) -> None:
    async def work(site: Site) -> None:
        answer = await site.client.post("/admin/identities", json=document, auth=ADMIN)
        assert (answer.status_code, [fault["path"] for fault in answer.json()["errors"]]) == (400, [path])
        assert "long enough" not in answer.text
        assert (await site.client.get("/admin/identities", auth=ADMIN)).json()["identities"] == []

    run(tmp_path, work)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Basic",
        "Basic !!!",
        "Basic " + b64encode(b"no-colon").decode(),
        "Basic " + b64encode(b"\xff:\xff").decode(),
        "Basic " + b64encode(b"alice:wrong password").decode(),
        "Basic " + b64encode(b"nobody:battery staple").decode(),
        "Basic " + b64encode(b"boss:wrong password").decode(),
        "Basic " + b64encode(b"alice:").decode(),
        "Basic " + b64encode(b"al\0ice:battery staple").decode(),
        "Basic " + b64encode(b"alice:" + b"x" * 5000).decode(),
        "Bearer abc",
        "Digest username=alice",
    ],
)
def test_who_is_not_let_in(tmp_path: Path, header: str | None) -> None:
    async def work(site: Site) -> None:
        await enrol(site)
        answer = await site.client.get("/sessions", headers={"authorization": header} if header else {})
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
        assert answer.headers.get_list("www-authenticate") == ['Basic realm="execbroker", charset="UTF-8"']
        assert "x-vo-authenticated" not in answer.headers
        assert (await site.client.get("/sessions", auth=ALICE)).status_code == 200

    run(tmp_path, work)


@pytest.mark.parametrize("name", ["boss", "\0"])
def test_guessing_at_a_name_that_has_no_hash_costs_one(tmp_path: Path, name: str) -> None:
    async def work(site: Site) -> None:
        accounts = site.app.state.accounts
        guesses = [b64encode(f"{name}:wrong password {number}".encode()).decode() for number in range(WAITING + 2)]
        found = await asyncio.gather(*map(accounts.recognise, guesses), return_exceptions=True)
        assert {type(one) for one in found} == {Unauthorized, Busy}

    run(tmp_path, work)


def test_the_token_of_the_data_folder_opens_nothing(tmp_path: Path) -> None:
    async def work(site: Site) -> None:
        answer = await site.client.get("/sessions", headers={"authorization": "Bearer 0123456789"})
        assert answer.status_code == 401

    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "token").write_text("0123456789")
    run(tmp_path, work)


def test_a_broker_without_accounts_makes_none(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path) as site:
            assert (await site.client.post("/admin/identities", json={})).status_code == 404

    asyncio.run(work())


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ({"mode": "accounts"}, "needs `auth.admin`"),
        ({"mode": "token", "admin": {"username": "boss", "password": "correct horse"}}, "means nothing"),
        ({"mode": "accounts", "admin": {"username": "bo:ss", "password": "correct horse"}}, "auth.admin.username"),
        ({"mode": "accounts", "admin": {"username": "boss", "password": "short"}}, "auth.admin.password"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, auth: dict[str, Any], said: str) -> None:
    with pytest.raises(StartupError, match=said):
        load(None, folder=tmp_path, auth=auth)


def test_the_admins_password_is_not_shown(tmp_path: Path) -> None:
    config = load(None, folder=tmp_path, auth=AUTH)
    assert isinstance(config, Config)
    assert ADMIN[1] not in f"{config!r}{config.model_dump_json()}"
