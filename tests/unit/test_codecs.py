"""What is written is read back as it was, in each media type and by readers of either YAML."""

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from execbroker.codecs import CODECS, Codec, depth_of
from execbroker.errors import Unreadable

JSON, YAML, _ = CODECS
tricky = st.sampled_from(
    ["", "~", "null", "NO", "no", "yes", "on", "True", "1", "-1", "+1", "0o17", "017", "0x1F", "1e5", "1E5", "12e5", "1.5", ".5",
     "1.", "1_000", "1:30", ".inf", ".nan", "2020-01-01", "2020-01-01T00:00:00Z", "=", "<<", "- a", "a: b", "a #b", "#a", "'",
     '"', "&a", "*a", "!a", "%a", "@a", "`a", "|", ">", "{", "[", "\n", " a", "a ", "\t", "a\nb\n",
     "\u2028", "\x85", "\x7f", "\ufeff", "é"]
)  # fmt: skip
texts = tricky | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=15,
)


@pytest.mark.parametrize("codec", [JSON, YAML], ids=lambda codec: codec.media_type)
@given(document=documents)
def test_what_is_written_is_read_back(codec: Codec, document: object) -> None:
    assert codec.decode(codec.encode(document)) == document


@given(texts)
def test_strings_stay_strings_for_readers_of_yaml_1_1(text: str) -> None:
    assert yaml.safe_load(YAML.encode({"a": text})) == {"a": text}


@given(st.binary(max_size=200) | st.text(alphabet="{}[]:,-&*!|>'\"#%@`~? \n\tab0.", max_size=100).map(str.encode))
def test_whatever_is_read_is_data_or_unreadable(body: bytes) -> None:
    for codec in CODECS:
        try:
            document = codec.decode(body)
        except Unreadable:
            continue
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("YES", "YES"), ("no", "no"), ("on", "on"), ("true", True), ("False", False), ("~", None), ("", None), ("null", None),
        ("12", 12), ("-12", -12), ("0o17", 15), ("0x1f", 31), ("017", 17), ("1_000", "1_000"), ("1:30", "1:30"), ("1e3", 1000.0),
        (".5", 0.5), ("2020-01-01", "2020-01-01"), (".inf", ".inf"), (".nan", ".nan"), ("!!str 12", "12"), ("!!int '12'", 12),
        ("'12'", "12"), ("<<", "<<"),
    ],
)  # fmt: skip
def test_the_core_schema(text: str, value: object) -> None:
    assert YAML.decode(f"a: {text}".encode()) == {"a": value}


@pytest.mark.parametrize("body", [b"a: 1\na: 2", b"{a: 1, a: 2}", b"a: {b: [{c: 1, 'c': 2}]}", b"? ~\n: 1\n? null\n: 2"])
def test_a_key_that_is_there_twice(body: bytes) -> None:
    if body.startswith(b"?"):
        assert YAML.decode(body) == {None: 2}
        return
    with pytest.raises(Unreadable, match="twice"):
        YAML.decode(body)


def test_aliases_are_read() -> None:
    assert YAML.decode(b"a: &x [1, {b: 2}]\nc: *x\n") == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}


def test_depth() -> None:
    assert [depth_of(value) for value in (1, [], [1], [[1]], {"a": [{"b": 1}]})] == [1, 1, 2, 3, 4]


def test_what_is_not_json() -> None:
    for text in ("NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', '"\\udfff\\ud800"', "01", "{'a': 1}", "[1,]", "\x00"):
        with pytest.raises(Unreadable):
            JSON.decode(text.encode())
    assert JSON.decode(b'"\\ud83d\\ude00"') == "😀"
    assert math.isclose(JSON.decode(b"1.5"), 1.5)
