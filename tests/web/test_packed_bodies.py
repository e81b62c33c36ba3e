"""Bodies in gzip and deflate: read as others are, and stopped at the limit."""

import asyncio
import gzip
import itertools
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokersite import NOTEBOOK, Site
from execbroker.web.bodies import PIECE, Crowd, Packed

ASK = json.dumps({"executable": NOTEBOOK}).encode()
JSON = {"content-type": "application/json"}


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


PACKED = {
    "gzip": ("gzip", gzip.compress(ASK)),
    "GZip": ("GZip", gzip.compress(ASK)),
    "x-gzip": ("x-gzip", gzip.compress(ASK)),
    "several members": ("gzip", gzip.compress(ASK[:20]) + gzip.compress(b"") + gzip.compress(ASK[20:])),
    "deflate": ("deflate", zlib.compress(ASK)),
    "deflate without a head": ("deflate", raw_deflate(ASK)),
    "identity": ("identity", ASK),
}
REFUSED = {
    "no gzip": ("gzip", ASK, 400),
    "no deflate": ("deflate", b"\x78\x9c" + ASK, 400),
    "cut off": ("gzip", gzip.compress(ASK)[:-3], 400),
    "one byte": ("deflate", b"\x78", 400),
    "more after it": ("gzip", gzip.compress(ASK) + b"more", 400),
    "more after deflate": ("deflate", zlib.compress(ASK) + b"more", 400),
    "a gigabyte": ("gzip", gzip.compress(b" " * (64 << 20), 9) * 16, 413),
    "endless members of nothing": ("gzip", gzip.compress(b"") * 200_000, 413),
    "one byte too many": ("gzip", gzip.compress(ASK + b" " * ((1 << 20) - len(ASK) + 1)), 413),
    "two": ("gzip, gzip", gzip.compress(gzip.compress(ASK)), 415),
    "unknown": ("br", ASK, 415),
}


def post(site: Site, content: Any, encoding: str) -> Any:
    async def work() -> Any:
        async with site:
            return await site.client.post("/requests", content=content, headers={**JSON, "content-encoding": encoding})

    return asyncio.run(work())


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_body_is_read(site: Site, name: str) -> None:
    encoding, content = PACKED[name]
    answer = post(site, content, encoding)
    assert (answer.status_code, answer.json()["result"]) == (200, "YES")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_such_body_is_refused(site: Site, name: str) -> None:
    encoding, content, status = REFUSED[name]
    answer = post(site, content, encoding)
    assert answer.status_code == answer.json()["status"] == status, answer.text
    if status == 415:
        assert "gzip" in answer.headers["accept-encoding"]
        assert "deflate" in answer.json()["detail"]


def test_a_body_of_exactly_the_limit_is_read(site: Site) -> None:
    assert post(site, gzip.compress(ASK + b" " * ((1 << 20) - len(ASK))), "gzip").status_code == 200


def test_nesting_is_limited_after_unpacking(site: Site) -> None:
    assert post(site, gzip.compress(b"[" * 100_000 + b"]" * 100_000), "gzip").status_code == 400


def test_reading_stops_at_the_limit(site: Site) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        packer = zlib.compressobj(wbits=31)
        while True:
            sent += 1 << 20
            yield packer.compress(b" " * (1 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)

    assert post(site, endless(), "gzip").status_code == 413
    assert sent <= 4 << 20


@given(content=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 4000)), kind=st.sampled_from(["gzip", "deflate", "raw"]))
def test_however_it_arrives_it_is_unpacked(content: bytes, cuts: list[int], kind: str) -> None:
    content *= 200  # several pieces
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "raw": raw_deflate}[kind](content)
    edges = [0, *sorted(cut for cut in cuts if cut < len(packed)), len(packed)]
    unpacker = Packed(gzip=kind == "gzip")
    pieces = [piece for start, end in itertools.pairwise(edges) for piece in unpacker.unpack(packed[start:end])]
    assert b"".join(pieces) == content
    assert unpacker.complete
    assert all(len(piece) <= PIECE for piece in pieces)


@pytest.mark.parametrize("crowd", [{"most": 2}, {"each": 2}])
def test_of_large_bodies_only_so_many_are_held_and_small_ones_go_on(site: Site, crowd: dict[str, int]) -> None:
    async def work() -> None:
        async with site:
            site.app.state.crowd = Crowd(**crowd)
            full, stop = asyncio.Event(), asyncio.Event()

            async def slow() -> AsyncIterator[bytes]:
                yield b" " * (1 << 17)
                full.set()
                await stop.wait()
                yield ASK

            held = []
            for _ in range(2):
                full.clear()
                held.append(asyncio.create_task(site.client.post("/requests", content=slow(), headers=JSON)))
                await full.wait()
            refused = await site.client.post("/requests", content=b" " * (1 << 17) + ASK, headers=JSON)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert (await site.client.post("/requests", content=ASK, headers=JSON)).status_code == 200
            stop.set()
            assert [(await one).status_code for one in held] == [200, 200]
            assert (await site.client.post("/requests", content=b" " * (1 << 17) + ASK, headers=JSON)).status_code == 200

    asyncio.run(work())
