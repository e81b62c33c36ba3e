"""Bodies in other characters than those of UTF-8, and what replies say of theirs."""

import asyncio
import codecs
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from brokersite import NOTEBOOK, Site

NAME = "Ångström"
TEXT = json.dumps({"executable": {**NOTEBOOK, "meta": {"name": NAME}}}, ensure_ascii=False)
PLAIN = json.dumps({"executable": {**NOTEBOOK, "meta": {"name": NAME}}})
READ = {
    "utf-8": ("application/json; charset=utf-8", TEXT.encode()),
    "utf-8 with a mark": ("application/json", codecs.BOM_UTF8 + TEXT.encode()),
    "utf-8 with a mark and a name": ('application/json;charset="UTF-8"', codecs.BOM_UTF8 + TEXT.encode()),
    "utf-16 by its mark": ("application/json", TEXT.encode("utf-16")),
    "big-endian by its mark": ("application/json", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be")),
    "utf-16 by its name and mark": ("application/json; charset=utf-16", TEXT.encode("utf-16")),
    "utf-16 by its name": ("application/json; charset=utf-16", TEXT.encode("utf-16-be")),
    "utf-16le": ("application/json; charset=UTF-16LE", TEXT.encode("utf-16-le")),
    "us-ascii": ("application/json; charset=us-ascii", PLAIN.encode()),
    "latin-1": ("application/json; x=y; Charset = ISO-8859-1", TEXT.encode("latin-1")),
    "yaml in latin-1": ("application/yaml; charset=latin1", TEXT.encode("latin-1")),
    "yaml by its mark": ("application/yaml", TEXT.encode("utf-16")),
}
REFUSED = {
    "of another world": ("application/json; charset=ebcdic-cp-us", TEXT.encode(), 415),
    "not of text": ("application/json; charset=rot13", PLAIN.encode(), 415),
    "a trick": ('application/json; charset="../x"', PLAIN.encode(), 415),
    "not what it says": ("application/json; charset=us-ascii", TEXT.encode(), 400),
    "half a character": ("application/json; charset=utf-16", TEXT.encode("utf-16") + b"\0", 400),
    "half a pair": ("application/json; charset=utf-16le", b"\x00\xd8", 400),
}


def post(site: Site, content_type: str, content: bytes) -> httpx.Response:
    async def work() -> httpx.Response:
        async with site:
            return await site.client.post("/requests", content=content, headers={"content-type": content_type})

    return asyncio.run(work())


@pytest.mark.parametrize("name", READ)
def test_it_is_read(site: Site, name: str) -> None:
    answer = post(site, *READ[name])
    assert answer.status_code == 200, answer.text
    assert answer.json()["offers"][0]["executable"]["meta"]["name"] == NAME


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(site: Site, name: str) -> None:
    content_type, content, status = REFUSED[name]
    answer = post(site, content_type, content)
    assert answer.status_code == status, answer.text
    if status == 415:
        assert "utf-8, utf-16, utf-16le, utf-16be, us-ascii, iso-8859-1" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "accept", "found"),
    [
        ("/platforms", "application/json", "application/json"),
        ("/platforms", "application/yaml", "application/yaml"),
        ("/nothing", "application/json", "application/problem+json"),
        ("/metrics", "text/plain", "text/plain; version=1.0.0; charset=utf-8"),
    ],
)
def test_replies_name_theirs_where_that_is_the_custom(site: Site, path: str, accept: str, found: str) -> None:
    assert get(site, path, {"accept": accept}).headers["content-type"].replace("0.0.4", "1.0.0") == found


def get(site: Site, path: str, headers: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        async with site:
            return await site.client.get(path, headers=headers)

    return asyncio.run(work())


JSON, YAML = "application/json", "application/yaml"
ACCEPTS: dict[str, str | None] = {
    "": JSON,
    "*/*": JSON,
    "application/yaml": YAML,
    "application/json;q=0.5, application/yaml": YAML,
    "application/json;q=0, */*": YAML,
    "application/json;q=0, application/*;q=0.1": YAML,
    "application/yaml;q=nan, application/json;q=0.1": JSON,
    "application/yaml;q=7, application/json;q=0.1": JSON,
    "application/json;q=0": None,
    "*/*;q=0": None,
    "application/json;q=0.0, application/yaml;q=0.000": None,
    "image/png": None,
}


@pytest.mark.parametrize("accept", ACCEPTS)
def test_what_is_wanted_least_is_not_given(tmp_path: Path, accept: str) -> None:
    answer = get(Site(tmp_path), "/platforms", {"accept": accept})
    if (wanted := ACCEPTS[accept]) is None:
        assert answer.status_code == 406
        assert JSON in answer.json()["detail"]
    else:
        assert (answer.status_code, answer.headers["content-type"]) == (200, wanted)
        assert yaml.safe_load(answer.text)["platforms"][0]["name"] == "site"


def test_a_wish_may_come_in_several_lines_and_characters_are_nobody_s_choice(site: Site) -> None:
    headers = [("accept", "image/png"), ("accept", YAML), ("accept-charset", "utf-7, *;q=0")]
    answer = get(site, "/platforms", headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, YAML)
    assert "Accept" in answer.headers["vary"].split(", ")
