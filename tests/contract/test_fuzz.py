"""Requests that schemathesis makes of our description, to a broker process: no reply that the description does not have."""

import os
import urllib.request
from pathlib import Path

from tools import install, kept, python

from processsite import Site

FUZZER = "schemathesis>=4.32,<5"
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)  # fmt: skip
OPERATIONS = 18


def test_no_reply_is_undescribed(tmp_path: Path) -> None:
    wanted = int(os.environ.get("EXECBROKER_FUZZ", "0"))
    tools = kept("fuzzer", lambda folder: install(folder, FUZZER), FUZZER)
    log = tmp_path / "log"
    with log.open("wb") as file:
        site = Site(tmp_path, log=file.fileno()).start()
    try:
        request = urllib.request.Request(f"{site.url}/openapi.json", headers={"Authorization": site.authorization})
        description = tmp_path / "openapi.json"
        with urllib.request.urlopen(request) as answer:
            description.write_bytes(answer.read())
        for phases, examples in _runs(wanted):
            done = python(
                (tools,), "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", str(description),
                "--url", site.url, "--header", f"Authorization: {site.authorization}", "--checks", ",".join(CHECKS),
                "--exclude-path-regex", "events$",  # a stream has no end
                "--phases", phases, "--max-examples", str(examples), "--suppress-health-check", "all",
                "--request-timeout", "70", "--no-color", *([] if wanted else ["--seed", "1"]), cwd=tmp_path,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr + log.read_text()[-20_000:]
    finally:
        site.stop()


def _runs(wanted: int) -> list[tuple[str, int]]:
    """Which phases, with how many examples each. In the stateful one an example is a whole chain of requests."""
    if not wanted:
        return [("examples,fuzzing,stateful", 2)]
    return [("examples,coverage,fuzzing", max(wanted // OPERATIONS, 1)), ("stateful", max(wanted // 500, 1))]
