"""Behind a real reverse proxy: nginx, with TLS, below a path, passed on or stripped."""

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brokersite import NOTEBOOK
from certificates import Pair, self_signed
from doorsite import door
from processsite import Site, until

NEEDED = "nginx is not here: install it (on Debian and Ubuntu: nginx-light)"
CONFIG = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key};
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_read_timeout 70s;
    location /portal/broker/ {{ proxy_pass {broker}{passed}; }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return self_signed(tmp_path, "site", "localhost")


@pytest.fixture(params=["stripped", "passed on"])
def site(request: pytest.FixtureRequest, tmp_path: Path, pair: Pair) -> Iterator[Site]:
    """A broker behind a proxy; its `url` is that of the proxy."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx:
        assert not os.environ.get("CI"), NEEDED
        pytest.skip(NEEDED)
    port = free_port()
    url = f"https://localhost:{port}/portal/broker"
    site = door(tmp_path, public_url=url, proxies=["127.0.0.1"]).start()
    passed = "/" if request.param == "stripped" else ""
    (tmp_path / "nginx.conf").write_text(CONFIG.format(folder=tmp_path, port=port, pair=pair, broker=site.url, passed=passed))
    proxy = subprocess.Popen([nginx, "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(tmp_path / "nginx.conf")])
    site.url = url
    yield site
    proxy.terminate()
    proxy.wait()
    site.stop()


@pytest.fixture
def client(site: Site, pair: Pair) -> Iterator[httpx.Client]:
    """One that comes from another address than the proxy."""
    trusting = ssl.create_default_context(cafile=str(pair.certificate))
    transport = httpx.HTTPTransport(verify=trusting, local_address="127.0.0.7", retries=10)
    token = (site.data / "token").read_text()
    with httpx.Client(transport=transport, headers={"authorization": f"Bearer {token}"}) as client:
        yield client


def test_every_link_leads_through_the_proxy(site: Site, client: httpx.Client) -> None:
    made = client.post(f"{site.url}/requests", json={"executable": NOTEBOOK}, headers={"prefer": "return=minimal"})
    assert made.status_code == 303
    assert made.headers["strict-transport-security"]
    assert made.headers["location"].startswith(f"{site.url}/offersets/")
    offer = client.get(made.headers["location"]).json()["offers"][0]
    assert offer["meta"]["url"].startswith(f"{site.url}/sessions/")
    shown = client.get(offer["meta"]["url"]).json()
    assert shown["phase"] == "OFFERED"
    for part in (shown["executable"], shown["compute"]):
        assert client.get(part["meta"]["url"]).json()["meta"]["uuid"] == part["meta"]["uuid"]
    waited = client.get(offer["meta"]["url"], params={"wait": 1, "phase": "OFFERED"}, timeout=30)
    assert waited.json()["phase"] == "OFFERED"


def test_the_clients_of_the_command_line_go_through_it_too(site: Site, client: httpx.Client, pair: Pair) -> None:
    assert client.get(f"{site.url}/healthz").status_code == 200
    token = (site.data / "token").read_text()
    done = site(
        "run", "--notebook", "https://e.org/a.ipynb", "--url", site.url, "--ca", str(pair.certificate), EXECBROKER_TOKEN=token
    )
    assert done.code == 0, done.err


def test_who_it_was_is_known_and_cannot_be_forged(site: Site, client: httpx.Client) -> None:
    headers = {"x-forwarded-for": "6.6.6.6", "x-request-id": "one"}
    assert client.post(f"{site.url}/direct", json={"executable": NOTEBOOK}, headers=headers).status_code == 200
    line = last_line(site, 1)
    assert (line["address"], line["route"], line["request"]) == ("127.0.0.7", "/direct", "one")
    forged = {"forwarded": "for=6.6.6.6"}
    assert client.post(f"{site.url}/direct", json={"executable": NOTEBOOK}, headers=forged).status_code == 200
    assert last_line(site, 2)["address"] == "127.0.0.1", "what nginx did not write is not believed"


def last_line(site: Site, number: int) -> Any:
    """Of the audit log, once it has so many."""

    def lines() -> list[str]:
        found = (site.data / "audit.jsonl").read_text().splitlines()
        return found if len(found) == number else []

    return json.loads(asyncio.run(until(lines))[-1])
