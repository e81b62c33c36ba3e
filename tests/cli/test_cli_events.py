import asyncio
import json
import signal
from contextlib import aclosing

from execbroker.client import AsyncClient, Client, NoAnswer
from processsite import Site, spawn

REQUEST = {"executable": {"kind": "jupyter-notebook", "location": "https://example.org/a.ipynb", "mode": "batch"}}
LIFE = ["ACCEPTED", "WAITING", "PREPARING", "AVAILABLE", "RUNNING", "RELEASING", "COMPLETED"]


def started(site: Site) -> str:
    with Client(folder=site.data) as client:
        return str(client.direct(REQUEST).meta.uuid)


def test_a_session_is_printed_from_its_beginning_to_its_end(broker: Site) -> None:
    uuid = started(broker)
    done = broker("events", uuid)
    assert done.code == 0
    assert [line.split()[2] for line in done.out.splitlines()] == LIFE
    assert all(uuid in line for line in done.out.splitlines())
    assert "It ended by itself" in done.out
    done = broker("events", uuid[:13], "--json")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["data"]["phase"] for event in events] == LIFE
    assert {event["event"] for event in events} == {"phase"}
    done = broker("events", uuid, "--json", "--after", str(events[-3]["id"]))
    assert [json.loads(line) for line in done.out.splitlines()] == events[-2:]
    done = broker("events", uuid, "--after", str(events[-1]["id"]))
    assert (done.code, done.out) == (0, "")


def test_who_is_not_there_is_told_so(broker: Site) -> None:
    done = broker("events", "00000000-0000-4000-8000-000000000000")
    assert (done.code, done.out) == (4, "")
    assert "no session" in done.err


def test_all_is_printed_until_it_is_enough(broker: Site) -> None:
    process = spawn("events", "--after", "0", "--json", "--data", str(broker.data))
    try:
        uuid = started(broker)
        while json.loads(process.stdout.readline())["data"]["session"] != uuid:
            pass
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        process.communicate()


def test_a_client_goes_on_where_it_was_when_the_broker_is_back(own_broker: Site) -> None:
    async def follow() -> None:
        async with AsyncClient(folder=own_broker.data) as client:
            uuid = str((await client.direct(REQUEST)).meta.uuid)
            seen = []
            async with aclosing(client.events(after=0)) as events:
                async for event in events:
                    seen.append(event)
                    if len(seen) in (2, 5):
                        how = signal.SIGTERM if len(seen) == 2 else signal.SIGKILL
                        await asyncio.to_thread(own_broker.stop, how)
                        await asyncio.to_thread(own_broker.start)
                    if event.data["phase"] == "COMPLETED":
                        break
            assert [event.data["phase"] for event in seen] == LIFE
            assert [event async for event in client.events(uuid)] == seen

    own_broker.start()
    own_broker.port = int(own_broker.url.rpartition(":")[2])
    asyncio.run(asyncio.wait_for(follow(), 60))


def test_a_broker_that_stays_away_is_not_waited_for_for_ever(own_broker: Site) -> None:
    async def follow() -> None:
        async with AsyncClient(folder=own_broker.data) as client:
            events = client.events(after=0, patience=1)
            await client.direct(REQUEST)
            await anext(events)
            await asyncio.to_thread(own_broker.stop)
            try:
                async for _ in events:
                    pass
            except NoAnswer:
                return
            raise AssertionError("it waits on")

    own_broker.start()
    asyncio.run(asyncio.wait_for(follow(), 60))
