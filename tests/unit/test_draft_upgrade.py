"""The draft's documents read into v1.0, whatever they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execbroker.codecs import CODECS
from execbroker.draft.downgrading import form_of
from execbroker.draft.upgrading import upgrade, upgrade_offer
from execbroker.errors import Fault, Invalid
from execbroker.model.sessions import ExecutionRequest

GOLDEN = Path(__file__).parents[1] / "golden"
LISTINGS = {path.stem: path for path in sorted((GOLDEN / "draft").glob("*.yaml"))}
UUID_OF_OFFER = "2c89f536-3fff-48f7-943f-bcc5c3225be7"


def read(path: Path) -> Any:
    return CODECS[1].decode(path.read_bytes())


@pytest.mark.parametrize("path", LISTINGS.values(), ids=lambda path: path.stem)
def test_a_listing_is_v1_once_it_is_upgraded(path: Path) -> None:
    document = read(path)
    before = json.dumps(document)

    upgraded = upgrade(document)
    request = ExecutionRequest.model_validate(upgraded)

    assert request.executable is not None
    assert upgrade(upgraded) == upgraded
    assert form_of(document) is not None
    assert form_of(upgraded) is None
    assert json.dumps(document) == before


@pytest.mark.parametrize("path", sorted((GOLDEN / "upgraded").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_v1_request_stays_what_it_is(path: Path) -> None:
    document = read(path)
    for storage in document.get("storage", []):
        storage.pop("lifecycle", None)  # which is the draft's
    assert upgrade(document) == document


@pytest.mark.parametrize(
    ("requirements", "listed"),
    [
        ([{"numpi": ""}, {"astropy": ">= 6.1"}], ["numpi", "astropy>= 6.1"]),
        ([{"numpy": None, "scipy": ">1"}], ["numpy", "scipy>1"]),
        (["numpy>=2", {"astropy": "<7"}], ["numpy>=2", "astropy<7"]),
        ("numpy", ["numpy"]),
        ({"file": "https://example.org/r.txt"}, ["https://example.org/r.txt"]),
        ([{"numpy": 2}], [{"numpy": 2}]),
    ],
)
def test_requirements(requirements: Any, listed: Any) -> None:
    assert (
        upgrade({"executable": {"type": "python-program", "requirements": requirements}})["executable"]["requirements"] == listed
    )


@pytest.mark.parametrize(
    ("asked", "whole"),
    [
        ({"min": 1.2, "max": 3.8}, {"min": 2, "max": 3}),
        ({"requested": {"min": 0.5}}, {"min": 1}),
        ({"min": 4, "max": 4.0}, {"min": 4, "max": 4}),
        ({"min": 1.5, "units": "TiB"}, {"min": 1.5, "units": "TiB"}),
    ],
)
def test_amounts_are_whole_in_v1(asked: dict[str, Any], whole: dict[str, Any]) -> None:
    upgraded = upgrade({"resources": {"compute": [{"memory": asked}], "storage": [{"size": asked}]}})
    assert upgraded["compute"]["memory"] == upgraded["storage"][0]["size"] == whole


def test_storage_in_s3_is_data() -> None:
    store = {"type": "uri:amazon-s3-storage", "name": "source", "bucket": "b", "object": "o", "lifecycle": "unmanaged"}
    upgraded = upgrade({"request": {"resources": {"storage": [store, {"name": "results"}], "data": [{"name": "other"}]}}})
    assert [one["meta"]["name"] for one in upgraded["storage"]] == ["results"]
    assert [one["meta"]["name"] for one in upgraded["data"]] == ["other", "source"]
    assert upgraded["data"][1]["kind"].endswith("S3-data-resource.yaml")
    assert upgraded["data"][1].keys() == {"kind", "meta", "bucket", "object"}


def words(document: Any) -> set[str]:
    if isinstance(document, list):
        return set().union(*map(words, document))
    return set(document).union(*map(words, document.values())) if isinstance(document, dict) else set()


TERMS = {name for path in LISTINGS.values() for name in words(read(path))}
TERMS |= {"repo", "offer", "ident", "status", "update", "job", "kind", "meta", "path", "state", "offered", "content"}
KINDS = ["uri:amazon-s3-storage", "uri:ephemeral-storage", "uri:persistent-storage", "uri:jupyter-notebook-1.0"]
TEXTS = ["GiB", "PT1H", "P", "", "/", "/data/x", "unmanaged", "2023-08-14/P1D", "ACCEPTED", UUID_OF_OFFER, *KINDS]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS) | st.text(max_size=4)
KEYS: st.SearchStrategy[Any] = st.sampled_from(sorted(TERMS)) | st.text(max_size=2)
ANY = st.recursive(LEAVES, lambda parts: st.lists(parts, max_size=3) | st.dictionaries(KEYS, parts, max_size=5))
ODD = st.fixed_dictionaries(
    {},
    optional={
        "executable": ANY,
        "datetime": ANY,
        "schedule": ANY,
        "resources": st.fixed_dictionaries({}, optional={"compute": ANY, "storage": ANY, "data": ANY}),
    },
)


def tried(read_: Callable[[], Any]) -> tuple[Any, tuple[Fault, ...]]:
    """What it is read as, or what is wrong with it."""
    try:
        return read_(), ()
    except Invalid as error:
        return None, error.faults


@given(ANY | ODD | st.fixed_dictionaries({"request": ODD}))
def test_whatever_comes_is_upgraded_or_invalid(document: Any) -> None:
    before = json.dumps(document)
    form_of(document)
    upgraded, faults = tried(lambda: upgrade(document))
    json.dumps(upgraded)
    assert all(fault.path and fault.message for fault in faults)
    assert json.dumps(document) == before


@given(ANY | st.fixed_dictionaries({"offer": st.fixed_dictionaries({}, optional={"ident": ANY, "status": ANY, "x": ANY})}))
def test_whatever_is_sent_to_an_offer_is_an_update_or_invalid(document: Any) -> None:
    update, faults = tried(lambda: upgrade_offer(document, UUID_OF_OFFER))
    assert (update is None) == bool(faults)
    if update:
        assert update == {"kind": "uri:enum-value-update", "path": "phase", "value": document["offer"]["status"].upper()}
        assert document["offer"].get("ident") in (None, UUID_OF_OFFER)


@pytest.mark.parametrize("ident", [UUID_OF_OFFER, UUID_OF_OFFER.upper(), None])
@pytest.mark.parametrize("status", ["ACCEPTED", "rejected", "CANCELLED"])
def test_an_offer_is_its_status(ident: str | None, status: str) -> None:
    update = upgrade_offer({"offer": {"ident": ident, "status": status}}, str(UUID(UUID_OF_OFFER)))
    assert (update["path"], update["value"]) == ("phase", status.upper())
