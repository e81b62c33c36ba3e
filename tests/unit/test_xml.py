"""XML carries the same models as JSON and YAML, and whatever is sent as XML is read or refused."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from documents import anything, characters, documents, full, kinds, read
from execbroker.codecs import CODECS, Codec
from execbroker.errors import Invalid, Unreadable
from execbroker.model.options import AbstractUpdate, Update
from execbroker.model.sessions import ExecutionRequest, OfferSetResponse

JSON, _, XML = CODECS
REQUEST = XML.encode(ExecutionRequest.model_validate(full(ExecutionRequest)))
slow = settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.media_type)
@pytest.mark.parametrize("name", sorted(kinds()))
@slow
@given(data=st.data())
def test_a_model_is_read_back_as_it_was(codec: Codec, name: str, data: st.DataObject) -> None:
    target, cls = kinds()[name]
    model = read(target, JSON, json.dumps(data.draw(documents(cls))).encode())
    assert read(target, codec, codec.encode(model)) == model


@given(anything)
def test_what_no_schema_describes_is_read_back_as_it_was(document: Any) -> None:
    assert XML.decode(XML.encode(document)) == document


def as_request(text: str) -> dict[str, Any]:
    return read(ExecutionRequest, XML, f"<offers-request>{text}</offers-request>".encode()).model_dump(
        mode="json", exclude_none=True
    )


COMPUTE = '<compute kind="simple-compute-resource">{}</compute>'


@pytest.mark.parametrize(
    ("inside", "compute"),
    [
        ("<cores><max>8</max><min>1</min></cores>", {"cores": {"min": 1, "max": 8}}),
        ("<cores>\n<min> 1\t</min>\n<max>+8</max> </cores>", {"cores": {"min": 1, "max": 8}}),
        ('<cores min="1" max="8"/>', {"cores": {"min": 1, "max": 8}}),
        ("<cores><!-- few --><min><![CDATA[1]]></min><?x y?></cores>", {"cores": {"min": 1}}),
        ("<cores/>", {"cores": {}}),
        ("<accelerators><count>2</count></accelerators>", {"accelerators": [{"count": {"min": 2, "max": 2}}]}),
        ("<licences><name>a</name></licences><licences><name>b</name><count>2</count></licences>",
         {"licences": [{"name": "a", "count": 1}, {"name": "b", "count": 2}]}),
        ("<licences><licences><name>a</name></licences></licences>", {"licences": [{"name": "a", "count": 1}]}),
        ("<licences><licence><name>a</name></licence><licence><name>b</name></licence></licences>",
         {"licences": [{"name": "a", "count": 1}, {"name": "b", "count": 1}]}),
        ("<licences><item><name>a</name></item></licences>", {"licences": [{"name": "a", "count": 1}]}),
        ("<licences><name>a</name></licences>", {"licences": [{"name": "a", "count": 1}]}),
        ("<volumes/>", {"volumes": []}),
        ("<meta><name>a</name><messages><message><message>hi</message></message></messages></meta>",
         {"meta": {"name": "a", "messages": [{"message": "hi"}]}}),
        ("<meta><message><message>hi</message></message></meta>", {"meta": {"messages": [{"message": "hi"}]}}),
        ("<colour>blue</colour>", {"colour": "blue"}),
        ("<cores>many<min>1</min></cores>", {"cores": {"min": 1, "#text": "many"}}),
        ('<flavour xml:space="preserve"> a </flavour>', {"flavour": " a "}),
        ('<flavour xmlns:x="http://www.w3.org/2001/XMLSchema-instance" x:nil="true"/>', {}),
    ],
)  # fmt: skip
def test_what_others_write(inside: str, compute: dict[str, Any]) -> None:
    found = as_request(COMPUTE.format(inside))["compute"]
    assert {name: value for name, value in found.items() if name != "kind"} == compute


def test_several_where_one_is_published_are_the_extension() -> None:
    found = as_request(COMPUTE.format("<replicas>1</replicas>") + COMPUTE.format("<replicas>2</replicas>"))
    assert [found["compute"]["replicas"], found["further_compute"][0]["replicas"]] == [1, 2]


def test_the_kind_may_be_an_element_and_names_may_have_a_namespace() -> None:
    body = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
    <a:anything xmlns:a="urn:a"><a:kind> uri:enum-value-update </a:kind>
    <a:path>caf\xe9</a:path><a:value>x</a:value></a:anything>"""
    update: AbstractUpdate = read(Update, XML, body)
    assert update.model_dump() == {"kind": "uri:enum-value-update", "path": "café", "value": "x"}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (COMPUTE.format("<cores><min>many</min></cores>"), "compute.cores.min"),
        (COMPUTE.format("<cores>4 or 5</cores>"), "compute.cores"),
        ('<data kind="simple-data-resource"/><data><location>x</location></data>', "data[1].kind"),
        ('<executable kind="jupyter-notebook"><location>a</location><location>b</location></executable>', "executable.location"),
        ('<executable kind="docker-container"><privileged>perhaps</privileged></executable>', "executable.privileged"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(text: str, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        as_request(text)
    assert [fault.path for fault in caught.value.faults] == [path]


def test_what_xml_cannot_carry_is_replaced() -> None:
    answer = OfferSetResponse.model_validate({"description": "a\0b\x1f\ufffe\ud800c", "kind": "x"})
    assert read(OfferSetResponse, XML, XML.encode(answer)).description == "a\ufffdb\ufffd\ufffd\ufffdc"
    assert XML.decode(XML.encode({"a\0": "\0"})) == {"a\ufffd": "\ufffd"}


LAUGHS = "".join('<!ENTITY l{} "{}">'.format(n, f"&l{n - 1};" * 10) for n in range(1, 10))
MANY = " ".join(f"b{n}=''" for n in range(250_000))
DANGERS = {
    "laughs": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>',
    "external": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "external type": '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><a/>',
    "parameter": '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><a/>',
    "quadratic": f'<!DOCTYPE a [<!ENTITY x "{"x" * 50_000}">]><a>{"&x;" * 50_000}</a>',
    "a type": "<!DOCTYPE a><a/>",
    "deep": "<a>" * 300_000,
    "deep, closed": "<a>" * 100_000 + "</a>" * 100_000,
    "wide": "<a>" + "<b/>" * 250_000 + "</a>",
    "attributes": f"<a {MANY}/>",
    "an unknown entity": "<a>&nbsp;</a>",
    "an encoding": '<?xml version="1.0" encoding="klingon"?><a/>',
    "a wide encoding": '<?xml version="1.0" encoding="shift_jis"?><a/>',
    "a surrogate": "<a>&#xD800;</a>",
    "a null": "<a>&#0;</a>",
    "unbound": "<x:a/>",
    "number": '<a><b type="number">many</b></a>',
    "boolean": '<a><b type="boolean">perhaps</b></a>',
}


@pytest.mark.parametrize("danger", DANGERS)
def test_dangers_are_refused(danger: str) -> None:
    with pytest.raises(Unreadable) as caught:
        XML.decode(DANGERS[danger].encode())
    assert len(caught.value.detail) < 400


def test_where_it_is_not_well_formed() -> None:
    with pytest.raises(Unreadable, match="line 3, column"):
        XML.decode(b"<a>\n<b>\n</a>")


def refused_or_read(body: bytes) -> None:
    try:
        document = read(ExecutionRequest, XML, body)
    except (Unreadable, Invalid):
        return
    JSON.encode(document)


@given(
    st.binary(max_size=100)
    | st.text(characters, max_size=50).map(str.encode)
    | st.text("<>/&;!?[]-\"'= ab:#x1", max_size=60).map(str.encode)
)
@example(b"")
@example("<a/>".encode("utf-16"))
@example(b"\xff\xfe<")
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    refused_or_read(body)


@slow
@given(
    st.lists(st.tuples(st.integers(0, len(REQUEST) - 1), st.integers(0, 40), st.binary(max_size=8)), min_size=1, max_size=4),
    st.sampled_from([b"<i/>", b"<entry name='i'/>", b"<kind/>", b" type='array'", b" type='null'", b"</meta>", b"9" * 5000, b""]),
)
def test_a_damaged_request_is_read_or_refused(damages: list[tuple[int, int, bytes]], piece: bytes) -> None:
    body = REQUEST
    for place, length, new in damages:
        body = body[:place] + (piece or new) + body[place + length :]
    refused_or_read(body)


@slow
@given(st.data())
def test_elements_in_places_that_are_not_theirs_are_read_or_refused(data: st.DataObject) -> None:
    parts = [part for part in REQUEST.replace(b">", b">\0").replace(b"<", b"\0<").split(b"\0") if part]
    order = data.draw(st.lists(st.sampled_from(parts), max_size=30))
    refused_or_read(b"<a>" + b"".join(_balanced(order)) + b"</a>")


def _balanced(parts: list[bytes]) -> list[bytes]:
    """With every element that is opened closed, and none that is not."""
    found: list[bytes] = []
    waiting: list[bytes] = []
    for part in parts:
        if part.startswith((b"</", b"<?")):
            continue
        found.append(part)
        if part.startswith(b"<") and not part.endswith(b"/>"):
            waiting.append(b"</" + part.strip(b"<>").split()[0] + b">")
            if len(waiting) > 3:
                found.append(waiting.pop())
    return found + waiting[::-1]
