import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from processsite import Finished, Site, execbroker

NOTEBOOK = ("--notebook", "https://example.org/a.ipynb")
SHORT = (*NOTEBOOK, "--cores", "1", "--memory", "1", "--duration", "30m")
WHOLE_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def offers(broker: Site, *words: str) -> list[str]:
    """The uuids of what is offered for these options."""
    answer = broker("ask", *(words or SHORT), "--json").document
    return [offer["meta"]["uuid"] for offer in answer["offers"]]


def load(done: Finished, form: str) -> Any:
    """The payload, which is all there may be on stdout."""
    return json.loads(done.out) if form == "--json" else yaml.safe_load(done.out)


def test_offers_are_a_table_with_whole_uuids(broker: Site) -> None:
    done = broker("ask", *SHORT)
    assert done.code == 0
    header, *rows = done.out.splitlines()
    assert header.split() == ["#", "start", "(UTC)", "for", "cores", "memory", "offer"]
    assert len(WHOLE_UUID.findall(done.out)) == 5  # four offers, and the hint how to take the first
    assert all("30 min" in row and "2 GiB" in row for row in rows[:4])
    assert done.err == ""


def test_a_narrow_terminal_gives_each_uuid_a_line_and_shows_it_whole(broker: Site) -> None:
    for command in (("ask", *SHORT), ("ps", "--limit", "3")):
        lines = broker(*command, COLUMNS="60").out.splitlines()
        alone = [line.strip() for line in lines if WHOLE_UUID.fullmatch(line.strip())]
        assert len(alone) >= 3
        assert all(len(line) <= 60 for line in lines if "execbroker accept" not in line)


def test_no_says_every_reason_and_ends_with_1(broker: Site) -> None:
    done = broker("ask", *NOTEBOOK, "--cores", "0", "--memory", "8-4")
    assert done.code == 1
    first, *reasons = done.out.splitlines()
    assert first == "NO"
    assert any("compute.cores.min" in reason for reason in reasons)
    assert any("compute.memory" in reason and "8" in reason and "4" in reason for reason in reasons)


@pytest.mark.parametrize("form", ["--json", "--yaml"])
def test_every_command_prints_its_data_and_nothing_else(broker: Site, form: str, tmp_path: Path) -> None:
    answer = load(broker("ask", *SHORT, form), form)
    assert answer["result"] == "YES"
    _, later, last, *_ = [offer["meta"]["uuid"] for offer in answer["offers"]]
    assert load(broker("show", last, form), form)["phase"] == "OFFERED"
    assert load(broker("reject", last, form), form)["phase"] == "REJECTED"
    assert load(broker("accept", later, form), form)["meta"]["uuid"] == later
    assert later in {session["meta"]["uuid"] for session in load(broker("ps", form), form)["sessions"]}
    assert load(broker("cancel", later, form), form)["meta"]["uuid"] == later
    assert load(broker("get", later, str(tmp_path), form), form) == {"files": []}
    assert {platform["name"] for platform in load(broker("platforms", form), form)["platforms"]} == {"site"}
    assert load(broker("ask", *NOTEBOOK, "--cores", "99", form), form)["result"] == "NO"
    assert load(broker("run", *NOTEBOOK, "--cores", "99", form), form)["result"] == "NO"


def test_what_is_parsed_is_not_spoilt_by_progress(broker: Site) -> None:
    done = broker("run", *SHORT, "--json")
    assert done.code == 0
    assert done.document["phase"] == "COMPLETED"
    assert "RUNNING" in done.err


def test_run_follows_to_the_end_without_colours_in_a_pipe(broker: Site) -> None:
    done = broker("run", *SHORT, "--batch")
    assert done.code == 0
    phases = [line.split()[1] for line in done.out.splitlines() if re.match(r"\d\d:\d\d:\d\d  [A-Z]+", line)]
    assert phases[-1] == "COMPLETED"
    assert "RUNNING" in phases
    assert "│ python -m papermill" in done.out
    assert "\x1b" not in done.out


def test_a_unique_beginning_of_a_uuid_is_enough(broker: Site) -> None:
    first, second, *_ = offers(broker)
    assert broker("show", first[:13], "--json").document["meta"]["uuid"] == first
    ambiguous = broker("show", "")
    assert ambiguous.code == 2
    assert second in ambiguous.err or "is the beginning of" in ambiguous.err


def test_show_tells_a_person_what_the_session_is(broker: Site) -> None:
    done = broker("show", offers(broker)[0])
    assert done.code == 0
    assert "https://example.org/a.ipynb" in done.out
    assert "may become  ACCEPTED, REJECTED" in done.out
    assert "for 30 min" in done.out


def test_what_a_session_wrote_is_printed_as_it_is(broker: Site) -> None:
    uuid = broker("run", *SHORT, "--batch", "--json").document["meta"]["uuid"]
    out = broker("logs", uuid)
    assert out.code == 0
    assert out.out.startswith("python -m papermill a.ipynb")
    assert broker("logs", "-f", uuid).out == out.out
    assert broker("logs", "--stderr", uuid).out == ""


def test_logs_follow_a_session_to_its_end(broker: Site) -> None:
    uuid = offers(broker, *SHORT, "--batch")[0]
    broker("accept", uuid)
    assert "papermill" in broker("logs", "-f", uuid).out
    assert broker("show", uuid, "--json").document["phase"] == "COMPLETED"


def test_accepting_what_was_released_is_refused_with_4(broker: Site) -> None:
    first, second, *_ = offers(broker)
    assert broker("accept", first).code == 0
    done = broker("accept", second)
    assert done.code == 4
    assert "REJECTED" in done.err
    assert done.out == ""


def test_an_unknown_session_is_refused_with_4(broker: Site) -> None:
    whole, beginning = "00000000-0000-0000-0000-000000000000", "zzz"
    for command, uuid in (
        ("show", beginning),
        ("accept", whole),
        ("reject", whole),
        ("cancel", whole),
        ("logs", whole),
        ("get", whole),
    ):
        done = broker(command, uuid)
        assert (done.code, done.out) == (4, "")
        assert uuid in done.err


def test_a_broker_that_is_not_there_ends_with_3(tmp_path: Path) -> None:
    nowhere = execbroker("ps", "--data", str(tmp_path))
    assert nowhere.code == 3
    assert "execbroker serve" in nowhere.err
    closed = execbroker("ps", "--url", "http://127.0.0.1:9")
    assert closed.code == 3
    assert "http://127.0.0.1:9 does not answer" in closed.err


def test_a_wrong_token_is_refused_with_4(broker: Site) -> None:
    done = broker("ps", EXECBROKER_TOKEN="wrong")
    assert done.code == 4
    assert "token" in done.err


def test_the_broker_is_found_by_the_environment_too(broker: Site, tmp_path: Path) -> None:
    token = (broker.data / "token").read_text().strip()
    by_address = execbroker("platforms", EXECBROKER_URL=broker.url, EXECBROKER_TOKEN=token, EXECBROKER_FOLDER=str(tmp_path))
    assert by_address.code == 0
    assert execbroker("platforms", EXECBROKER_FOLDER=str(broker.data)).code == 0


def test_help_says_the_exit_codes() -> None:
    done = execbroker("--help")
    assert done.code == 0
    text = " ".join(done.out.split())
    for words in ("0 done", "1 the answer is NO", "2 wrong usage", "3 the broker cannot be reached", "4 the broker refused"):
        assert words in text
