"""What can be asked for beyond cores and memory, and how the offers are shown."""

import re
from collections.abc import Iterable
from typing import Any

import pytest

from execbroker.client import Client
from processsite import Site

NOTEBOOK = ("--notebook", "https://example.org/a.ipynb")
WEEK = "2030-01-01T00:00Z/P7D"


def give_back(pool: Site, uuids: Iterable[str]) -> None:
    with Client(folder=pool.data) as client:
        for uuid in uuids:
            client.reject(uuid)


def ask(pool: Site, *words: str, **how: str) -> Any:
    """Ask, give the offers back at once, and return the answer."""
    answer = pool("ask", *NOTEBOOK, *words, "--json", **how).document
    give_back(pool, [offer["meta"]["uuid"] for offer in answer["offers"]])
    return answer


def table(pool: Site, *words: str, columns: int = 200) -> tuple[list[str], list[str]]:
    """The header of the offers, and the lines below it."""
    done = pool("ask", *NOTEBOOK, *words, COLUMNS=str(columns))
    give_back(pool, set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", done.out)))
    header, *lines = done.out.splitlines()
    return re.split(r"\s{2,}", header.strip()), lines


def test_accelerators_are_asked_for_by_number_kind_and_memory(pool: Site) -> None:
    options = "--gpus", "2-2", "--gpu-kind", "a100", "--gpu-memory", "40"
    [compute, *_] = [offer["compute"] for offer in ask(pool, *options, "--start", WEEK)["offers"]]
    assert compute["accelerators"] == [{"kind": "a100", "count": {"min": 2, "max": 2}, "memory": {"min": 40}}]
    assert ask(pool, "--gpu-kind", "h100")["result"] == "NO"
    assert ask(pool, "--gpus", "1", "--gpu-memory", "81")["result"] == "NO"


def test_several_nodes_and_licences(pool: Site) -> None:
    [offer, *_] = ask(pool, "--nodes", "3", "--licence", "idl=2", "--cores", "2-2", "--start", WEEK)["offers"]
    assert (offer["compute"]["replicas"], offer["compute"]["licences"]) == (3, [{"name": "idl", "count": 2}])
    assert offer["costs"][0]["max"] == 1.5  # 6 cores for half an hour
    assert ask(pool, "--licence", "idl=3")["result"] == "NO"


def test_a_flexible_offer_says_by_when(pool: Site) -> None:
    header, lines = table(pool, "--flexible", "--start", WEEK, "--on", "sizes")
    assert header[:2] == ["#", "start (UTC)"]
    assert "by Tue 01 Jan 2030 00:30:00" in lines[1]


def test_an_offer_says_what_it_is_best_in_and_what_it_costs(pool: Site) -> None:
    words = ("--best", "largest", "--best", "cheapest", "--on", "pool", "--cores", "4", "--start", WEEK)
    header, lines = table(pool, *words)
    assert header == ["#", "objective", "start (UTC)", "for", "cores", "memory", "cost", "carbon", "offer"]
    assert re.match(r"1 +largest .* 8 +4 GiB +2.00 EUR +0.40 kg CO2e ", lines[0])
    assert re.match(r"2 +cheapest .* 4 +2 GiB +1.00 EUR +0.20 kg CO2e ", lines[1])


def test_columns_that_say_nothing_are_left_out(pool: Site) -> None:
    header, _ = table(pool, "--on", "sizes", "--start", WEEK)
    assert header == ["#", "start (UTC)", "for", "cores", "memory", "flavour", "offer"]
    header, lines = table(pool, "--gpus", "1-1", "--nodes", "1", "--storage", "out=1", "--start", WEEK)
    assert header == ["#", "start (UTC)", "for", "cores", "memory", "gpus", "storage", "cost", "carbon", "offer"]
    assert " 1 a100 " in lines[0]
    header, lines = table(pool, "--nodes", "2", "--on", "pool", "--start", WEEK)
    assert "nodes" in header


def test_at_80_columns_what_does_not_fit_stands_below_and_nothing_is_lost(pool: Site) -> None:
    words = ("--gpus", "1-1", "--storage", "out=1", "--best", "earliest", "--flexible", "--start", WEEK)
    wide, lines = table(pool, *words)
    narrow, folded = table(pool, *words, columns=80)
    assert all(len(line) <= 80 for line in folded if "execbroker accept" not in line)
    assert " ".join(folded[1:3]).split()[:-1] == lines[0].split()[:-1]  # but for the uuid
    assert [*narrow, *folded[0].split()] == wide[:-1]


def test_platforms_are_chosen_by_name(pool: Site) -> None:
    assert all("flavour" in offer["compute"] for offer in ask(pool, "--on", "sizes", "--start", WEEK)["offers"])
    both = ask(pool, "--on", "sizes", "--on", "pool", "--gpus", "1", "--start", WEEK)
    assert both["result"] == "YES"
    assert ask(pool, "--on", "nowhere")["result"] == "NO"


def test_limits_are_kept(pool: Site) -> None:
    words = ("--on", "pool", "--cores", "4-4", "--duration", "1h", "--start", WEEK)
    assert ask(pool, *words, "--max-cost", "2", "--max-cost", "carbon=0.4")["result"] == "YES"
    for limit in ("1.99", "carbon=0.39"):
        [reason, *_] = ask(pool, *words, "--max-cost", limit)["meta"]["messages"]
        assert reason["values"]["path"] == "costs[0].max"
    assert ask(pool, *words, "--throughput", "300")["result"] == "YES"
    assert ask(pool, *words, "--throughput", "301")["result"] == "NO"
    assert ask(pool, "--on", "pool", "--performance", "9", "--start", WEEK)["offers"][0]["metrics"][0]["max"] >= 9


def test_show_says_all_of_it(pool: Site) -> None:
    words = ("--gpus", "1-1", "--licence", "idl", "--best", "cheapest", "--flexible", "--start", WEEK)
    _, later, *_ = [offer["meta"]["uuid"] for offer in pool("ask", *NOTEBOOK, *words, "--json").document["offers"]]
    shown = pool("show", later, TZ="UTC").out
    assert "by Tue 01 Jan 2030 00:30:00" in shown
    assert "2 cores, 2 GiB, 1 a100, licences: 1 idl" in shown
    assert "1.50 EUR, 0.10 kg CO2e at most" in shown
    assert "objective   cheapest" in shown


def test_platforms_are_shown_with_sizes_pools_and_prices(pool: Site) -> None:
    lines = [line.split() for line in pool("platforms").out.splitlines()]
    assert ["platform", "nodes", "cores", "memory", "storage", "gpus", "node"] in lines
    assert ["pool", "3", "8", "32", "GiB", "100", "GiB", "pool-1", "to", "pool-3"] in lines
    assert ["pool", "1", "16", "64", "GiB", "100", "GiB", "4", "a100", "pool-4"] in lines
    said = pool("platforms").out
    assert "sizes: sizes are small (2 cores, 8 GiB), large (12 cores, 48 GiB)" in said
    assert "pool: all nodes share 2 idl licences" in said
    assert "pool: 0.5 EUR per core-hour, 2 EUR per a100-hour" in said
    assert "pool: 0.1 kg CO2e per core-hour" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--gpus", "two"), "--gpus two"),
        (("--licence", "idl=many"), "--licence idl=many"),
        (("--max-cost", "cheap"), "--max-cost cheap"),
        (("--max-cost", "-1"), "--max-cost -1"),
        (("--max-cost", "inf"), "--max-cost inf"),
        (("--max-cost", "gold=1"), "energy=3"),
    ],
)
def test_wrong_options_say_what_is_right(pool: Site, options: tuple[str, ...], says: str) -> None:
    done = pool("ask", *NOTEBOOK, *options)
    assert (done.code, done.out) == (2, "")
    assert says in done.err


def test_what_a_file_says_is_not_said_twice(pool: Site) -> None:
    done = pool("ask", "-", "--gpu-kind", "a100", "--max-cost", "3", stdin="{}")
    assert done.code == 2
    assert "--gpu-kind, --max-cost" in done.err
