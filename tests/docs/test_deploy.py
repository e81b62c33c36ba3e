"""What is in deploy/ fits the broker, and docs/operating.md fits both."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from operatingpage import BIN, HOME, PAGE, blocks, wanting
from typer.main import get_command

import stores
from execbroker.cli import app
from execbroker.config import Config, load
from processsite import DEADLINE, Site, environment

DEPLOY = HOME / "deploy"
CONFIG = "/etc/execbroker/execbroker.yaml"


def check_command(words: list[str]) -> None:
    """The command and each of its options exist."""
    name, *rest = words
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known


def check_variables(names: set[str]) -> None:
    """Those of the broker are settings, or its clients'."""
    settings = {f"EXECBROKER_{name.upper()}" for name in Config.model_fields} | {"EXECBROKER_URL", "EXECBROKER_TOKEN"}
    assert {name.partition("__")[0] for name in names if name.startswith("EXECBROKER_")} <= settings


# ---- the configuration, containers


def test_the_configuration_is_accepted(tmp_path: Path) -> None:
    [platform] = load(DEPLOY / "execbroker.yaml", folder=tmp_path).platforms
    assert (platform.name, platform.type) == ("local", "local")


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_names_what_is_there(compose: Any) -> None:
    services = compose["services"]
    assert set(services) == {"database", "broker"}
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert set(service["secrets"]) <= set(compose["secrets"])
        for source, _, target in (volume.partition(":") for volume in service["volumes"]):
            assert source in compose["volumes"] if not source.startswith(".") else (DEPLOY / source).is_file()
            assert target.startswith("/")
    build = services["broker"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Containerfile"


def test_compose_gives_nothing_away(compose: Any) -> None:
    for service in compose["services"].values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {"test", "interval", "timeout"} <= set(service["healthcheck"])
        assert service["stop_signal"], service["stop_grace_period"]
        assert not any(
            "password" in str(value).lower() and "/run/secrets/" not in str(value) for value in service["environment"].values()
        )
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["broker"]["ports"])
    first, last = re.findall(r"(\d+)-(\d+):", compose["services"]["broker"]["ports"][0])[0]
    assert int(last) - int(first) + 1 == compose["services"]["broker"]["deploy"]["replicas"] == 3


def test_compose_is_what_docker_understands() -> None:
    if (
        not shutil.which("docker")
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not here: install the compose plugin of Docker")
    subprocess.run(["docker", "compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"], check=True)


def image_settings() -> dict[str, str]:
    """What the image and compose.yaml set for a broker."""
    own = dict(words[0].split("=", 1) for name, words in instructions() if name == "ENV")
    said = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["broker"]["environment"]
    given = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in said.items()}
    return {name: value for name, value in {**own, **given}.items() if name != "PATH"}


def test_a_container_of_compose_has_settings_that_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_variables(set(image_settings()))
    for name, value in {**image_settings(), "EXECBROKER_FOLDER": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    config = load(DEPLOY / "execbroker.yaml")
    assert (config.host, config.port, [one.type for one in config.platforms]) == ("0.0.0.0", 8080, ["fake"])
    assert config.public_url == "http://127.0.0.1:8081"
    assert config.database
    assert config.database.get_secret_value().endswith("?service=execbroker")


def test_the_health_check_of_compose_tells_a_broker_from_none(tmp_path: Path, compose: Any) -> None:
    check = compose["services"]["broker"]["healthcheck"]["test"]
    assert check[:2] == ["CMD", "python"]
    site = Site(tmp_path).start()
    command = [sys.executable, *(word.replace("http://127.0.0.1:8080", site.url) for word in check[2:])]
    assert subprocess.run(command, check=False).returncode == 0
    site.stop()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def instructions() -> list[tuple[str, list[str]]]:
    """The Containerfile: each instruction and its words."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Containerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, json.loads(rest) if rest.startswith("[") else shlex.split(rest)) for name, rest in lines]


KNOWN = {"ARG", "FROM", "WORKDIR", "RUN", "COPY", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}


def test_the_containerfile_is_well_formed() -> None:
    found = instructions()
    assert {name for name, _ in found} <= KNOWN
    assert [words for name, words in found if name == "FROM"] == [["${PYTHON}", "AS", "build"], ["${PYTHON}"]]
    last = dict(found)
    assert last["USER"] != ["root"]
    assert int(last["USER"][0]) > 0
    [program, *words] = [*last["ENTRYPOINT"], *last["CMD"]]
    assert program in tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["scripts"]
    check_command(words)


def test_what_the_containerfile_copies_is_there() -> None:
    copies = [words for name, words in instructions() if name == "COPY"]
    sources = [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]
    assert sources
    assert [source for source in sources if not (HOME / source).exists()] == []
    assert {"pyproject.toml", "README.md", "LICENSE", "src"} <= set(sources)  # without these hatchling builds nothing


def test_the_extras_that_are_installed_exist_and_are_pinned() -> None:
    extras = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pinned = {line.partition("==")[0] for line in (HOME / "constraints.txt").read_text().splitlines()}
    texts = ((DEPLOY / "Containerfile").read_text(), PAGE)
    installed = [re.findall(r"--constraint constraints\.txt ['\"]\.\[([\w,]+)\]", text) for text in texts]
    assert all(installed)
    for name in {name for found in installed for names in found for name in names.split(",")}:
        assert {re.split(r"[^\w-]", need)[0] for need in extras[name]} <= pinned


# ---- systemd


def unit() -> dict[str, list[str]]:
    """The unit's settings: each with all its values."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "execbroker.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_is_understood(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        wanting("systemd-analyze is not here: install systemd")
    [version] = re.findall(
        r"^systemd (\d+)", subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True).stdout
    )
    copy = tmp_path / "execbroker.service"
    copy.write_text((DEPLOY / "execbroker.service").read_text().replace("/opt/execbroker/bin", str(BIN)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "execbroker" in line]
    assert done.returncode == 0, done.stderr
    assert ours == [] or (int(version) < 254 and len(ours) == 1 and "'DelegateSubgroup'" in ours[0])


def test_the_unit_names_what_is_there() -> None:
    service = unit()
    program, *words = shlex.split(service["ExecStart"][0])
    assert program == "/opt/execbroker/bin/execbroker"
    check_command(words)
    variables = dict(word.split("=", 1) for line in service["Environment"] for word in shlex.split(line))
    check_variables(set(variables))
    assert variables["EXECBROKER_FOLDER"] == f"%S/{service['StateDirectory'][0]}"
    assert variables["PGSERVICEFILE"] == f"%d/{service['LoadCredential'][0]}"
    assert f"/etc/credstore/{service['LoadCredential'][0]}" in PAGE


def test_sessions_outlive_the_broker_and_bubblewrap_can_work() -> None:
    """Each of the settings that are left out stands in the way of one of the two, as the docs say."""
    service = unit()
    assert (service["KillMode"], service["OOMPolicy"]) == (["process"], ["continue"])
    forbidden = {"ProtectKernelTunables", "ProtectKernelLogs", "ProcSubset", "ProtectControlGroups", "MemoryDenyWriteExecute"}
    forbidden |= {"PrivateNetwork", "IPAddressDeny", "DynamicUser", "RemoveIPC", "PrivateUsers"}
    assert forbidden & set(service) == set()
    assert [name for name in forbidden if f"`{name}=" not in PAGE] == []


@contextmanager
def started_by_the_unit(tmp_path: Path, **variables: str) -> Iterator[str]:
    """Its command with our paths, in its environment: the address of the broker."""
    config = tmp_path / "execbroker.yaml"
    config.write_text((DEPLOY / "execbroker.yaml").read_text() + variables.pop("more", ""))
    command = shlex.split(unit()["ExecStart"][0].replace("/opt/execbroker/bin", str(BIN)).replace(CONFIG, str(config)))
    said = dict(word.split("=", 1) for line in unit()["Environment"] for word in shlex.split(line))
    own = {name: value.replace("%S", str(tmp_path)).replace("%d", str(tmp_path)) for name, value in said.items()}
    words = {**environment(**own), "EXECBROKER_PORT": "0", **variables}
    process = subprocess.Popen(command, env=words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        assert line.startswith("execbroker is listening on "), process.communicate()[1]
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0


@pytest.mark.sqlite
def test_the_unit_starts_a_broker(tmp_path: Path) -> None:
    with started_by_the_unit(tmp_path) as url:
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        token = (tmp_path / "execbroker" / "token").read_text()
        answer = httpx.get(f"{url}/platforms", headers={"Authorization": f"Bearer {token}"}).json()
        assert [one["name"] for one in answer["platforms"]] == ["local"]
        assert (tmp_path / "execbroker" / "ledger.sqlite").exists()


@pytest.mark.postgres
def test_the_unit_starts_a_broker_on_postgresql(tmp_path: Path) -> None:
    """By the service file of the docs: neither the configuration nor the environment has the address."""
    assert stores.server
    data = tmp_path / "execbroker"
    name = unit()["LoadCredential"][0]
    _, line = re.findall(r"(printf '(.*?)') db\.example\.org SECRET", PAGE)[0]
    text = line.replace("\\n", "\n").replace("dbname=execbroker", f"dbname={stores.server.of(data)}\nport={stores.server.port}")
    (tmp_path / name).write_text(text % ("127.0.0.1", "secret"))
    [more] = [block for block in blocks("Several brokers") if block.startswith("database:")]
    with started_by_the_unit(tmp_path, more=more) as url:
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
    assert not (data / "ledger.sqlite").exists()


# ---- the docs


def test_the_commands_of_the_docs_exist() -> None:
    commands = [
        shlex.split(words) for words in re.findall(r"(?:^|[ /])execbroker ((?:audit|migrate|serve) .*)$", PAGE, re.MULTILINE)
    ]
    assert {words[0] for words in commands} == {"audit", "migrate"}
    for words in commands:
        check_command(words)
    check_variables(set(re.findall(r"EXECBROKER_\w+(?==)", PAGE)))


def test_the_secrets_of_compose_are_made_as_the_docs_say(tmp_path: Path, compose: Any) -> None:
    [block] = [block for block in blocks("Containers") if "secrets" in block]
    script = "\n".join(line for line in block.splitlines() if not line.startswith("docker "))
    (tmp_path / "deploy").mkdir()
    subprocess.run(
        ["sh", "-euc", f"umask 077\n{script}"],
        cwd=tmp_path,
        env={**environment(), "PATH": f"{BIN}:{os.environ['PATH']}"},
        check=True,
    )
    assert {f"secrets/{path.name}" for path in (tmp_path / "deploy" / "secrets").iterdir()} == {
        secret["file"] for secret in compose["secrets"].values()
    }
    assert all(
        path.stat().st_mode & 0o004 for path in (tmp_path / "deploy" / "secrets").iterdir()
    )  # the containers' users read them
    password = (tmp_path / "deploy" / "secrets" / "database_password").read_text().strip()
    assert len(password) == 48
    assert f"\npassword={password}\n" in (tmp_path / "deploy" / "secrets" / "pg_service.conf").read_text()
