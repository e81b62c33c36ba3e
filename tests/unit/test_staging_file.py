import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from staging_site import DATA, bring, job, stager

from execbroker.errors import PlatformFailure
from execbroker.model.waist import Source
from execbroker.staging.base import DataSettings, Forbidden, Missing
from execbroker.staging.file import FileFetcher


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An open folder, with something beside it that nobody may read."""
    (tmp_path / "open" / "below").mkdir(parents=True)
    (tmp_path / "open" / "image.fits").write_bytes(DATA)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "open-too").mkdir()
    (tmp_path / "open-too" / "data").write_text("secret")
    return tmp_path / "open"


def stage(tmp_path: Path, url: str, *folders: Path) -> bytes:
    async def main() -> bytes:
        async with stager(folders=list(folders)) as made:
            asked = job(tmp_path, Source(url, "data"))
            await bring(made, asked)
            return (asked.folder / "data").read_bytes()

    return asyncio.run(main())


def reasons(url: str, *folders: Path) -> list[str]:
    fetcher = FileFetcher(DataSettings(folders=list(folders)))
    return [str(item.message) for item in fetcher.reasons_against(url, "data[0].location")]


def refusal(url: str, *folders: Path) -> str:
    """What is said of a URL that gets past the first look, by a probe and by a transfer alike."""
    fetcher = FileFetcher(DataSettings(folders=list(folders)))

    async def transfer() -> Any:
        async with fetcher.open(url):
            pass

    said = set()
    for ask in (lambda: fetcher.probe(url), transfer):
        with pytest.raises((Forbidden, Missing)) as refused:
            asyncio.run(ask())
        said.add(f"{refused.type.__name__}: {refused.value}")
    assert len(said) == 1
    return said.pop()


def test_a_file_below_an_open_folder_is_staged(tmp_path: Path, folder: Path) -> None:
    for url in (f"file://{folder}/image.fits", f"file://localhost{folder}/image.fits", f"FILE:{folder}/below/../im%61ge.fits"):
        assert reasons(url, folder) == []
        assert stage(tmp_path, url, folder) == DATA


def test_a_folder_may_be_named_by_a_link(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    for url in (f"file://{tmp_path}/link/image.fits", f"file://{folder}/image.fits"):
        assert reasons(url, tmp_path / "link") == []
        assert stage(tmp_path, url, tmp_path / "link") == DATA


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file://{open}/../secret", "not below"),
        ("file://{open}/%2e%2e/secret", "not below"),
        ("file://{open}-too/data", "not below"),
        ("file:///etc/passwd", "not below"),
        ("file://archive.example{open}/image.fits", "names the host archive.example"),
        ("file:image.fits", "absolute path"),
        ("file://{open}/image.fits?x", "%3F"),
        ("file://{open}/image%00.fits", "absolute path"),
        ("file://[bad/x", "not a URL"),
    ],
)
def test_other_places_are_refused_at_once(folder: Path, url: str, why: str) -> None:
    url = url.format(open=folder)
    [said] = reasons(url, folder)
    assert said.startswith(f"{url} at data[0].location cannot be fetched: ")
    assert why in said
    assert "Forbidden" in refusal(url, folder)


def test_without_open_folders_every_file_is_refused(folder: Path) -> None:
    [said] = reasons(f"file://{folder}/image.fits")
    assert "data.folders is empty" in said
    assert "data.folders is empty" in refusal(f"file://{folder}/image.fits")


def test_a_link_that_leads_out_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("../secret")
    (folder / "dir").symlink_to(folder.parent)
    for name in ("link", "dir/secret", "dir/open-too/data"):
        assert "Forbidden: it is not below" in refusal(f"file://{folder}/{name}", folder)


def test_only_regular_files_are_read(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    assert refusal(f"file://{folder}/below", folder) == "Forbidden: it is a directory; name a file in it"
    assert refusal(f"file://{folder}/fifo", folder) == "Forbidden: it is no regular file"
    assert refusal("file:///dev/zero", Path("/dev")) == "Forbidden: it is no regular file"


def test_a_file_that_is_not_there_is_proof(tmp_path: Path, folder: Path) -> None:
    for name in ("none", "image.fits/none"):
        assert refusal(f"file://{folder}/{name}", folder) == "Missing: there is no such file"
    with pytest.raises(PlatformFailure, match="none could not be fetched: there is no such file"):
        stage(tmp_path, f"file://{folder}/none", folder)


def test_a_transfer_is_resumed_only_while_the_file_is_the_same(folder: Path) -> None:
    fetcher = FileFetcher(DataSettings(folders=[folder]))
    url = f"file://{folder}/image.fits"

    async def read(offset: int, version: str | None) -> tuple[int, bytes, str | None]:
        async with fetcher.open(url, offset, version) as stream:
            return stream.offset, b"".join([chunk async for chunk in stream.chunks]), stream.version

    _, whole, version = asyncio.run(read(0, None))
    assert whole == DATA
    assert asyncio.run(read(1000, version)) == (1000, DATA[1000:], version)
    assert asyncio.run(read(len(DATA) + 1, version))[0] == 0
    (folder / "image.fits").write_bytes(bytes(len(DATA)))
    os.utime(folder / "image.fits", (1, 1))
    assert asyncio.run(read(1000, version))[:2] == (0, bytes(len(DATA)))
