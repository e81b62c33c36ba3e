import json
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

import stores
from processsite import SITE, Site, execbroker


def test_it_says_where_it_listens_and_where_the_token_is(own_broker: Site) -> None:
    own_broker.start()
    assert own_broker.said == [f"execbroker is listening on {own_broker.url}", f"Its token is in {own_broker.data / 'token'}"]
    assert stat.S_IMODE((own_broker.data / "token").stat().st_mode) == 0o600
    about = json.loads((own_broker.data / "server.json").read_text())
    assert about["pid"] == own_broker.process.pid
    assert own_broker("platforms").code == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_and_says_no_more(own_broker: Site, how: int) -> None:
    own_broker.start()
    own_broker("ask", "--notebook", "https://e.org/a.ipynb")
    assert own_broker.stop(how) == (0, "", "")
    assert not (own_broker.data / "server.json").exists()


def test_its_sessions_go_on_when_it_stops(own_broker: Site) -> None:
    own_broker.settings = {"platforms": [{**SITE, "lasts": "PT2S"}]}
    own_broker.start()
    offer = own_broker("ask", "--notebook", "https://e.org/a.ipynb", "--json").document["offers"][0]["meta"]["uuid"]
    own_broker("accept", offer)
    own_broker.stop()
    own_broker.start()
    assert own_broker("logs", "-f", offer).code == 0
    assert own_broker("show", offer, "--json").document["phase"] == "COMPLETED"


def test_a_port_in_use_is_one_sentence_and_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = execbroker("serve", "--port", str(port), "--data", str(tmp_path))
    assert (done.code, done.out) == (2, "")
    assert f"port {port}" in done.err
    assert "--port" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_data_folder_in_use_is_one_sentence_and_2(broker: Site) -> None:
    done = execbroker("serve", "--port", "0", "--data", str(broker.data))
    assert (done.code, done.out) == (2, "")
    assert "in use by another broker" in done.err
    assert len(done.err.splitlines()) == 1
    assert broker("platforms").code == 0


def test_a_data_folder_that_cannot_be_made_is_one_sentence_and_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = execbroker("serve", "--port", "0", "--data", str(tmp_path / "file" / "data"))
    assert (done.code, done.out) == (2, "")
    assert "cannot be used" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_newer_database_is_one_sentence_and_2(own_broker: Site) -> None:
    own_broker.start()
    own_broker.stop()
    stores.execute(own_broker.data, "UPDATE alembic_version SET version_num = '9999'")
    done = own_broker("serve", "--port", "0")
    assert (done.code, done.out) == (2, "")
    assert "newer version" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ports: 3", ["ports"]),
        ("port: 99999\noffers: {limit: 0}", ["port", "offers.limit"]),
        ("platforms: [{name: x, type: nothing}]", ["nothing", "installed are"]),
        ("auth: {mode: none}\nhost: 0.0.0.0", ["loopback"]),
        ("[1", ["is not YAML"]),
    ],
)
def test_a_wrong_configuration_names_each_fault_and_ends_with_2(tmp_path: Path, text: str, says: list[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    done = execbroker("serve", "--config", str(config), "--data", str(tmp_path / "data"))
    assert (done.code, done.out) == (2, "")
    assert str(config) in done.err
    assert all(word in done.err for word in says)


def test_a_configuration_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    done = execbroker("serve", "--config", str(tmp_path / "none.yaml"))
    assert done.code == 2
    assert "cannot be read" in done.err


def test_without_a_token_it_says_so(own_broker: Site) -> None:
    own_broker.settings = {**own_broker.settings, "auth": {"mode": "none"}}
    own_broker.start()
    assert own_broker.said[1] == "No token is asked for"
    assert execbroker("platforms", "--url", own_broker.url, EXECBROKER_FOLDER="/nonexistent").code == 0


def test_an_address_left_by_a_killed_broker_ends_with_3(own_broker: Site) -> None:
    own_broker.start()
    own_broker.stop(signal.SIGKILL)
    assert (own_broker.data / "server.json").exists()
    assert own_broker("ps").code == 3


def test_a_platform_that_fails_is_logged_in_json_lines(own_broker: Site) -> None:
    own_broker.settings = {"platforms": [{**SITE, "script": {"capacity": {"does": "unreachable"}}}]}
    own_broker.start()
    code, _, err = own_broker.stop()
    assert code == 0
    [line] = err.splitlines()
    assert json.loads(line)["event"] == "platform.unreachable"


ACCOUNTS = {"mode": "accounts", "admin": {"username": "boss", "password": "correct horse"}}
STRANGER = """
from execbroker.platforms.fake import Fake

class Open(Fake):
    isolating = False
"""


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"type": "local", "isolation": "none"}, "leave out the setting isolation: none"),
        ({"type": "local", "network": "shared"}, "leave out the setting network: shared"),
        (
            {"type": "open", "nodes": [{"cores": 1, "memory": 1}]},
            "platforms of type open do not keep sessions of several users apart",
        ),
    ],
)
def test_with_accounts_it_refuses_platforms_that_keep_nobody_apart(tmp_path: Path, settings: dict[str, Any], why: str) -> None:
    """The last one is of a package that somebody else installed."""
    strange = tmp_path / "site" / "stranger-1.0.dist-info"
    strange.mkdir(parents=True)
    (tmp_path / "site" / "stranger.py").write_text(STRANGER)
    (strange / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (strange / "entry_points.txt").write_text("[execbroker.platforms]\nopen = stranger:Open\n")
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"platforms": [{"name": "here", **settings}], "auth": ACCOUNTS}))
    words = ("serve", "--config", str(config), "--port", "0", "--data", str(tmp_path / "data"))
    done = execbroker(*words, PYTHONPATH=str(tmp_path / "site"))
    assert (done.code, done.out) == (2, "")
    assert why in done.err
    assert "platform here: " in done.err
    assert len(done.err.splitlines()) == 1
