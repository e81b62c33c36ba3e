"""HEAD, OPTIONS and packed replies as real servers send them, one after the other on one connection."""

from pathlib import Path

import httpx
import pytest

from doorsite import SERVERS, door, use


@pytest.mark.parametrize("server", SERVERS)
def test_one_connection_takes_them_all(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(server, tmp_path, monkeypatch)
    site = door(tmp_path).start()
    try:
        token = (site.data / "token").read_text()
        with httpx.Client(base_url=site.url, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
            get = client.get("/openapi.json")
            for method, path, status in (
                ("HEAD", "/openapi.json", 200),
                ("HEAD", "/events", 200),
                ("HEAD", "/nothing", 404),
                ("OPTIONS", "/requests", 204),
                ("DELETE", "/requests", 405),
                ("GET", "/capabilities", 200),
            ):
                answer = client.request(method, path)
                assert answer.status_code == status, path
                assert bool(answer.content) == (method not in ("HEAD", "OPTIONS"))
            head = client.head("/openapi.json")
            for name in ("etag", "content-length", "content-encoding", "content-type", "vary"):
                assert head.headers[name] == get.headers[name]
            assert client.get("/openapi.json", headers={"if-none-match": head.headers["etag"]}).status_code == 304
    finally:
        site.stop()
