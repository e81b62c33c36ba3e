"""The Python environments of `local`, made from a wheel of our own: no package index is asked."""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from sites import Site, ended, released, until, whole

from execbroker.errors import PlatformFailure
from execbroker.model.waist import Job, Launch
from execbroker.platforms.local import Local

DIES = """
import asyncio, signal, sys
from pathlib import Path
from sites import SITES
from test_environments import needing, prepared

site = SITES[sys.argv[1]](Path(sys.argv[2]))
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[3]))
asyncio.run(prepared(site.platform(), needing(site, "tinystar")))
"""


@pytest.fixture(params=["local", "apart"])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Where `tinystar` can be installed from a folder, and nothing else can."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tinystar-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinystar.py", "magnitude = 4.2\n")
        wheel.writestr("tinystar-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinystar\nVersion: 1.0\n")
        wheel.writestr("tinystar-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tinystar-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    found: Site = request.getfixturevalue(request.param)
    return found


def needing(site: Site, *requirements: str) -> Job:
    script = "import sys, tinystar; print(tinystar.magnitude, sys.prefix)"
    return site.job(launch=Launch("process", ("python", "-c", script), requirements=requirements))


async def prepared(platform: Local, job: Job) -> list[str]:
    """What it was doing meanwhile."""
    doing: list[str] = []

    async def look() -> bool:
        progress = await platform.prepare(job)
        doing.append(progress.doing)
        return progress.done

    assert await until(look, bool, seconds=60)
    return doing


def test_it_is_made_once_and_used_by_all(site: Site) -> None:
    async def go() -> None:
        platforms = [site.platform(), site.platform()]
        jobs = [needing(site, "tinystar>=1"), needing(site, "TinyStar >= 1")]
        before = await platforms[0].estimate(jobs[0].launch, [])
        assert before.seconds == 60
        assert [each.kind for each in before.warnings] == ["urn:execbroker:message:first-installation"]
        doing, _ = await asyncio.gather(*(prepared(*pair) for pair in zip(platforms, jobs, strict=True)))
        assert "installing tinystar>=1" in doing
        noted = [platform.context.stager.rates.seconds("environment") for platform in platforms]
        assert noted.count(None) == 1
        assert (await platforms[0].estimate(jobs[1].launch, [])).seconds == 0
        for job in jobs:
            await platforms[0].start(job)
            assert (await ended(platforms[0], job)).exit_code == 0
            magnitude, prefix = (await whole(platforms[0], job)).decode().split()
            assert magnitude == "4.2"
            assert Path(prefix).parent == site.root / "broker" / "platform" / "environments"
            await released(platforms[0], job)

    asyncio.run(go())


def test_what_pip_says_is_passed_on(site: Site) -> None:
    async def go() -> None:
        platform, job = site.platform(), needing(site, "no-such-package-anywhere")
        with pytest.raises(PlatformFailure, match="No matching distribution found for no-such-package-anywhere"):
            await prepared(platform, job)
        with pytest.raises(PlatformFailure, match="is not there"):
            await platform.start(job)
        await released(platform, job)

    asyncio.run(go())


@pytest.mark.parametrize("site", ["unboxed", "apart"], indirect=True)
def test_a_broker_that_dies_on_the_way_leaves_nothing_half_made(site: Site) -> None:
    name = "local-apart" if site.several else "local-unboxed"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-c", DIES, name, str(site.root), "0.3"]
    died = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, check=False, timeout=60)
    assert died.returncode == -signal.SIGALRM

    async def go() -> None:
        platform, job = site.platform(), needing(site, "tinystar")
        await prepared(platform, job)
        await platform.start(job)
        assert (await ended(platform, job)).exit_code == 0
        assert (await whole(platform, job)).startswith(b"4.2")

    asyncio.run(go())


BACKEND = """
import os, socket, zipfile

def reached():
    try:
        with socket.create_connection(("127.0.0.1", PORT), 3):
            return True
    except OSError:
        return False

def build_wheel(folder, *_):
    with zipfile.ZipFile(os.path.join(folder, "spying-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("spying.py", f"print({reached()}, {os.environ['PIP_CACHE_DIR']!r})")
        wheel.writestr("spying-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: spying\\nVersion: 1.0\\n")
        wheel.writestr("spying-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("spying-1.0.dist-info/RECORD", "")
    return "spying-1.0-py3-none-any.whl"
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def source(wheels: Path, port: int) -> None:
    """A package that does as it likes while it is built, as every one can."""
    with tarfile.open(wheels / "spying-1.0.tar.gz", "w:gz") as archive:
        texts = {"backend.py": BACKEND.replace("PORT", str(port)), "pyproject.toml": PROJECT}
        for name, text in (texts | {"PKG-INFO": "Metadata-Version: 2.1\nName: spying\nVersion: 1.0\n"}).items():
            member = tarfile.TarInfo(f"spying-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


def test_what_a_package_does_while_it_is_built_touches_no_other_user(site: Site) -> None:
    async def go() -> None:
        platform = site.platform()
        job = site.job(launch=Launch("process", ("python", "-c", "import spying"), requirements=("spying",)))
        await prepared(platform, job)
        await platform.start(job)
        await ended(platform, job)
        reached, cache = (await whole(platform, job)).decode().split()
        assert reached == str(not site.several)
        assert await asyncio.to_thread(Path(cache.strip("'")).exists) == (not site.several)
        await released(platform, job)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        source(site.root / "wheels", listener.getsockname()[1])
        asyncio.run(go())


def test_release_calls_it_off(site: Site) -> None:
    async def go() -> None:
        platform, job = site.platform(), needing(site, "tinystar")
        environment = platform.environments.of(job.launch.requirements)
        assert not (await platform.prepare(job)).done
        assert installers(environment.folder)
        await released(platform, job)
        assert not environment.complete
        assert not installers(environment.folder)

    asyncio.run(go())


def installers(folder: Path) -> list[bytes]:
    """The command lines that name this environment."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(file.read_bytes())
    return [words for words in found if str(folder).encode() in words]
