import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from execbroker.cli import app
from execbroker.cli.visit import Stop
from execbroker.cli.wishes import Wish
from execbroker.model.sessions import ExecutionRequest
from execbroker.model.times import format_duration
from processsite import Site

URL = "https://example.org/a.ipynb"


def requested(wish: Wish) -> ExecutionRequest:
    return ExecutionRequest.model_validate(wish.request())


def test_only_what_is_said_is_asked() -> None:
    assert set(Wish(notebook=URL).request()) == {"executable"}


def test_the_options_make_the_request(broker: Site) -> None:
    options = ["--notebook", URL, "--batch", "--param", "width=0.5", "--param", "name=NO", "--requirement", "numpy"]
    options += [
        "--cores",
        "2-3",
        "--memory",
        "4",
        "--duration",
        "1h30m",
        "--input",
        "tables=https://e.org/t?a=b:c",
        "--storage",
        "out=2",
    ]
    answer = broker("ask", *options, "--json").document
    session = answer["offers"][0]
    executable, compute = session["executable"], session["compute"]
    assert executable["location"] == URL
    assert (executable["mode"], executable["requirements"]) == ("batch", ["numpy"])
    assert executable["parameters"] == {"width": 0.5, "name": "NO"}
    assert compute["cores"] == {"min": 2, "max": 3}
    assert compute["memory"] == {"min": 4, "max": 8}
    assert session["schedule"]["available"]["duration"] == "PT1H30M"
    assert session["data"][0]["location"] == "https://e.org/t?a=b:c"
    assert {volume["path"] for volume in compute["volumes"]} == {"tables", "out"}
    assert {storage["meta"]["name"]: storage["size"]["max"] for storage in session["storage"]}["out"] == 4


def test_storage_can_be_seen_at_a_path_of_its_own() -> None:
    [volume] = Wish(notebook=URL, storage=["out=2:/my:results"]).request()["compute"]["volumes"]
    assert (volume["resource"], volume["path"]) == ("out", "/my:results")


def test_a_program_takes_its_arguments() -> None:
    executable = Wish(program="https://e.org/p.py", arg=["-v", "x y"]).request()["executable"]
    assert executable["arguments"] == ["-v", "x y"]


def test_a_local_path_becomes_a_file_url(broker: Site, tmp_path: Path) -> None:
    program = tmp_path / "my program.py"
    done = broker("ask", "--program", str(program), "--json")
    assert done.document["offers"][0]["executable"]["location"] == program.as_uri()


ASKED: dict[str, Any] = {
    "executable": {"kind": "jupyter-notebook", "location": URL},
    "compute": {"kind": "simple-compute-resource", "cores": {"min": 1, "max": 1}},
}
WRITTEN = {
    "json": json.dumps(ASKED),
    "yaml": yaml.safe_dump(ASKED),
    "xml": f"""<?xml version="1.0"?>
<offers-request>
  <executable kind="jupyter-notebook"><location>{URL}</location></executable>
  <compute kind="simple-compute-resource"><cores><min>1</min><max>1</max></cores></compute>
</offers-request>""",
}


@pytest.mark.parametrize(
    ("name", "form"), [("request.json", "json"), ("request.yaml", "yaml"), ("request.xml", "xml"), ("-", "yaml"), ("-", "xml")]
)
def test_a_request_is_read_from_a_file_or_stdin(broker: Site, tmp_path: Path, name: str, form: str) -> None:
    text = WRITTEN[form]
    if name != "-":
        name = str(tmp_path / name)
        Path(name).write_text(text)
    done = broker("ask", name, "--json", stdin=text)
    assert done.code == 0
    offer = done.document["offers"][0]
    assert (offer["executable"]["location"], offer["compute"]["cores"]) == (URL, {"min": 1, "max": 1})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--notebook"),
        (["--notebook", URL, "--program", URL], "one of --notebook and --program"),
        (["--notebook", URL, "--cores", "many"], "--cores many"),
        (["--notebook", URL, "--memory", "4-"], "--memory 4-"),
        (["--notebook", URL, "--arg", "x"], "--arg is for programs"),
        (["--program", URL, "--batch"], "for notebooks"),
        (["--notebook", URL, "--param", "x"], "--param x"),
        (["--notebook", URL, "--param", "x=["], "--param x=["),
        (["--notebook", URL, "--input", "https://e.org/t?a=b"], "--input data=https://e.org/t?a=b"),
        (["--notebook", URL, "--storage", "out"], "--storage out"),
        (["--notebook", URL, "--storage", "out=big"], "size in GiB"),
        (["/no/such/file"], "/no/such/file cannot be read"),
        (["-"], "a request is a map"),
        (["-", "--cores", "3"], "--cores"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_right(broker: Site, options: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["ask", *options, "--data", str(broker.data)], input="[1, 2]")
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_document_that_does_not_fit_is_refused_with_every_fault(broker: Site) -> None:
    done = broker("ask", "-", stdin="{executable: {location: 3}, compute: {kind: 4}}")
    assert done.code == 4
    assert "executable.kind" in done.err
    assert "compute.kind" in done.err


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_a_short_duration_means_what_it_says(days: int, hours: int, minutes: int, seconds: int) -> None:
    short = "".join(f"{amount}{unit}" for amount, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")) if amount)
    asked = requested(Wish(notebook=URL, duration=short))
    assert asked.schedule is not None
    assert asked.schedule.requested is not None
    assert asked.schedule.requested.duration is not None
    assert asked.schedule.requested.duration.total_seconds() == ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert requested(Wish(notebook=URL, duration=format_duration(asked.schedule.requested.duration))) == asked


@given(st.text(st.characters(exclude_characters="="), min_size=1), st.text(min_size=1))
def test_the_address_of_an_input_comes_through_whole(path: str, rest: str) -> None:
    url = f"https://example.org/{rest}"
    try:
        request = Wish(notebook=URL, input=[f"{path}={url}"]).request()
    except Stop:
        assert ":" in path
    else:
        assert request["data"][0]["location"] == url
        assert request["compute"]["volumes"][0]["path"] == path
