import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from staging_site import DATA, HASTY, Page, Site, bring, job, running, stager, until

from execbroker.errors import PlatformFailure
from execbroker.model.messages import MessageItem
from execbroker.model.times import Clock
from execbroker.model.waist import Job, Mount, Progress, Source
from execbroker.staging.base import DataSettings, Fetcher, Found, Interrupted, Stream
from execbroker.staging.disk import on_disk
from execbroker.staging.rates import Rates
from execbroker.staging.stager import Stager


@pytest.fixture
def site() -> Iterator[Site]:
    with running(Site()) as site:
        yield site


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def parts(job: Job) -> list[Path]:
    return list((job.folder / "staging").glob("*.part"))


def brought(asked: Job, **settings: object) -> Progress:
    async def main() -> Progress:
        async with stager(**settings) as made:
            return await bring(made, asked)

    return asyncio.run(main())


def test_everything_comes_to_its_place_for_its_owner_alone(tmp_path: Path, site: Site) -> None:
    site.pages["/data"] = Page()
    url = f"{site.url}/data"
    mounts = (Mount("in", "storage/in", readonly=True), Mount("out", "storage/out", readonly=False))
    asked = job(
        tmp_path,
        Source(url, "storage/in/a"),
        Source(url, "storage/out/b/c"),
        Source(url, "storage/unmounted/d"),
        program=(Source(url, "notebook.ipynb"),),
        files={"run.sh": "echo ä\n", "etc/settings.json": "{}"},
        mounts=mounts,
    )
    assert brought(asked) == Progress(True, 4 * len(DATA), 4 * len(DATA), "")
    modes = {"storage/in/a": 0o444, "storage/out/b/c": 0o600, "storage/unmounted/d": 0o444, "home/notebook.ipynb": 0o600}
    for path, expected in modes.items():
        assert (asked.folder / path).read_bytes() == DATA
        assert mode(asked.folder / path) == expected
    assert (asked.folder / "home/run.sh").read_text() == "echo ä\n"
    assert mode(asked.folder / "home/run.sh") == mode(asked.folder / "home/etc/settings.json") == 0o600
    assert {mode(path) for path in asked.folder.rglob("*") if path.is_dir()} == {0o700} == {mode(asked.folder)}
    assert {path.suffix for path in (asked.folder / "staging").iterdir()} == {".json"}


def test_a_job_without_sources_is_done_at_once(tmp_path: Path) -> None:
    asked = job(tmp_path)
    assert brought(asked) == Progress(True, 0, 0, "")
    assert (asked.folder / "home").is_dir()


def test_progress_says_how_far_it_is(tmp_path: Path, site: Site) -> None:
    async def main() -> Progress:
        site.pages["/fast"] = Page(b"x" * 10)
        site.pages["/slow"] = page = Page(pause_at=2_000_000)
        async with stager() as made:
            asked = job(tmp_path, Source(f"{site.url}/fast", "fast"), Source(f"{site.url}/slow", "slow"))
            async with asyncio.timeout(10):
                while (progress := await made.stage(asked)).bytes < 2_000_010:
                    assert not progress.done
            page.go_on.set()
            await bring(made, asked)
            return progress

    assert asyncio.run(main()) == Progress(False, 2_000_010, len(DATA) + 10, "fetching slow (1 of 2 files are here)")


def test_at_most_four_transfers_go_on_at_once(tmp_path: Path, site: Site) -> None:
    async def main() -> list[int]:
        site.pages.update({f"/{at}": Page(pause_at=1000) for at in range(6)})
        asked = [job(tmp_path / str(at), Source(f"{site.url}/{at}", "data")) for at in range(6)]
        counts = []
        async with stager() as made:
            for each in asked:
                await made.stage(each)
            counts.append(len(site.asked))
            for page in site.pages.values():
                page.go_on.set()
            for each in asked:
                await bring(made, each)
        return [*counts, len(site.asked)]

    assert asyncio.run(main()) == [4, 6]


def test_rates_are_learnt(tmp_path: Path, site: Site) -> None:
    site.pages["/data"] = Page()
    rates = Rates()
    brought(job(tmp_path, Source(f"{site.url}/data", "data")), rates=rates)
    assert (rates.rate(site.url) or 0) > 1e5
    assert 0 < (rates.seconds(f"answer {site.url}") or 0) < 5


@pytest.mark.parametrize(
    ("sources", "program", "files"),
    [
        (("home/a", "home/./a"), (), {}),
        (("home/a",), ("a",), {}),
        ((), ("a",), {"a": ""}),
        (("s/a", "s/a"), (), {}),
    ],
)
def test_two_files_for_one_place_are_an_error(
    tmp_path: Path, site: Site, sources: tuple[str, ...], program: tuple[str, ...], files: dict[str, str]
) -> None:
    site.pages["/data"] = Page()
    data = (Source(f"{site.url}/data", path) for path in sources)
    asked = job(tmp_path, *data, program=tuple(Source(f"{site.url}/data", path) for path in program), files=files)
    with pytest.raises(PlatformFailure, match=r"two files are to be staged to (home|s)/a; give one of them another name"):
        brought(asked)
    assert site.asked == []


@pytest.mark.parametrize("path", ["../out", "/etc/out", "a/../../out", "a\0b", ""])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, site: Site, path: str) -> None:
    site.pages["/data"] = Page()
    with pytest.raises(PlatformFailure, match="is not a path below the session's folder"):
        brought(job(tmp_path, Source(f"{site.url}/data", path)))
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_through_a_link(tmp_path: Path, site: Site) -> None:
    site.pages["/data"] = Page()
    asked = job(tmp_path, Source(f"{site.url}/data", "storage/x/data"))
    (tmp_path / "elsewhere").mkdir()
    (asked.folder / "storage").mkdir(parents=True)
    (asked.folder / "storage/x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlatformFailure, match="data could not be stored at storage/x/data"):
        brought(asked)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not parts(asked)


def test_what_is_forbidden_is_not_fetched(tmp_path: Path) -> None:
    for url, why in (
        ("ftp://example.org/x", "only URLs of the schemes"),
        ("http://10.1.2.3/x", r"10\.1\.2\.3 is a private address"),
    ):
        with pytest.raises(PlatformFailure, match=rf"{url} at x cannot be fetched: .*{why}"):
            brought(job(tmp_path, Source(url, "x")))


def test_a_failure_stops_the_others_and_leaves_nothing_half_fetched(tmp_path: Path, site: Site) -> None:
    site.pages["/slow"] = Page(pause_at=1_500_000)
    asked = job(tmp_path, Source(f"{site.url}/slow", "slow"), Source(f"{site.url}/none", "none"))
    with pytest.raises(PlatformFailure, match=f"{site.url}/none could not be fetched: the server answered 404"):
        brought(asked)
    assert not parts(asked)
    assert not (asked.folder / "slow").exists()


def test_what_was_staged_is_left_alone_afterwards(tmp_path: Path, site: Site) -> None:
    """Even what the program changed meanwhile: a restarted broker may ask again."""
    site.pages["/data"] = Page()
    asked = job(tmp_path, program=(Source(f"{site.url}/data", "notebook"),), files={"run.sh": "one"})
    brought(asked)
    (asked.folder / "home/notebook").write_text("edited")
    (asked.folder / "home/run.sh").write_text("edited")
    assert brought(asked).done
    assert (asked.folder / "home/notebook").read_text() == (asked.folder / "home/run.sh").read_text() == "edited"
    assert len(site.asked) == 1


def test_forgetting_stops_at_once_and_what_came_is_gone_on_with(tmp_path: Path, site: Site) -> None:
    async def main() -> None:
        site.pages["/data"] = page = Page(pause_at=2_000_000)
        async with stager() as made:
            asked = job(tmp_path, Source(f"{site.url}/data", "data"))
            while (await made.stage(asked)).bytes < 2_000_000:
                pass
            before = set(open_files())
            await made.forget(asked.uuid)
            await made.forget(asked.uuid)
            await made.forget(uuid4())
            assert parts(asked)[0] in before
            assert parts(asked)[0] not in open_files()
            page.go_on.set()
            await bring(made, asked)
            assert (asked.folder / "data").read_bytes() == DATA

    asyncio.run(main())
    assert [get.get("Range") for get in site.gets("/data")] == [None, "bytes=2000000-"]


def open_files() -> list[Path]:
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            found.append(handle.readlink())
        except FileNotFoundError:
            continue
    return found


def test_what_a_thread_is_writing_is_waited_for() -> None:
    async def main() -> list[str]:
        started, go_on, done = threading.Event(), threading.Event(), list[str]()

        def work() -> None:
            started.set()
            go_on.wait(20)
            done.append("written")

        writing = asyncio.create_task(on_disk(work))
        await until(started.is_set)
        writing.cancel()
        asyncio.get_running_loop().call_later(0.1, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await writing
        return list(done)

    assert asyncio.run(main()) == ["written"]


class Careless(Fetcher):
    """A stranger's fetcher, which goes on wherever it is asked to, whatever is there now."""

    schemes = ("careless",)
    body, version, skipped = DATA, "one", 0
    opened: list[int]

    def reasons_against(self, url: str, path: str) -> list[MessageItem]:
        return []

    async def probe(self, url: str) -> Found:
        return Found(len(self.body))

    @asynccontextmanager
    async def open(self, url: str, offset: int = 0, version: str | None = None) -> AsyncIterator[Stream]:
        self.opened.append(offset)
        start = offset and offset + self.skipped
        yield Stream(start, len(self.body), self.version, self.chunks(start))

    async def chunks(self, start: int) -> AsyncGenerator[bytes, None]:
        yield self.body[start : start + 1_000_000]
        if len(self.opened) == 1:
            self.body, self.version, self.skipped = self.later
            raise Interrupted("cut")
        yield self.body[start + 1_000_000 :]

    def __init__(self, later: tuple[bytes, str, int]) -> None:
        super().__init__(DataSettings())
        self.opened, self.later = [], later


@pytest.mark.parametrize("later", [(DATA[::-1], "two", 0), (DATA, "one", 7)], ids=["another version", "another offset"])
def test_what_does_not_go_on_where_it_stopped_is_fetched_anew(tmp_path: Path, later: tuple[bytes, str, int]) -> None:
    fetcher = Careless(later)

    async def main() -> Path:
        made = Stager({"careless": fetcher}, fetcher.settings, Rates(), Clock(), HASTY)
        asked = job(tmp_path, Source("careless:x", "data"))
        await bring(made, asked)
        await made.close()
        return asked.folder / "data"

    assert asyncio.run(main()).read_bytes() == later[0]
    assert fetcher.opened == [0, 1_000_000, 0]


def test_whoever_waits_for_a_forgotten_job_is_told(tmp_path: Path, site: Site) -> None:
    async def main() -> None:
        site.pages["/data"] = Page(pause_at=1000)
        async with stager() as made:
            asked = job(tmp_path, Source(f"{site.url}/data", "data"))
            waiting = asyncio.create_task(made.stage(asked))
            await until(lambda: bool(site.asked))
            await made.forget(asked.uuid)
            with pytest.raises(PlatformFailure, match="called off"):
                await waiting

    asyncio.run(main())


PROCESS = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from uuid import UUID
    sys.path.insert(0, sys.argv[1])
    from execbroker.model.waist import Source
    from staging_site import bring, job, stager

    async def main():
        async with stager() as made:
            await bring(made, job(Path(sys.argv[2]), Source(sys.argv[3], "data"), uuid=UUID(sys.argv[4])))

    asyncio.run(main())
""")


def process(asked: Job) -> subprocess.Popen[bytes]:
    here, folder, [source] = str(Path(__file__).parent), str(asked.folder.parent), asked.sources
    return subprocess.Popen([sys.executable, "-c", PROCESS, here, folder, source.url, str(asked.uuid)])


@pytest.mark.parametrize("replaced", [False, True], ids=["the same file", "another file meanwhile"])
def test_a_killed_transfer_is_resumed_by_the_next_process(tmp_path: Path, site: Site, replaced: bool) -> None:
    async def main() -> None:
        site.pages["/data"] = page = Page(pause_at=2_500_000)
        asked = job(tmp_path, Source(f"{site.url}/data", "data"))
        with process(asked) as broker:
            await until(lambda: any(part.stat().st_size >= 2 << 20 for part in parts(asked)))
            broker.send_signal(signal.SIGKILL)
        page.go_on.set()
        assert not (asked.folder / "data").exists()
        other = Page(bytes(reversed(DATA)), {"ETag": '"two"'})
        site.pages["/data"] = other if replaced else Page()
        async with stager() as made:
            await bring(made, asked)
        assert (asked.folder / "data").read_bytes() == site.pages["/data"].body

    asyncio.run(main())
    first, second = site.gets("/data")
    assert "Range" not in first
    assert int(second["Range"].strip("bytes=-")) >= 2 << 20


def test_killed_at_any_moment_the_file_ends_whole(tmp_path: Path, site: Site) -> None:
    """Every state that a kill can leave: bytes without a record, a record without bytes, all there but not yet in place."""

    async def main() -> None:
        site.pages["/data"] = Page()
        asked = job(tmp_path, Source(f"{site.url}/data", "data"))
        async with stager() as made:
            await bring(made, asked)
            [sidecar] = (asked.folder / "staging").glob("*.json")
            part, target, record = sidecar.with_suffix(".part"), asked.folder / "data", json.loads(sidecar.read_bytes())
            half = {**record, "complete": False}
            states = [
                (None, DATA[:1000], None),
                ("{", DATA[:1000], None),
                (json.dumps(half), None, None),
                (json.dumps(half), b"", None),
                (json.dumps(half), DATA[:1000], None),
                (json.dumps(half), DATA, None),
                (json.dumps(half), DATA + b"more", None),
                (json.dumps(half), None, DATA),
                (json.dumps(record), DATA, None),
                (json.dumps(record), None, None),
                (json.dumps({**half, "url": "http://other/"}), b"x" * 1000, None),
                (json.dumps({**half, "version": '"older"'}), b"x" * 1000, None),
            ]
            for state in states:
                for path, content in zip((sidecar, part, target), state, strict=True):
                    path.unlink(missing_ok=True)
                    if content is not None:
                        path.write_bytes(content.encode() if isinstance(content, str) else content)
                assert (await bring(made, asked)).done
                assert target.read_bytes() == DATA, state[0]
                assert not part.exists()

    asyncio.run(main())


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False, capture_output=True)
    if mounted.returncode:
        hint = "a small file system cannot be mounted here, to be filled; run the tests as root, outside a container"
        pytest.fail(hint) if os.environ.get("CI") else pytest.skip(hint)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_a_clear_failure_and_the_space_is_given_back(tmp_path: Path, site: Site) -> None:
    async def main(disk: Path) -> None:
        site.pages["/data"], site.pages["/small"] = Page(), Page(b"small")
        async with stager() as made:
            asked = job(disk, Source(f"{site.url}/data", "data"))
            with pytest.raises(PlatformFailure, match=f"{site.url}/data could not be stored at data: the broker's disk is full"):
                await bring(made, asked)
            assert not parts(asked)
            await bring(made, job(disk, Source(f"{site.url}/small", "small")))
            assert (asked.folder / "small").read_bytes() == b"small"

    with small_disk(tmp_path / "disk") as disk:
        asyncio.run(main(disk))
