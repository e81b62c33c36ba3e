"""HTTPS by configuration, certificates that are renewed, and whom the client believes."""

import asyncio
import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from certificates import Pair, self_signed
from doorsite import Raw, door
from processsite import Site, execbroker, until


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return self_signed(tmp_path, "broker", "localhost", "broker.example.org")


@pytest.fixture
def site(tmp_path: Path, pair: Pair) -> Iterator[Site]:
    site = door(tmp_path, tls=pair.settings, limits={"connections": {"head": "PT1S"}}).start()
    yield site
    if site.process.poll() is None:
        site.stop()


def at_localhost(site: Site) -> str:
    return f"https://localhost:{urlsplit(site.url).port}"


def trusting(pair: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pair.certificate))


def shown(site: Site) -> str:
    """The certificate that a new connection is shown."""
    return ssl.get_server_certificate(("127.0.0.1", urlsplit(site.url).port or 0))


def test_commands_on_this_machine_believe_its_broker_whatever_name_it_has(site: Site) -> None:
    assert site.url.startswith("https://127.0.0.1:")
    assert site.said[0] == f"execbroker is listening on {site.url}"
    assert site("platforms").code == 0
    assert site("ask", "--notebook", "https://e.org/a.ipynb").code == 0


def test_others_believe_the_usual_authorities_and_those_they_are_told(site: Site, pair: Pair) -> None:
    doubted = site("platforms", "--url", at_localhost(site))
    assert doubted.code == 3
    assert "certificate verify failed" in doubted.err
    assert site("platforms", "--url", at_localhost(site), "--ca", str(pair.certificate)).code == 0
    assert site("platforms", "--url", at_localhost(site), EXECBROKER_CA=str(pair.certificate)).code == 0
    wrong_name = site("platforms", "--url", site.url, "--ca", str(pair.certificate))
    assert (wrong_name.code, "IP address mismatch" in wrong_name.err) == (3, True)


def test_a_file_without_certificates_is_named(site: Site, tmp_path: Path) -> None:
    for path in (tmp_path / "none", Path(__file__)):
        done = site("platforms", "--url", at_localhost(site), "--ca", str(path))
        assert (done.code, str(path) in done.err) == (2, True)


def test_another_certificate_at_the_same_place_is_not_believed(site: Site, tmp_path: Path) -> None:
    other = self_signed(tmp_path, "other", "localhost", "127.0.0.1")
    about = json.loads((site.data / "server.json").read_text())
    (site.data / "server.json").write_text(json.dumps(about | {"certificate": other.certificate.read_text()}))
    assert site("platforms").code == 3


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(("version", "speaks"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_nothing_older_than_tls_1_2_is_spoken(site: Site, pair: Pair, version: str, speaks: bool) -> None:
    context = trusting(pair)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    if not speaks:
        with pytest.raises(ssl.SSLError):
            Raw(site).secure(context, "localhost")
        return
    raw = Raw(site).secure(context, "localhost")
    raw.head("GET", "/healthz")
    status, headers, _ = raw.reply()
    assert (status, headers["strict-transport-security"]) == (200, "max-age=31536000")


def test_a_handshake_that_is_not_made_is_not_waited_for(site: Site) -> None:
    for sent in (b"", b"\x16\x03\x01\x02\x00\x01"):
        raw = Raw(site)
        raw.send(sent)
        assert raw.rest() == b""


def test_a_renewed_certificate_is_taken_up_and_connections_stay(site: Site, pair: Pair, tmp_path: Path) -> None:
    raw = Raw(site).secure(trusting(pair), "localhost")
    raw.head("GET", "/healthz")
    assert raw.reply()[0] == 200
    old, new = shown(site), self_signed(tmp_path, "new", "localhost")
    new.certificate.replace(pair.certificate)
    new.key.replace(pair.key)
    assert shown(site) == old
    site.process.send_signal(signal.SIGHUP)
    asyncio.run(until(lambda: shown(site) != old))
    raw.head("GET", "/healthz")  # before it is closed for having been idle
    assert raw.reply()[0] == 200
    raw.close()
    asyncio.run(until(lambda: site("platforms").code == 0))


def test_a_certificate_that_does_not_fit_is_not_taken_up(site: Site, pair: Pair, tmp_path: Path) -> None:
    old = shown(site)
    self_signed(tmp_path, "new").certificate.replace(pair.certificate)
    site.process.send_signal(signal.SIGHUP)
    site.process.send_signal(signal.SIGHUP)
    line = json.loads(site.process.stderr.readline())
    assert (line["event"], "is not that of the certificate" in line["error"]) == ("tls.not_renewed", True)
    assert shown(site) == old
    assert site("platforms").code == 0


def test_sighup_without_a_certificate_changes_nothing(tmp_path: Path) -> None:
    site = door(tmp_path).start()
    site.process.send_signal(signal.SIGHUP)
    assert site("platforms").code == 0
    assert site.stop() == (0, "", "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": "other.key"}, "is not that of the certificate in"),
        ({"key": "none.key"}, "tls.key: "),
        ({"certificate": "none.pem"}, "tls.certificate: "),
        ({"certificate": "broker.key"}, "as PEM"),
        ({"key": None}, "a certificate and its key are needed, or neither"),
    ],
)
def test_what_does_not_belong_together_is_one_sentence_and_2(tmp_path: Path, pair: Pair, change: Any, says: str) -> None:
    self_signed(tmp_path, "other")
    tls = pair.settings | {name: value and str(tmp_path / value) for name, value in change.items()}
    (tmp_path / "config.yaml").write_text(json.dumps({"tls": tls}))
    done = execbroker("serve", "--port", "0", "--config", str(tmp_path / "config.yaml"), "--data", str(tmp_path / "data"))
    assert (done.code, done.out) == (2, "")
    assert says in done.err


@pytest.mark.parametrize(
    ("settings", "warned"),
    [({"host": "0.0.0.0"}, True), ({"host": "0.0.0.0", "public_url": "https://broker.example.org"}, False), ({}, False)],
)
def test_credentials_in_clear_are_warned_of(tmp_path: Path, settings: dict[str, str], warned: bool) -> None:
    site = door(tmp_path, **settings).start()
    assert ("door.clear_text" in site.stop()[2]) is warned
