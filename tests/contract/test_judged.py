"""Who judges the replies of brokers sees them, and does not let everything through."""

from pathlib import Path

import httpx
import pytest

import judge
import recorded
from processsite import Site


def test_what_a_process_answers_is_written_down_as_it_was(tmp_path: Path) -> None:
    site = Site(tmp_path).start()
    try:
        got = httpx.get(f"{site.url}/platforms", headers={"authorization": site.authorization, "accept-encoding": "gzip"})
        httpx.get(f"{site.url}/platforms")
    finally:
        site.stop()
    seen = [reply for reply, _ in recorded.replies(recorded.records_of(site.data), 0)]
    assert [(one.status_code, one.request.url.path) for one in seen] == [(200, "/platforms"), (401, "/platforms")]
    assert seen[0].json() == got.json()
    assert seen[0].headers["x-request-id"] == got.headers["x-request-id"]


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, {"kind": "uri:any", "offers": [{"kind": "urn:nonsense"}]}, "urn:nonsense"),
        (200, {"result": "PERHAPS"}, "PERHAPS"),
        (418, {}, "418 is not among"),
    ],
)
def test_a_reply_that_is_not_described_is_a_failure(status: int, body: object, says: str) -> None:
    reply = httpx.Response(status, json=body, request=httpx.Request("POST", "http://broker/requests"))
    with pytest.raises(AssertionError, match=says):
        judge.judge(reply)
