"""Backup and restore as docs/operating.md has them, with a broker at work."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from operatingpage import BIN, blocks, wanting

import stores
from brokersite import NOTEBOOK
from execbroker.client import AsyncClient, ClientError
from execbroker.model.phases import Phase
from processsite import SITE, Site, environment, until

FOLDER, ADDRESS = "/var/lib/execbroker", "postgresql://execbroker@db.example.org/execbroker"


class Shelf:
    """Where the docs' commands put their backups; they are run as written, but for the paths and the address."""

    def __init__(self, site: Site, folder: Path) -> None:
        folder.mkdir()
        self.site, self.folder = site, folder
        self.store = "dump" if stores.server else "sqlite"
        if stores.server and not shutil.which("pg_dump"):
            wanting("pg_dump is not here: install the client of PostgreSQL (on Debian and Ubuntu: postgresql-client)")

    def script(self, heading: str) -> str:
        """The commands below a heading, those of the other store left out."""
        other = "ledger.sqlite" if stores.server else "ledger.dump"
        text = "".join(block for block in blocks(heading) if other not in block)
        assert f"ledger.{self.store}" in text
        places = {"/var/backups/execbroker": self.folder, FOLDER: self.site.data, "/opt/execbroker/bin": BIN}
        places[ADDRESS] = stores.address(self.site.data) or ADDRESS
        for written, here in places.items():
            text = text.replace(written, str(here))
        return text

    async def run(self, script: str) -> str:
        """What it says. Its every command must succeed."""
        process = await asyncio.create_subprocess_exec(
            "sh", "-euc", script, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, out.decode()
        return out.decode()

    async def back_up(self) -> None:
        await self.run(self.script("Backup"))

    async def restore(self, *, files: bool) -> str:
        """Of the files only where they were lost, as the docs say."""
        [made] = self.folder.iterdir()
        script = re.sub(r"\d{8}T\d{6}Z", made.name, self.script("Restore"))
        return await self.run(script if files else re.sub(r"^tar --extract.*\n", "", script, flags=re.MULTILINE))


PROGRAM = """import pathlib, time
pathlib.Path("result").write_text("kept")
for second in range(10):
    print(second, flush=True)
    time.sleep(1)
"""


def settings(folder: Path) -> dict[str, Any]:
    """A platform that really runs programs, beside the usual one."""
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    here = {"name": "here", "type": "local", "nodes": [{"cores": 1, "memory": 1, "storage": 10}]}
    return {"platforms": [SITE, here], "data": {"folders": [str(folder)]}, "offers": {"expires": "PT5S"}}


async def started(client: AsyncClient, folder: Path) -> str:
    """The program, as soon as it runs."""
    executable = {"kind": "python-program", "location": (folder / "program.py").as_uri()}
    compute = {"kind": "simple-compute-resource", "cores": {"min": 1}, "memory": {"min": 1}}
    session = await client.direct({"executable": executable, "compute": compute, "platforms": "here"})
    uuid = str(session.meta.uuid)  # type: ignore[union-attr]
    async for session in client.follow(uuid):
        assert session.phase not in (None, Phase.FAILED, Phase.CANCELLED), session
        if session.phase is Phase.RUNNING:
            break
    async with asyncio.timeout(20):
        while not await client.output(uuid):  # noqa: ASYNC110 -- it is another process that writes
            await asyncio.sleep(0.1)
    return uuid


def wish(seconds: int) -> dict[str, Any]:
    """A session that starts so many seconds from now."""
    start = datetime.now(UTC) + timedelta(seconds=seconds)
    requested = {"start": f"{start:%Y-%m-%dT%H:%M:%SZ}/PT0S", "duration": "PT2M"}
    return {"executable": NOTEBOOK, "platforms": "site", "schedule": {"requested": requested}}


async def accepted(client: AsyncClient, seconds: int) -> str:
    answer = await client.ask(wish(seconds))
    assert answer.offers, answer
    session = await client.accept(answer.offers[0].meta.uuid)  # type: ignore[union-attr,arg-type]
    return str(session.meta.uuid)  # type: ignore[union-attr]


async def keep_busy(client: AsyncClient, done: list[str]) -> None:
    """Ask and accept, one session after another, far ahead."""
    while True:
        done.append(await accepted(client, 36000 + 300 * len(done)))


async def disturbed(client: AsyncClient, shelf: Shelf) -> None:
    """Back up while the broker is at work."""
    done: list[str] = []
    work = asyncio.create_task(keep_busy(client, done))
    await until(lambda: work.done() or len(done) > 3)
    before = len(done)
    await shelf.back_up()
    await until(lambda: work.done() or len(done) > before)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


@contextmanager
def running(site: Site) -> Iterator[Site]:
    site.start()
    try:
        yield site
    finally:
        site.stop()


async def ended(client: AsyncClient, uuid: str) -> Phase | None:
    phase = None
    async with asyncio.timeout(60):
        async for session in client.follow(uuid):
            phase = session.phase
    return phase


@pytest.mark.parametrize("lost", [False, True], ids=["files-intact", "files-lost"])
def test_after_a_restore_what_was_accepted_goes_on(tmp_path: Path, lost: bool) -> None:
    site = Site(tmp_path / "site", settings(tmp_path / "programs"))
    shelf = Shelf(site, tmp_path / "backups")

    async def before() -> dict[str, str]:
        async with AsyncClient(folder=site.data) as client:
            uuids = {"running": await started(client, tmp_path / "programs"), "waiting": await accepted(client, 6)}
            await disturbed(client, shelf)
            return {**uuids, "later": await accepted(client, 30000)}

    async def after(running: str, waiting: str, later: str) -> None:
        async with AsyncClient(folder=site.data) as client:
            with pytest.raises(ClientError) as unknown:
                await client.session(later)
            assert unknown.value.status == 404
            assert await ended(client, waiting) is Phase.COMPLETED
            assert await ended(client, running) is (Phase.FAILED if lost else Phase.COMPLETED)
            lines = (await client.output(running)).decode().split()
            assert lines[:1] == ["0"] if lost else lines == [str(second) for second in range(10)]
            assert "home/result" in [file.path for file in await client.files(running)]
            assert await accepted(client, 30000)

    async def restore() -> None:
        said = await shelf.restore(files=lost)
        assert "nothing is wrong" in said
        assert int(said.split(" holds looked at")[0].split()[-1].replace(",", "")) >= 5

    with running(site):
        uuids = asyncio.run(before())
        token = (site.data / "token").read_text()
    if lost:
        shutil.rmtree(site.data)
        site.data.mkdir(mode=0o700)
    asyncio.run(restore())
    assert (site.data / "token").read_text() == token
    with running(site):
        asyncio.run(after(**uuids))
        assert site("audit").code == 0
