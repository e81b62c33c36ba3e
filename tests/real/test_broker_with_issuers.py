"""People who come with the tokens of a real OpenID provider, beside those with accounts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brokersite import NOTEBOOK, ManualClock, Site
from oidcsite import AUDIENCE, Provider
from people import ADMIN, ALICE, AUTH, enrol

CHALLENGES = ['Basic realm="execbroker", charset="UTF-8"', 'Bearer realm="execbroker"']


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def run(tmp_path: Path, provider: Provider, work: Callable[[Site], Awaitable[None]], **more: Any) -> None:
    async def all_of_it() -> None:
        now = ManualClock()
        now.step(_seconds_from(now))
        async with Site(tmp_path, now, auth=AUTH | {"issuers": [provider.settings | more]}) as site:
            await work(site)

    asyncio.run(all_of_it())


def _seconds_from(clock: ManualClock) -> float:
    """The provider's clock is that of the machine."""
    from execbroker.model.times import Clock

    return (Clock().now() - clock.now()).total_seconds()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_both_ways_in_at_once(tmp_path: Path, provider: Provider) -> None:
    async def work(site: Site) -> None:
        await enrol(site)
        token = provider.token(subject="carol", groups=("astro",), preferred_username="Carol")
        seen = await site.client.get("/sessions", headers=bearer(token))
        assert (seen.status_code, seen.headers["x-vo-authenticated"]) == (200, "Carol")
        assert (await site.client.get("/sessions", auth=ALICE)).headers["x-vo-authenticated"] == "alice"
        for wrong in ({}, bearer("nonsense"), {"authorization": "Negotiate abc"}):
            answer = await site.client.get("/sessions", headers=wrong)
            assert (answer.status_code, answer.headers.get_list("www-authenticate")) == (401, CHALLENGES)

    run(tmp_path, provider, work)


def test_who_is_first_seen_is_known_from_then_on(tmp_path: Path, provider: Provider) -> None:
    async def work(site: Site) -> None:
        tokens = [provider.token(subject="dave", preferred_username=name) for name in ("Dave", "Dave", "David")]
        answers = await asyncio.gather(*(site.client.get("/sessions", headers=bearer(token)) for token in tokens))
        assert [answer.status_code for answer in answers] == [200] * 3
        assert (await site.client.get("/sessions", headers=bearer(tokens[2]))).headers["x-vo-authenticated"] == "David"
        (known,) = (await site.client.get("/admin/identities", auth=ADMIN)).json()["identities"]
        assert (known["issuer"], known["subject"], known["username"]) == (provider.issuer, "dave", "David")

        asked = await site.client.post("/requests", json={"executable": NOTEBOOK}, headers=bearer(tokens[0]))
        offer = asked.json()["offers"][0]
        assert (await site.client.get(offer["meta"]["url"], headers=bearer(tokens[2]))).status_code == 200
        other = provider.token(subject="erin", preferred_username="Dave")
        assert (await site.client.get(offer["meta"]["url"], headers=bearer(other))).status_code == 403

    run(tmp_path, provider, work)


def test_who_is_disabled_stays_out_with_any_token(tmp_path: Path, provider: Provider) -> None:
    async def work(site: Site) -> None:
        token = provider.token(subject="frank")
        assert (await site.client.get("/sessions", headers=bearer(token))).status_code == 200
        (known,) = (await site.client.get("/admin/identities", auth=ADMIN)).json()["identities"]
        change = f"/admin/identities/{known['uuid']}"
        assert (await site.client.post(change, json={"password": "long enough"}, auth=ADMIN)).status_code == 400
        assert (await site.client.post(change, json={"disabled": True}, auth=ADMIN)).status_code == 200
        for one in (token, provider.token(subject="frank", preferred_username="Franklin")):
            assert (await site.client.get("/sessions", headers=bearer(one))).status_code == 403
        assert (await site.client.post(change, json={"disabled": False}, auth=ADMIN)).status_code == 200
        assert (await site.client.get("/sessions", headers=bearer(token))).status_code == 200

    run(tmp_path, provider, work)


def test_tokens_that_are_refused(tmp_path: Path, provider: Provider) -> None:
    async def work(site: Site) -> None:
        good = provider.token(lifetime=600)
        header, payload, signature = good.split(".")
        revoked = provider.token(opaque=True)
        assert (await site.client.get("/sessions", headers=bearer(revoked))).status_code == 200
        provider.revoke(revoked)
        site.clock.advance(31)  # for as long an answer of the issuer's counts
        tampered = f"{header}.{payload[:-2]}AA.{signature}"
        other = provider.token(audience=f"{AUDIENCE}/other")
        for wrong in (tampered, f"{header}.{payload}.{signature[:-4]}AAAA", f"eyJhbGciOiJub25lIn0.{payload}.", other, revoked):
            answer = await site.client.get("/sessions", headers=bearer(wrong))
            assert (answer.status_code, answer.json()["title"]) == (401, "Who are you?"), wrong
        assert (await site.client.get("/sessions", headers=bearer(good))).status_code == 200
        site.clock.advance(601 + 31)
        assert (await site.client.get("/sessions", headers=bearer(good))).status_code == 401
        assert (await site.client.get("/admin/identities", auth=ADMIN)).json()["identities"][0]["subject"] == "alice"

    run(tmp_path, provider, work, introspection=provider.introspection)


def test_no_token_makes_an_admin(tmp_path: Path, provider: Provider) -> None:
    async def work(site: Site) -> None:
        token = provider.token(subject="admin", preferred_username=ADMIN[0], groups=("admin",))
        assert (await site.client.get("/admin/identities", headers=bearer(token))).status_code == 403

    run(tmp_path, provider, work)
