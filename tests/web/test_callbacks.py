"""Callbacks: who is told, of what, in which order, and until when."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from inspect import isawaitable
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from test_accounts import ADMIN, ALICE, AUTH, enrol

from brokersite import NOTEBOOK, ManualClock, Site, asked, names, uuid_of
from streaming import Receiver

HERE = {"allow_http": True, "allow_private": ["127.0.0.1"]}


def tell(folder: Path, story: Callable[[Site], Awaitable[None]], **settings: Any) -> None:
    """A broker that tells, by a clock that begins now: receivers look at the time of what they are told."""

    async def told() -> None:
        async with Site(folder, ManualClock(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"), **{"callbacks": HERE} | settings) as site:
            site.parts.callbacks.run()
            await story(site)

    asyncio.run(told())


def later(site: Site, **more: Any) -> dict[str, Any]:
    """A request for a time that does not come soon."""
    return asked(1, 1, "PT10M", f"{site.clock.at(3600)}/PT0S", **more)


async def until(look: Callable[[], Any]) -> None:
    """Once `look`, which may have to be awaited, finds something; threads and the broker set no event of ours."""
    async with asyncio.timeout(20):
        while True:
            found = look()
            if await found if isawaitable(found) else found:
                return
            await asyncio.sleep(0.02)


async def status(site: Site, offerset: Any) -> list[dict[str, Any]]:
    answer = await site.client.get(f"/offersets/{uuid_of(offerset)}")
    found: list[dict[str, Any]] = answer.json()["callbacks"]
    return found


async def becomes(site: Site, offerset: Any, true: Callable[[dict[str, Any]], bool]) -> None:
    """Until this is so of each of its callbacks."""

    async def look() -> bool:
        return all(map(true, await status(site, offerset)))

    await until(look)


def phases(receiver: Receiver, secret: str) -> list[str]:
    return [told["data"]["phase"] for told in receiver.told(secret)]


def test_who_is_named_is_told_all_in_order_and_can_verify_it(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        with Receiver() as receiver:
            answer = await site.ask(**asked(1, 1, "PT10M"), callbacks=[{"url": receiver.url}])
            ((callback,), offers) = answer["callbacks"], answer["offers"]
            assert (callback["url"], callback["status"]) == (receiver.url, "OPEN")
            assert callback["secret"].startswith("whsec_")
            uuid = uuid_of(await site.accept(offers[0]))
            await site.advance(60)
            await until(lambda: len(receiver.got) >= len(offers) + 4)
            told = receiver.told(callback["secret"])
            assert {one["data"]["offerset"] for one in told} == {uuid_of(answer)}
            assert [one["id"] for one in told] == sorted({one["id"] for one in told})
            mine = [one["data"]["phase"] for one in told if one["data"]["session"] == uuid]
            assert mine == ["ACCEPTED", "WAITING", "PREPARING", "AVAILABLE", "RUNNING"]
            assert {one["type"] for one in told} == {"session.phase"}
            assert len({headers["webhook-id"] for headers, _ in receiver.got}) == len(told)
            assert await status(site, answer) == [callback]
            await site.update(uuid, "CANCELLED")
            await site.settle()
            await becomes(site, answer, lambda one: one["status"] == "DONE")
            assert [one["data"]["phase"] for one in receiver.told(callback["secret"])][-2:] == ["RELEASING", "CANCELLED"]

    tell(tmp_path, story)


def test_what_was_not_said_by_the_broker_does_not_verify(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        with Receiver() as one, Receiver() as other:
            answer = await site.ask(**later(site), callbacks=[{"url": one.url}, {"url": other.url}])
            secrets = {callback["url"]: callback["secret"] for callback in answer["callbacks"]}
            await site.accept(answer["offers"][0])
            await until(lambda: one.got and other.got)
            headers, body = one.got[0]
            assert Webhook(secrets[one.url]).verify(body, headers)["data"]["phase"] == "ACCEPTED"
            for wrong in (body + b" ", body.replace(b"ACCEPTED", b"REJECTED")):
                with pytest.raises(WebhookVerificationError):
                    Webhook(secrets[one.url]).verify(wrong, headers)
            with pytest.raises(WebhookVerificationError):  # each has a secret of its own
                Webhook(secrets[other.url]).verify(body, headers)

    tell(tmp_path, story)


def test_only_what_is_wanted_is_told(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        with Receiver() as ends, Receiver() as said:
            callbacks = [{"url": ends.url, "events": ["COMPLETED", "FAILED"]}, {"url": said.url, "events": ["message"]}]
            request = {"executable": NOTEBOOK, **asked(1, 1, "PT1M"), "callbacks": callbacks}
            answer = await site.client.post("/direct", json=request)
            secrets = {callback["url"]: callback["secret"] for callback in answer.json()["callbacks"]}
            await site.advance(90)
            await until(lambda: ends.got and said.got)
            assert phases(ends, secrets[ends.url]) == ["COMPLETED"]
            (told,) = said.told(secrets[said.url])
            assert told["data"]["message"]["kind"] == "urn:execbroker:message:time-limit"
            shown = (await site.client.get(f"/sessions/{uuid_of(answer.json())}")).json()
            assert {callback["url"] for callback in shown["callbacks"]} == {ends.url, said.url}

    tell(tmp_path, story)


def test_who_fails_is_told_later_and_nothing_is_left_out(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        with Receiver(answers=[500, 302, 404, 503]) as receiver:
            answer = await site.ask(**later(site), callbacks=[{"url": receiver.url}])
            await site.accept(answer["offers"][0])
            waits = []
            for tries, failure in enumerate(["500", "302", "404", "503"], 1):
                await becomes(site, answer, lambda one, tries=tries: one.get("tries") == tries)
                assert (await status(site, answer))[0]["failure"].startswith(failure)
                assert (receiver.asked, receiver.got) == (tries, [])
                due = await site.parts.callbacks._store.next_due()
                waits.append(due - site.clock.seconds)
                site.clock.advance(waits[-1])
                site.ledger.changes.tell_all()  # it need not notice by itself that time has gone by
            assert waits[0] == 1
            assert waits[-1] > waits[0]
            await until(lambda: len(receiver.got) == 2)
            assert phases(receiver, answer["callbacks"][0]["secret"]) == ["ACCEPTED", "WAITING"]
            await becomes(site, answer, lambda one: "failure" not in one)

    tell(tmp_path, story)


def test_who_is_gone_is_left_alone(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        with Receiver(answers=[410]) as receiver:
            answer = await site.ask(**later(site), callbacks=[{"url": receiver.url}])
            await site.accept(answer["offers"][0])
            await becomes(site, answer, lambda one: one["status"] == "GONE")
            with Receiver() as other:
                again = await site.ask(**later(site), callbacks=[{"url": other.url}])
                await site.update(answer["offers"][0], "CANCELLED")
                await site.accept(again["offers"][0])
                await site.settle()
                await until(lambda: other.got)
            assert receiver.asked == 1

    tell(tmp_path, story)


def test_who_hangs_does_not_hold_up_others(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        with ExitStack() as stack:
            hanging = [stack.enter_context(Receiver(answers=[0] * 100)) for _ in range(8)]
            quick = stack.enter_context(Receiver())
            callbacks = [{"url": receiver.url} for receiver in (*hanging, quick)]
            answer = await site.ask(**later(site), callbacks=callbacks)
            uuid = uuid_of(await site.accept(answer["offers"][0]))
            await site.update(uuid, "CANCELLED")
            await site.settle()
            secret = next(one["secret"] for one in answer["callbacks"] if one["url"] == quick.url)
            await until(lambda: len(quick.got) == 4)
            assert phases(quick, secret) == ["ACCEPTED", "WAITING", "RELEASING", "CANCELLED"]
            await until(lambda: all(receiver.asked for receiver in hanging))
            await becomes(site, answer, lambda one: one["url"] == quick.url or "no answer" in one.get("failure", ""))

    tell(tmp_path, story, callbacks=HERE | {"timeout": "PT0.5S"})


def test_the_secret_is_the_owners_alone(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await enrol(site)
        request = {"executable": NOTEBOOK, **asked(1, 1), "callbacks": [{"url": "https://example.org/told?key=s3cr3t"}]}
        answer = await site.client.post("/requests", json=request, auth=ALICE)
        uuid, offer = uuid_of(answer.json()), uuid_of(answer.json()["offers"][0])
        secret = answer.json()["callbacks"][0]["secret"]
        assert (await site.client.get(f"/offersets/{uuid}", auth=ALICE)).json()["callbacks"][0]["secret"] == secret
        for path in (f"/offersets/{uuid}", f"/sessions/{offer}", f"/components/{uuid}", f"/offerset/{uuid}"):
            for who in (None, ADMIN):
                seen = await site.client.get(path, auth=who)
                assert seen.status_code == 200
                assert not {"callbacks", "s3cr3t", secret} & {
                    word for word in ("callbacks", "s3cr3t", secret) if word in seen.text
                }

    async def all_of_it() -> None:
        async with Site(tmp_path, auth={**AUTH, "public": True}) as site:
            await story(site)

    asyncio.run(all_of_it())


URLS = {
    "http://example.org/": "only https",
    "https://127.0.0.1/": "private address",
    "https://[::1]:8443/": "private address",
    "https://10.1.2.3/told": "private address",
    "https://169.254.169.254/latest/meta-data": "private address",
    "https://0x7f000001/": "private address",
    "https://localhost/told": "this machine",
    "ftp://example.org/": "not a scheme",
    "https://user:word@example.org/": "user and password",
    "https:///": "no host",
    "": "not a scheme",
    f"https://example.org/{'a' * 2000}": "longer than",
}


@pytest.mark.parametrize("url", URLS)
def test_where_nobody_may_be_told_is_a_reason_for_no(tmp_path: Path, url: str) -> None:
    async def work() -> None:
        async with Site(tmp_path) as site:
            answer = await site.ask(callbacks=[{"url": "https://example.org/"}, {"url": url}])
            assert (answer["result"], names(answer)) == ("NO", ["forbidden-callback"])
            (said,) = answer["meta"]["messages"]
            assert said["values"]["path"] == "callbacks[1].url"
            assert URLS[url] in said["message"]
            assert "word" not in said["message"].replace("password", "")
            assert "callbacks" not in answer

    asyncio.run(work())


def test_every_other_fault_of_callbacks_is_a_reason_too(tmp_path: Path) -> None:
    async def work() -> None:
        async with Site(tmp_path) as site:
            good = {"url": "https://example.org/"}
            faults: list[tuple[Any, str, str]] = [
                ([{}], "forbidden-callback", "callbacks[0].url"),
                ([{**good, "events": ["RUNNING", "DANCING"]}], "unknown-event", "callbacks[0].events[1]"),
                ([good] * 11, "too-many", "callbacks"),
            ]
            for callbacks, name, path in faults:
                answer = await site.ask(callbacks=callbacks)
                assert (answer["result"], names(answer)) == ("NO", [name])
                assert answer["meta"]["messages"][0]["values"]["path"] == path
            answer = await site.ask(callbacks=[{**good, "colour": "blue"}])
            assert (answer["result"], names(answer)) == ("YES", ["unknown-field"])
            wrong = await site.client.post("/requests", json={"executable": NOTEBOOK, "callbacks": "https://example.org/"})
            assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (422, "callbacks")
            await site.restart(callbacks={"allow": False})
            assert names(await site.ask(callbacks=[good])) == ["no-callbacks"]

    asyncio.run(work())


def test_an_address_that_turns_out_to_be_private_is_not_told(tmp_path: Path) -> None:
    """What a name stands for is looked up when it is told, not before."""
    try:
        assert socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("the name of this machine has no address: add it to /etc/hosts")

    async def work() -> None:
        async with Site(tmp_path, callbacks={"allow_http": True}) as site:
            site.parts.callbacks.run()
            with Receiver() as receiver:
                url = receiver.url.replace("127.0.0.1", socket.gethostname())
                answer = await site.ask(**later(site), callbacks=[{"url": url}])
                await site.accept(answer["offers"][0])
                await becomes(site, answer, lambda one: "failure" in one)
                assert "callbacks.allow_private does not name it" in (await status(site, answer))[0]["failure"]
                assert receiver.asked == 0

    asyncio.run(work())


def test_what_is_deleted_is_not_told_any_more(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        with Receiver(answers=[500] * 1000) as receiver:
            await site.client.post("/direct", json={"executable": NOTEBOOK, **asked(1, 1), "callbacks": [{"url": receiver.url}]})
            await site.advance(700)
            await until(lambda: receiver.asked)
            await site.advance(3 * 86400)
            rows = await site.ledger.rows(callbacks_left())
            assert rows == []

    def callbacks_left() -> Any:
        from sqlalchemy import select

        from execbroker.ledger.tables import callbacks

        return select(callbacks.c.uuid)

    tell(tmp_path, story, retention={"sessions": "P1D", "offersets": "PT1H"})


@pytest.mark.postgres
def test_of_several_brokers_one_tells(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        async with Site(tmp_path, site.clock, callbacks=HERE) as other:
            other.parts.callbacks.run()
            with Receiver() as receiver:
                secrets = []
                for number in range(10):
                    start = f"{site.clock.at(3600 * (number + 1))}/PT0S"
                    asks = (site, other)[number % 2]
                    answer = await asks.ask(**asked(1, 1, "PT10M", start), callbacks=[{"url": receiver.url}])
                    secrets.append(answer["callbacks"][0]["secret"])
                    uuid = uuid_of(await other.accept(answer["offers"][0]))
                    await site.update(uuid, "CANCELLED")
                await site.settle()
                await until(lambda: len(receiver.got) >= 40)
                ids = [headers["webhook-id"] for headers, _ in receiver.got]
                assert len(ids) == len(set(ids)) == 40

    tell(tmp_path, story)
