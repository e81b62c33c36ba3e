import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lacking import need
from people import AUTH
from processsite import Site


class _Sky(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `/away` leads to an address that nobody allowed."""

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.2:{self.server.server_address[1]}/stars.csv")
            self.end_headers()
        else:
            super().do_GET()

    do_HEAD = do_GET  # type: ignore[assignment]  # noqa: N815 -- the base class finds it by this name

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a small data server on loopback."""
    folder = tmp_path_factory.mktemp("sky")
    (folder / "stars.csv").write_text("name,magnitude\nVega,0.03\nDeneb,1.25\n")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Sky, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that brokers may read programs and notebooks from."""
    return tmp_path_factory.mktemp("programs")


def local_site(folder: Path, programs: Path, environments: Path) -> Site:
    """A broker on this machine's `local` platform, with room for several sessions at once."""
    node = {"cores": 8, "memory": 16, "storage": 100}
    platform = {"name": "here", "type": "local", "nodes": [node], "environments": str(environments), "release": "PT2S"}
    data = {"folders": [str(programs)], "allow_private": ["127.0.0.1"]}
    return Site(folder, {"platforms": [platform], "data": data})


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python environments, installed once for all tests."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory, programs: Path, environments: Path) -> Iterator[Site]:
    site = local_site(tmp_path_factory.mktemp("here"), programs, environments).start()
    yield site
    site.stop()


@pytest.fixture
def own(tmp_path: Path, programs: Path, environments: Path) -> Iterator[Site]:
    """A broker to kill, not yet started."""
    site = local_site(tmp_path / "own", programs, environments)
    yield site
    if site.process and site.process.poll() is None:
        site.stop()


@pytest.fixture
def shared(tmp_path: Path, programs: Path, environments: Path) -> Iterator[Site]:
    """A broker of several people, who need accounts first."""
    need("bubblewrap", "slirp4netns", "nftables")
    site = local_site(tmp_path / "shared", programs, environments)
    site.settings["auth"] = AUTH
    yield site.start()
    if site.process and site.process.poll() is None:
        site.stop()


@pytest.fixture
def three(tmp_path: Path, programs: Path, environments: Path) -> Iterator[list[Site]]:
    """Brokers that share a data folder, none of them started."""
    sites = [local_site(tmp_path / "together", programs, environments) for _ in range(3)]
    yield sites
    for site in sites:
        if site.process and site.process.poll() is None:
            site.stop()
