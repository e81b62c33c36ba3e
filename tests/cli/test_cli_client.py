import asyncio
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from execbroker.client import AsyncClient, Client, ClientError, NoAnswer
from execbroker.client.discovery import find_broker
from execbroker.model.phases import Phase
from processsite import SITE, Site, until

REQUEST = {"executable": {"kind": "jupyter-notebook", "location": "https://example.org/a.ipynb", "mode": "batch"}}


def client_of(site: Site) -> AsyncClient:
    return AsyncClient(folder=site.data)


def uuid_of(thing: object) -> str:
    return str(thing.meta.uuid)


def test_the_whole_path_without_await(broker: Site) -> None:
    with Client(folder=broker.data) as client:
        answer = client.ask(REQUEST)
        session = client.accept(uuid_of(answer.offers[0]))
        phases = [seen.phase for seen in client.follow(uuid_of(session))]
        assert phases[-1] is Phase.COMPLETED
        assert len(phases) == len(set(phases))
        assert b"papermill" in client.output(uuid_of(session))
        assert client.files(uuid_of(session)) == []
        assert client.offerset(uuid_of(answer)).offers[1].phase is Phase.REJECTED
        assert uuid_of(session) in {uuid_of(one) for one in client.sessions([Phase.COMPLETED])}
        assert uuid_of(answer) in {uuid_of(one) for one in client.offersets("YES")}
        assert client.platforms()["platforms"][0]["name"] == "site"


def test_the_face_without_await_works_inside_an_event_loop(broker: Site) -> None:
    async def in_a_notebook() -> None:
        with Client(folder=broker.data) as client:
            assert client.ask(REQUEST).result == "YES"

    asyncio.run(in_a_notebook())


def test_direct_runs_or_says_why_not(broker: Site) -> None:
    with Client(folder=broker.data) as client:
        assert client.direct(REQUEST).phase is not Phase.FAILED
        refused = client.direct({**REQUEST, "compute": {"kind": "simple-compute-resource", "cores": {"min": 99}}})
        assert refused.phase is Phase.FAILED
        assert "99" in refused.meta.messages[0].message
        with pytest.raises(ClientError, match="fault") as caught:
            client.direct({"executable": {"location": 3}})
        assert caught.value.status == 422
        assert caught.value.errors[0]["path"] == "executable.kind"


def test_a_session_is_followed_across_a_killed_broker(own_broker: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        own_broker.port = free.getsockname()[1]
    own_broker.settings = {"platforms": [{**SITE, "lasts": "PT3S"}]}
    own_broker.start()
    seen: list[Phase] = []

    async def follow() -> None:
        async with client_of(own_broker) as client:
            answer = await client.ask(REQUEST)
            session = await client.accept(uuid_of(answer.offers[0]))
            async for state in client.follow(uuid_of(session)):
                seen.append(state.phase)  # noqa: PERF401 -- another task reads it meanwhile

    async def scene() -> None:
        following = asyncio.create_task(follow())
        await until(lambda: Phase.RUNNING in seen)
        await asyncio.to_thread(own_broker.stop, signal.SIGKILL)
        await asyncio.to_thread(own_broker.start)
        await following

    asyncio.run(scene())
    assert seen[-1] is Phase.COMPLETED


def test_patience_with_a_broker_that_stays_away_ends(own_broker: Site) -> None:
    own_broker.start()

    async def scene() -> None:
        async with client_of(own_broker) as client:
            session = (await client.ask(REQUEST)).offers[0]
            own_broker.stop(signal.SIGKILL)
            with pytest.raises(NoAnswer, match="does not answer"):
                _ = [state async for state in client.follow(uuid_of(session), patience=0.5)]

    asyncio.run(scene())


class _Web(BaseHTTPRequestHandler):
    """Something that listens and is no broker; a download from it breaks off."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000" if "files" in self.path else "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def no_broker() -> str:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_is_no_broker_is_called_that(no_broker: str) -> None:
    with Client(no_broker, "secret") as client:
        for ask in (client.platforms, client.sessions, lambda: client.session("x")):
            with pytest.raises(NoAnswer, match="no ExecutionBroker"):
                ask()


def test_a_download_that_breaks_off_leaves_nothing(no_broker: str, tmp_path: Path) -> None:
    with Client(no_broker) as client, pytest.raises(NoAnswer):
        client.download("x", "home/a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_token_of_the_folder_is_for_this_machine_alone(broker: Site) -> None:
    assert find_broker("http://localhost:80", folder=broker.data).token
    assert find_broker("https://broker.example.org", folder=broker.data).token is None
    assert find_broker("https://broker.example.org", "mine", broker.data).token == "mine"
