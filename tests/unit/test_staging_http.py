import asyncio
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import zlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from staging_site import DATA, HASTY, Page, Site, bring, job, running, stager

from execbroker.errors import PlatformFailure
from execbroker.model.waist import Source
from execbroker.staging.base import DataSettings, Forbidden, Interrupted, Missing
from execbroker.staging.http import HttpFetcher
from execbroker.staging.transfer import Patience

OTHER = bytes(reversed(DATA))


@pytest.fixture
def site() -> Iterator[Site]:
    with running(Site()) as site:
        yield site


def fetch(folder: Path, site: Site, page: Page, patience: Patience = HASTY, max_size: int | None = None, **source: Any) -> bytes:
    """The bytes that a stager brings from `page`, to a folder where nothing else is left."""

    async def main() -> bytes:
        site.pages["/data"] = page
        async with stager(patience, max_size=max_size) as made:
            asked = job(folder, Source(f"{site.url}/data", "data", **source))
            try:
                progress = await bring(made, asked)
            except PlatformFailure:
                assert not [path for path in asked.folder.rglob("*") if path.is_file()]
                raise
            data = (asked.folder / "data").read_bytes()
            assert (progress.bytes, progress.total) == (len(data), len(data))
            return data

    return asyncio.run(main())


def probing(work: Callable[[HttpFetcher], Coroutine[Any, Any, Any]], *allowed: str) -> Any:
    async def main() -> Any:
        fetcher = HttpFetcher(DataSettings(allow_private=list(allowed or ["127.0.0.1"])))
        try:
            return await work(fetcher)
        finally:
            await fetcher.close()

    return asyncio.run(main())


@pytest.mark.parametrize("body", [DATA, b""])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_arrives_as_it_is(tmp_path: Path, site: Site, body: bytes, chunked: bool) -> None:
    page = Page(body, {"ETag": '"one"', "Content-Encoding": "gzip"}, chunked=chunked)
    assert fetch(tmp_path, site, page) == body
    assert site.gets("/data")[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "headers", [{"ETag": '"one"'}, {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}], ids=["etag", "last-modified"]
)
def test_a_dropped_connection_is_resumed_where_it_broke(tmp_path: Path, site: Site, headers: dict[str, str]) -> None:
    assert fetch(tmp_path, site, Page(headers=headers, drops=[1_500_000, 700_000])) == DATA
    assert [get.get("Range") for get in site.gets("/data")] == [None, "bytes=1500000-", "bytes=2200000-"]
    assert {get["If-Range"] for get in site.gets("/data")[1:]} == set(headers.values())


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}, {"Last-Modified": "Fri, 01 Jan 2100 00:00:00 GMT"}])
def test_without_a_strong_validator_it_starts_again(tmp_path: Path, site: Site, headers: dict[str, str]) -> None:
    assert fetch(tmp_path, site, Page(headers=headers, drops=[1_500_000])) == DATA
    assert [get.get("Range") for get in site.gets("/data")] == [None, None]


def test_a_server_that_ignores_ranges_starts_again(tmp_path: Path, site: Site) -> None:
    assert fetch(tmp_path, site, Page(ranges=False, drops=[1_500_000])) == DATA
    assert [get.get("Range") for get in site.gets("/data")] == [None, "bytes=1500000-"]


@pytest.mark.parametrize("trusting", [False, True], ids=["If-Range is honoured", "If-Range is ignored"])
def test_two_versions_are_never_joined(tmp_path: Path, site: Site, trusting: bool) -> None:
    page = Page(OTHER, {"ETag": '"two"'}, if_range=not trusting)
    assert fetch(tmp_path, site, Page(drops=[1_500_000], then=page)) == OTHER
    assert site.gets("/data")[1]["Range"] == "bytes=1500000-"


def test_a_file_that_shrank_starts_again(tmp_path: Path, site: Site) -> None:
    page = Page(OTHER[:1000], {"ETag": '"one"'})
    assert fetch(tmp_path, site, Page(drops=[1_500_000], then=page)) == OTHER[:1000]


def test_a_file_that_grew_is_not_joined_to_what_it_was(tmp_path: Path, site: Site) -> None:
    """By its size alone: the server keeps the ETag."""
    assert fetch(tmp_path, site, Page(drops=[1_500_000], then=Page(OTHER * 2))) == OTHER * 2


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408, 425, 202])
def test_what_may_pass_is_tried_again(tmp_path: Path, site: Site, status: int) -> None:
    assert fetch(tmp_path, site, Page(answers=[(status, {}), (status, {})])) == DATA
    assert len(site.gets("/data")) == 3


def test_a_server_may_ask_for_a_pause_but_not_for_a_long_one(tmp_path: Path, site: Site) -> None:
    async def main() -> float:
        site.pages["/data"] = Page(answers=[(503, {"Retry-After": "100000"})])
        async with stager(Patience(first_wait=0.01, longest_wait=0.3)) as made:
            began = asyncio.get_running_loop().time()
            await bring(made, job(tmp_path, Source(f"{site.url}/data", "data")))
            return asyncio.get_running_loop().time() - began

    assert 0.3 <= asyncio.run(main()) < 10


@pytest.mark.parametrize(
    ("status", "why"), [(404, "404 Not Found"), (410, "410 Gone"), (400, "400 Bad"), (401, "credentials"), (403, "credentials")]
)
def test_a_refusal_is_final(tmp_path: Path, site: Site, status: int, why: str) -> None:
    with pytest.raises(PlatformFailure, match=f"{site.url}/data could not be fetched: .*{why}"):
        fetch(tmp_path, site, Page(answers=[(status, {})]))
    assert len(site.gets("/data")) == 1


def test_it_gives_up_after_five_tries_without_progress(tmp_path: Path, site: Site) -> None:
    with pytest.raises(PlatformFailure, match="503 Service Unavailable; tried 5 times"):
        fetch(tmp_path, site, Page(answers=[(503, {})] * 9))
    assert len(site.gets("/data")) == 5


def test_it_does_not_give_up_while_it_gets_further(tmp_path: Path, site: Site) -> None:
    page = Page(DATA * 4, drops=[1_200_000] * 8)
    assert fetch(tmp_path, site, page) == DATA * 4
    assert len(site.gets("/data")) == 9


def test_a_server_that_never_gets_further_is_given_up(tmp_path: Path, site: Site) -> None:
    with pytest.raises(PlatformFailure, match=r"the connection broke.*tried 5 times"):
        fetch(tmp_path, site, Page(ranges=False, drops=[1_500_000] * 99))


def test_a_server_that_lies_about_the_length_is_given_up(tmp_path: Path, site: Site) -> None:
    with pytest.raises(PlatformFailure, match="tried 5 times"):
        fetch(tmp_path, site, Page(length=len(DATA) + 1000))


def test_a_server_that_stalls_is_given_up(tmp_path: Path, site: Site) -> None:
    with pytest.raises(PlatformFailure, match=r"less than 64 KiB came within 0\.2 s; tried 2 times"):
        fetch(tmp_path, site, Page(pause_at=1000), Patience(tries=2, first_wait=0.01, stall=0.2))


def test_a_slow_server_is_borne_while_something_comes(tmp_path: Path, site: Site) -> None:
    assert fetch(tmp_path, site, Page(pace=0.1), Patience(tries=1, stall=0.5)) == DATA


CHECKSUMS = [
    f"sha256:{hashlib.sha256(DATA).hexdigest()}",
    f"SHA-512:{hashlib.sha512(DATA).hexdigest().upper()}",
    f"sha1:{hashlib.sha1(DATA).hexdigest()}",
    f"md5:{hashlib.md5(DATA).hexdigest()}",
    f"adler32:{zlib.adler32(DATA):08x}",
]


@pytest.mark.parametrize("checksum", CHECKSUMS, ids=lambda text: text.partition(":")[0])
def test_the_checksum_is_verified_over_the_whole_file(tmp_path: Path, site: Site, checksum: str) -> None:
    assert fetch(tmp_path / "right", site, Page(drops=[1_500_000]), checksum=checksum, size=len(DATA)) == DATA
    with pytest.raises(PlatformFailure, match=r"was given as .*, and it is "):
        fetch(tmp_path / "wrong", site, Page(DATA[:-1] + b"!"), checksum=checksum)


def test_bytes_corrupted_by_joining_are_fetched_again_as_a_whole(tmp_path: Path, site: Site) -> None:
    """The server keeps the ETag although the file changed: only the checksum can tell."""
    checksum = f"sha256:{hashlib.sha256(OTHER).hexdigest()}"
    assert fetch(tmp_path, site, Page(drops=[1_500_000], then=Page(OTHER)), checksum=checksum) == OTHER
    assert [get.get("Range") for get in site.gets("/data")] == [None, "bytes=1500000-", None]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"max_size": 1_000_000}, "larger than the 1000000 bytes allowed here"),
        ({"size": 1_000_000}, "its size was given as 1000000 bytes, and it has"),
        ({"size": len(DATA) + 1}, f"its size was given as {len(DATA) + 1} bytes, and it has {len(DATA)}"),
    ],
    ids=["max_size", "more than declared", "less than declared"],
)
def test_sizes_are_enforced(tmp_path: Path, site: Site, limits: dict[str, int], why: str, chunked: bool) -> None:
    with pytest.raises(PlatformFailure, match=why):
        fetch(tmp_path, site, Page(chunked=chunked), **limits)


def test_redirects_are_followed(tmp_path: Path, site: Site) -> None:
    hops = [(status, {"Location": "data?hop"}) for status in (301, 302, 303, 307, 308)]
    site.pages["/data?hop"] = Page(answers=hops[1:])
    assert fetch(tmp_path, site, Page(answers=hops[:1])) == DATA


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("/data", "redirects more than 5 times"),
        ("file:///etc/passwd", "it redirects to file:///etc/passwd, and file: is not a scheme"),
        ("http://me:secret@example.org/", "it redirects to http://example.org/, and user and password"),
        ("http://[bad/", "redirects to"),
        ("http://169.254.169.254/latest", "it redirects to http://169.254.169.254/latest, and .* private address"),
        ("http://0x7f000002/", "private address"),
        ("http://[::ffff:127.0.0.2]/", "private address"),
    ],
)
def test_a_redirect_is_checked_as_the_url_was(tmp_path: Path, site: Site, location: str, why: str) -> None:
    with pytest.raises(PlatformFailure, match=why):
        fetch(tmp_path, site, Page(answers=[(302, {"Location": location})] * 9))


def test_a_redirect_to_a_private_server_never_reaches_it(tmp_path: Path, site: Site) -> None:
    with running(Site("127.0.0.2")) as private:
        private.pages["/secret"] = Page()
        page = Page(answers=[(302, {"Location": f"{private.url}/secret"})])
        with pytest.raises(PlatformFailure, match=r"127\.0\.0\.2 is a private address; data\.allow_private does not name it"):
            fetch(tmp_path, site, page)
        assert private.asked == []


class Names(asyncio.SelectorEventLoop):
    """A loop with a name service of its own, whose answers to `names` change from one question to the next."""

    def __init__(self, **names: list[list[str]]) -> None:
        super().__init__()
        self.names, self.lookups = names, 0

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        self.lookups += 1
        answers = self.names[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


def fetch_by_name(loop: Names, port: int) -> int | None:
    async def main() -> int | None:
        fetcher = HttpFetcher(DataSettings(allow_private=["127.0.0.1"]))
        try:
            async with fetcher.open(f"http://archive:{port}/data") as stream:
                return stream.total
        finally:
            await fetcher.close()

    try:
        return loop.run_until_complete(main())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def test_the_address_that_was_checked_is_the_one_connected_to(site: Site) -> None:
    site.pages["/data"] = Page()
    with running(Site("127.0.0.2", site.server_port)) as private:
        loop = Names(archive=[["127.0.0.1"], ["127.0.0.2"]])
        assert fetch_by_name(loop, site.server_port) == len(DATA)
        assert loop.lookups == 1
        assert site.gets("/data")[0]["Host"] == f"archive:{site.server_port}"
        assert private.asked == []


def test_one_private_address_among_several_forbids_the_host(site: Site) -> None:
    site.pages["/data"] = Page()
    with pytest.raises(Forbidden, match=r"archive has the address 10\.0\.0\.1: a private address"):
        fetch_by_name(Names(archive=[["127.0.0.1", "10.0.0.1"]]), site.server_port)
    assert site.asked == []


def test_the_next_address_is_taken_where_nobody_answers(site: Site) -> None:
    site.pages["/data"] = Page()
    with running(Site("127.0.0.3")) as elsewhere:
        elsewhere.pages["/data"] = Page()
        loop = Names(archive=[["127.0.0.1", "127.0.0.3"]])

        async def main() -> int | None:
            fetcher = HttpFetcher(DataSettings(allow_private=["127.0.0.0/8"]))
            try:
                return (await fetcher.probe(f"http://archive:{elsewhere.server_port}/data")).size
            finally:
                await fetcher.close()

        assert loop.run_until_complete(main()) == len(DATA)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def test_ambient_proxies_cookies_and_netrc_are_not_used(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.2:9")
    page = Page(headers={"ETag": '"one"', "Set-Cookie": "who=me; Path=/"}, drops=[1_500_000])
    assert fetch(tmp_path, site, page) == DATA
    assert len(site.gets("/data")) == 2
    assert not any({"Cookie", "Authorization"} & get.keys() for get in site.gets("/data"))


@pytest.mark.parametrize("methods", [("GET", "HEAD"), ("GET",)])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_probe_learns_the_size(site: Site, methods: tuple[str, ...], ranges: bool) -> None:
    site.pages["/data"] = Page(methods=methods, ranges=ranges)
    assert probing(lambda fetcher: fetcher.probe(f"{site.url}/data")).size == len(DATA)


def test_a_probe_of_a_stream_learns_no_size(site: Site) -> None:
    site.pages["/data"] = Page(chunked=True)
    assert probing(lambda fetcher: fetcher.probe(f"{site.url}/data")).size is None


@pytest.mark.parametrize(("status", "error"), [(404, Missing), (410, Missing), (401, Forbidden), (500, Interrupted)])
def test_a_probe_says_what_is_wrong(site: Site, status: int, error: type[Exception]) -> None:
    site.pages["/data"] = Page(methods=("GET",), answers=[(status, {})])
    with pytest.raises(error, match=str(status)):
        probing(lambda fetcher: fetcher.probe(f"{site.url}/data"))


def test_a_port_where_nobody_listens_is_no_proof() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Interrupted, match="no connection to 127"):
            probing(lambda fetcher: fetcher.probe(f"http://127.0.0.1:{taken.getsockname()[1]}/"))


def certificate(folder: Path, name: str) -> Path:
    if not shutil.which("openssl"):
        hint = "openssl is missing, the program that makes a certificate; install the package openssl"
        pytest.fail(hint) if os.environ.get("CI") else pytest.skip(hint)
    file = folder / "site.pem"
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=DNS:{name}".split()
    subprocess.run([*made, "-keyout", folder / "key.pem", "-out", file], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (folder / "key.pem").read_bytes())
    return file


@pytest.mark.parametrize(("name", "fits"), [("localhost", True), ("archive.example", False)])
def test_tls_verifies_the_name_in_the_url(tmp_path: Path, name: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate(tmp_path, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, server, _context: asked.append(server)
    secure = Site()
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    secure.pages["/data"] = Page()
    with running(secure):
        url = f"https://localhost:{secure.server_port}/data"
        if fits:
            assert probing(lambda fetcher: fetcher.probe(url), "127.0.0.1", "localhost").size == len(DATA)
        else:
            with pytest.raises(Interrupted, match="CERTIFICATE_VERIFY_FAILED"):
                probing(lambda fetcher: fetcher.probe(url), "127.0.0.1", "localhost")
    assert set(asked) == {"localhost"}
