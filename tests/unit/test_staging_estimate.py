import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from staging_site import DATA, Page, Site, running, stager

from execbroker.model.waist import Source
from execbroker.staging.base import Estimate
from execbroker.staging.rates import Rates


@pytest.fixture
def site() -> Iterator[Site]:
    with running(Site()) as site:
        yield site


def estimate(*sources: tuple[str, Source], rates: Rates | None = None, times: int = 1, **settings: object) -> Estimate:
    async def main() -> Estimate:
        async with stager(rates=rates, **settings) as made:
            for _ in range(times - 1):
                await made.estimate(sources)
            return await made.estimate(sources)

    return asyncio.run(main())


def data(url: str, **declared: object) -> tuple[str, Source]:
    return "data[0].location", Source(url, "data", **declared)  # type: ignore[arg-type]


def test_no_sources_take_no_time_and_ask_nobody() -> None:
    async def main() -> Estimate:
        async with stager() as made:
            answer = made.estimate(())
            with pytest.raises(StopIteration) as stopped:
                answer.send(None)
            return stopped.value.value

    assert asyncio.run(main()) == Estimate(0)


def test_time_is_what_size_and_rate_say(site: Site) -> None:
    site.pages["/data"] = Page()
    known = Rates([(f"answer {site.url}", 0.7, 1), (site.url, 1, 1000)])
    assert estimate(data(f"{site.url}/data"), rates=known) == Estimate(0.7 + len(DATA) / 1000, size=len(DATA))
    assert estimate(data(f"{site.url}/data")) == Estimate(0.2 + len(DATA) / 10e6, size=len(DATA))
    assert estimate(*[data(f"{site.url}/data")] * 3, rates=known).seconds == pytest.approx(3 * (0.7 + len(DATA) / 1000))


def test_an_unknown_size_is_guessed_with_a_warning(site: Site) -> None:
    site.pages["/data"] = Page(chunked=True)
    answer = estimate(data(f"{site.url}/data"))
    assert answer.seconds == 5.2
    [warning] = answer.warnings
    assert (warning.level, warning.values and warning.values["path"]) == ("WARN", "data[0].location")
    assert "size" in str(warning.message)
    assert estimate(data(f"{site.url}/data", size=1_000_000)) == Estimate(0.2 + 1_000_000 / 10e6, size=1_000_000)


def test_what_may_pass_is_a_warning(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        site.pages["/broken"] = Page(methods=("GET",), answers=[(500, {})])
        for url, why in ((closed, "no connection"), (f"{site.url}/broken", "500 Internal")):
            answer = estimate(data(url))
            assert answer.reasons == ()
            assert [item.level for item in answer.warnings] == ["WARN"]
            assert why in str(answer.warnings[0].message)
            assert answer.seconds == 5.2


@pytest.mark.parametrize(
    ("page", "declared", "why"),
    [
        (None, {}, "404 Not Found"),
        (Page(answers=[(401, {})], methods=("GET",)), {}, "credentials"),
        (Page(answers=[(403, {})], methods=("GET",)), {}, "credentials"),
        (Page(), {"size": 7}, f"was said to have 7 bytes; it has {len(DATA)}"),
        (Page(DATA * 2), {}, f"has {len(DATA) * 2} bytes; files of up to 4000000 bytes can be fetched"),
        (Page(), {"size": 5_000_000}, "has 5000000 bytes; files of up to 4000000"),
        (Page(), {"checksum": "sha256:abc"}, "should have 64 hexadecimal digits"),
        (Page(), {"checksum": "crc:abc"}, "sha512, sha384, sha256, sha224, sha1, md5, adler32"),
    ],
)
def test_what_is_proven_wrong_is_a_reason(site: Site, page: Page | None, declared: dict[str, object], why: str) -> None:
    site.pages.update({"/data": page} if page else {})
    answer = estimate(data(f"{site.url}/data", **declared), max_size=4_000_000)
    [reason] = answer.reasons
    assert (reason.level, reason.values and reason.values["path"]) == ("ERROR", "data[0].location")
    assert why in str(reason.message)
    assert answer.seconds == 0


def test_what_is_forbidden_is_not_looked_for(site: Site) -> None:
    with running(Site("127.0.0.2")) as private:
        urls = [
            "ftp://example.org/x",
            "no url",
            "http://[bad/",
            f"{private.url}/x",
            "http://me:pw@127.0.0.1/",
            "file:///etc/passwd",
        ]
        answer = estimate(*[(f"data[{at}]", Source(url, "data")) for at, url in enumerate(urls)])
        assert [reason.values and reason.values["path"] for reason in answer.reasons] == [
            f"data[{at}]" for at in range(len(urls))
        ]
        assert "only URLs of the schemes file, http, https can" in str(answer.reasons[0].message)
        assert not any("pw" in reason.model_dump_json() for reason in answer.reasons)
        assert private.asked == []


@pytest.mark.parametrize("name", ["../x", "/x", "", "a/../../x", "a\0b"])
def test_a_file_name_that_leads_out_is_a_reason(site: Site, name: str) -> None:
    site.pages["/data"] = Page()
    [reason] = estimate(("data[0]", Source(f"{site.url}/data", name))).reasons
    assert "is not a path below the session's folder" in str(reason.message)


def test_answers_are_remembered_good_or_bad(site: Site) -> None:
    site.pages["/data"] = Page()
    estimate(data(f"{site.url}/data"), data(f"{site.url}/none"), times=3)
    assert len(site.asked) == 3  # HEAD of each, and GET of what HEAD did not find


def test_two_seconds_are_for_all_and_the_slow_are_remembered() -> None:
    """A server that accepts and never answers."""

    async def main() -> tuple[list[float], Estimate]:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            sources = [(f"data[{at}]", Source(f"{url}/{at}", "data")) for at in range(40)]
            async with stager() as made:
                times = [time.monotonic()]
                for _ in range(2):
                    answer = await made.estimate(sources)
                    times.append(time.monotonic())
                return [after - before for before, after in pairwise(times)], answer

    (first, second), answer = asyncio.run(main())
    assert 1.9 < first < 2.3
    assert second < 0.2
    assert len(answer.warnings) == 40
    assert "no answer within 2 s" in str(answer.warnings[0].message)


def test_probes_are_made_in_parallel(site: Site) -> None:
    """No answer comes before all are asked for."""
    together = threading.Barrier(8)
    site.pages.update({f"/{at}": Page(together=together) for at in range(8)})
    answer = estimate(*[(f"data[{at}]", Source(f"{site.url}/{at}", "data")) for at in range(8)])
    assert (answer.warnings, answer.reasons) == ((), ())
    assert len(site.asked) == 8


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.001, 1e4), st.floats(1, 1e12)), min_size=1, max_size=60))
def test_rates_are_medians_of_the_last_twenty(notes: list[tuple[float, float]]) -> None:
    kept: list[tuple[str, float, float]] = []
    rates = Rates(on_note=lambda *note: kept.append(note))
    for seconds, amount in notes:
        rates.note("x", seconds, amount)
    last = notes[-20:]
    speeds, times = sorted(amount / seconds for seconds, amount in last), sorted(seconds for seconds, _ in last)
    low, high = (len(last) - 1) // 2, len(last) // 2
    assert rates.rate("x") == pytest.approx((speeds[low] + speeds[high]) / 2)
    assert rates.seconds("x") == pytest.approx((times[low] + times[high]) / 2)
    again = Rates(kept)
    assert (again.rate("x"), again.seconds("x")) == (rates.rate("x"), rates.seconds("x"))


def test_of_what_was_never_noted_nothing_is_known() -> None:
    assert (Rates().rate("x"), Rates().seconds("x")) == (None, None)
