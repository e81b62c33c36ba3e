"""Whatever comes to the door, in whichever form, is answered, and as described."""

import asyncio
import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokersite import NOTEBOOK, Site, asked, uuid_of
from documents import anything
from execbroker.codecs import CODECS, Codec

GOLDEN = Path(__file__).parents[1] / "golden"
EXAMPLES = int(os.environ.get("EXECBROKER_FUZZ", "0")) // len(CODECS) or 150
ADDRESSES = ("/requests", "/direct", "/offerset", "/request", "/offersets", "/sessions/{}", "/offers/{}", "/execution/{}")
DOCUMENTS: list[Any] = [
    {"executable": NOTEBOOK, **asked(1, 1)},
    {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"},
    {"kind": "uri:integer-delta-update", "path": "schedule.available.duration", "delta": 5, "units": "minutes"},
    {"offer": {"status": "ACCEPTED"}},
    {"executable": NOTEBOOK, "further_compute": [{"kind": "simple-compute-resource", "colour": 1}], "costs": [{"kind": "x"}]},
    {"type": "urn:enum-value-update", "path": "state", "value": "REJECTED"},
    *(yaml.safe_load(path.read_text()) for path in sorted((GOLDEN / "kinds").glob("request.yaml"))),
    *(yaml.safe_load(path.read_text()) for path in sorted((GOLDEN / "draft").glob("*.yaml"))),
]


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every member of every map and list in it: what holds it, and at what."""
    members = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for at, part in list(members):
        yield document, at
        yield from places(part)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A document with some of its parts exchanged for others, of anywhere, or left out."""
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(0, 3))):
        if not (found := list(places(document))):
            break
        holder, at = draw(st.sampled_from(found))
        other, there = draw(st.sampled_from(found))
        new = draw(anything | st.just(copy.deepcopy(other[there])))
        if isinstance(holder, dict) and draw(st.booleans()):
            del holder[at]
        else:
            holder[at] = new
    return document


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.media_type.rpartition("/")[2])
def test_every_body_is_answered(tmp_path: Path, codec: Codec) -> None:
    with asyncio.Runner() as runner:
        site = runner.run(Site(tmp_path).__aenter__())
        uuid = uuid_of(runner.run(site.offers())[0])

        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
        @given(address=st.sampled_from(ADDRESSES), document=damaged(), cut=st.none() | st.tuples(st.integers(0), st.binary()))
        def post(address: str, document: Any, cut: tuple[int, bytes] | None) -> None:
            body = codec.encode(document)
            if cut:
                place, new = cut[0] % (len(body) + 1), cut[1]
                body = body[:place] + new + body[place + len(new) :]
            headers = {"content-type": codec.media_type}
            answer = runner.run(site.client.post(address.format(uuid), content=body, headers=headers))
            assert answer.status_code < 500, (body, answer.text)

        post()
        runner.run(site.__aexit__(None, None, None))
