"""A document of every kind, with every field, as kept in `tests/golden/kinds`; EXECBROKER_WRITE_GOLDEN=1 writes them anew."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from documents import full, kinds, read
from execbroker.codecs import CODECS, Codec

GOLDEN = Path(__file__).parent.parent / "golden" / "kinds"


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.media_type)
@pytest.mark.parametrize("name", kinds())
def test_every_kind(name: str, codec: Codec) -> None:
    target, cls = kinds()[name]
    model: BaseModel = cls.model_validate(full(cls))
    path = GOLDEN / f"{name}.{codec.media_type.rpartition('/')[2]}"
    if os.environ.get("EXECBROKER_WRITE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(codec.encode(model))
    assert codec.encode(model) == path.read_bytes()
    assert read(target, codec, path.read_bytes()) == model


def test_no_golden_file_is_left_over() -> None:
    known: dict[str, Any] = kinds()
    assert {path.stem for path in GOLDEN.iterdir()} == set(known)
