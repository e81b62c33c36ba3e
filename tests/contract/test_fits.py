"""Documents made from the published schema fit our models, and what our models write fits the published schema."""

from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from pydantic import TypeAdapter

from execbroker.model import options, sessions
from judge import OF_ANY_KIND, Judge
from published import OUR_NAMES, ROOT, Place, Published, folder

ROOTS = ("ExecutionRequest", "OfferSetResponse", "AbstractExecutionSession", "AbstractUpdate")
TEXTS = st.text(max_size=8)
ZONES = st.sampled_from(["", "Z", "+01:00", "-11:30"])
DATES = st.dates(date(1900, 1, 1), date(2200, 1, 1)).map(str)
TIMES = st.tuples(
    st.just("T"), st.times().map(lambda time: time.isoformat("minutes")), st.sampled_from(["", ":59", ":00.25"]), ZONES
)
MOMENTS = st.builds("{}{}".format, DATES, st.just("") | TIMES.map("".join))
LENGTHS = st.from_regex(
    r"P(?=[0-9]|T[0-9])([0-9]+Y)?([0-9]+M)?([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+(\.[0-9]+)?S)?)?", fullmatch=True
)
STRINGS = {
    "uuid": st.uuids().map(str),
    "uri": st.sampled_from(["http://example.org/a?b#c", "urn:ivoa:calycopis:cost:energy", "ivo://example/1"]),
    "date-time": st.builds("{}T10:00:00{}".format, DATES, st.sampled_from(["Z", ".123456789Z", "+05:00"])),
    "ISO8601Instant": st.builds("{}T23:59:59{}".format, DATES, st.sampled_from(["Z", ".5", "+01:00"])),
    "ISO8601Duration": LENGTHS | LENGTHS.map("-{}".format) | st.sampled_from(["P3W", "P1DT", "PT1.5S"]),
    "ISO8601Interval": st.builds("{}/{}".format, MOMENTS, MOMENTS | LENGTHS) | st.builds("{}/{}".format, LENGTHS, MOMENTS),
}
SCALARS = {
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "number": st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-(2**31), 2**31),
}


@cache
def schema() -> Published:
    return Published.load(folder())


def made(place: Place) -> st.SearchStrategy[Any]:
    """Whatever fits the schema at `place`, its kind a known one."""
    flat = schema().flat(place)
    if flat.kinds:
        return st.one_of([an_object(sub, uri) for uri, sub in flat.kinds.items()])
    if flat.properties:
        return an_object(place)
    if "enum" in flat.facts:
        return st.sampled_from(flat.facts["enum"])
    if "items" in flat.facts:
        return st.lists(made(schema().child(place, flat.facts["items"])), max_size=2)
    if "additionalProperties" in flat.facts:
        return st.dictionaries(TEXTS, TEXTS, max_size=2)
    if flat.facts["type"] == "string":
        return STRINGS.get(flat.name or flat.facts.get("format", ""), TEXTS)
    return SCALARS[flat.facts["type"]]


OBJECTS: dict[tuple[str | None, str | None], st.SearchStrategy[Any]] = {}


def an_object(place: Place, kind: str | None = None) -> st.SearchStrategy[Any]:
    """An object with what is required and some of the rest, and now and then a field that nobody knows."""
    key = (place.name, kind)
    if key not in OBJECTS:
        flat = schema().flat(place)
        known = {"kind": st.just(kind)} if kind else {}
        fields = known | {name: made(part) for name, part in flat.properties.items() if name not in known}
        needed = flat.required | known.keys()
        some = st.lists(st.sampled_from(sorted({"colour", *fields} - needed)), max_size=4)
        fields["colour"] = TEXTS
        OBJECTS[key] = some.flatmap(
            lambda names: st.fixed_dictionaries({name: fields[name] for name in sorted({*names, *needed})})
        )
    return OBJECTS[key]


@cache
def validator(place_name: str) -> Draft202012Validator:
    place, judge = schema().roots()[place_name], judge_of(folder())
    suffix = OF_ANY_KIND if f"{place_name}{OF_ANY_KIND}" in judge.documents[place.home]["components"]["schemas"] else ""
    return judge.validator(f"#/components/schemas/{place_name}{suffix}", place.home)


@cache
def judge_of(root: Path) -> Judge:
    return Judge(Published.load(root), ROOT)


def ours(place_name: str) -> TypeAdapter[Any]:
    name = OUR_NAMES.get(place_name, place_name)
    return TypeAdapter(getattr(sessions, name, None) or getattr(options, name))


def missing(before: Any, after: Any, path: str = "") -> list[str]:
    """The fields of `before` that are not in `after`."""
    if isinstance(before, dict):
        return [
            gone
            for name in before
            for gone in (missing(before[name], after[name], f"{path}.{name}") if name in after else [f"{path}.{name}"])
        ]
    if isinstance(before, list):
        return [gone for index, one in enumerate(before) for gone in missing(one, after[index], f"{path}[{index}]")]
    return []


@pytest.mark.parametrize("root", ROOTS)
@settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking documents of this size takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_what_fits_the_published_schema_is_read_and_written_so_that_it_fits(root: str, data: st.DataObject) -> None:
    document = data.draw(made(schema().roots()[root]))
    validator(root).validate(document)

    model = ours(root).validate_python(document)
    written = ours(root).dump_python(model, mode="json", exclude_none=True)

    validator(root).validate(written)
    assert missing(document, written) == []
    # Times are written to the second, so it is the second writing that changes nothing.
    again = ours(root).validate_python(written)
    assert ours(root).dump_python(again, mode="json", exclude_none=True) == written


@pytest.mark.parametrize("start", ["2088-12-30/1951-01-01", "2026-11-21T10:00Z/P9999Y", "P9999Y/2026-11-21", "2026-11-21/P1D"])
def test_odd_ranges_are_published_too(start: str) -> None:
    document = {"schedule": {"requested": {"start": start}}}
    validator("ExecutionRequest").validate(document)
    written = sessions.ExecutionRequest.model_validate(document).model_dump(mode="json", exclude_none=True)
    validator("ExecutionRequest").validate(written)


@pytest.mark.parametrize(
    "wrong",
    [
        {"executable": {}},
        {"executable": {"kind": "urn:no-such-kind"}},
        {
            "compute": {
                "kind": "https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/compute/simple-compute-resource.yaml",
                "cores": {"min": "4"},
            }
        },
        {"schedule": {"requested": {"start": "tomorrow"}}},
        {"storage": {}},
    ],
)
def test_the_judge_is_strict(wrong: dict[str, Any]) -> None:
    assert not validator("ExecutionRequest").is_valid(wrong)
