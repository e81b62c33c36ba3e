"""Who may use a platform, for what, and how much at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from brokersite import asked, names, platform
from execbroker.errors import StartupError
from peoplesite import PeopleSite, Person

BIG = [{"count": 4, "cores": 16, "memory": 64, "storage": 1000, "accelerators": [{"kind": "a100", "count": 4}]}]
IMAGE = {"kind": "docker-container", "image": {"locations": ["ghcr.io/org/x:1"]}}


def tell(folder: Path, story: Callable[[PeopleSite], Awaitable[None]], *platforms: dict[str, Any], **more: Any) -> None:
    async def told() -> None:
        async with PeopleSite(folder, platforms=list(platforms), **more) as site:
            await story(site)
            assert await site.faults() == []

    asyncio.run(told())


def here(*policies: dict[str, Any], name: str = "site") -> dict[str, Any]:
    return platform(name, nodes=BIG, policies=list(policies))


async def platforms_of(person: Person) -> list[str]:
    found = (await person.call("GET", "/platforms")).json()["platforms"]
    assert [one["name"] for one in found] == [one["name"] for one in (await person.me())["platforms"]]
    return [one["name"] for one in found]


def test_the_first_rule_that_is_for_somebody_applies(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        staff, student, both = site.person("s", "staff"), site.person("t", "student-1"), site.person("b", "student-1", "staff")
        for person, most in ((staff, 8), (student, 2), (both, 8)):
            limits = (await person.me())["platforms"][0]["limits"]
            assert limits == {"cores": most} == (await person.call("GET", "/platforms")).json()["platforms"][0]["limits"]
            await person.offers(**asked(most))
            assert (await person.refused(**asked(most + 1)))["over-limit"]["over"] == "1"
        nobody = site.person("n", "guests")
        assert await platforms_of(nobody) == []
        reason = (await nobody.refused(**asked(1)))["not-for-you"]
        assert (reason["path"], reason["groups"]) == ("platforms", "staff, student-*")
        failed = await nobody.call("POST", "/direct", json={"executable": IMAGE})
        assert (failed.status_code, names(failed.json())) == (400, ["not-for-you"])

    tell(tmp_path, story, here({"groups": ["staff"], "limits": {"cores": 8}}, {"groups": ["student-*"], "limits": {"cores": 2}}))


def test_platforms_that_are_for_somebody_are_used_and_no_others_named(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al", "g")
        assert await platforms_of(al) == ["mine", "all"]
        assert {offer["platform"] for offer in await al.offers(**asked(1))} == {"mine"}
        reasons = await al.refused(**asked(1), platforms="theirs")
        assert reasons["counter-offer"]["value"] == "mine"
        too_large = await al.ask(**asked(64))
        assert {item["values"]["platform"] for item in too_large["meta"]["messages"] if item["level"] == "ERROR"} == {
            "mine", "all", "theirs"
        }  # fmt: skip
        assert [item["kind"] for item in too_large["meta"]["messages"] if item["values"].get("platform") == "theirs"] == [
            "urn:execbroker:message:not-for-you"
        ]

    mine, theirs = here({"groups": ["g"]}, name="mine"), here({"groups": ["h"]}, name="theirs")
    tell(tmp_path, story, mine, theirs, here(name="all"))


def test_what_is_not_allowed_on_one_platform_runs_on_another(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al")
        assert {offer["platform"] for offer in await al.offers(executable=IMAGE)} == {"open"}
        denied = (await al.refused(executable=IMAGE, platforms="closed"))["not-allowed"]
        assert (denied["path"], denied["allowed"]) == ("executable.image.locations[0]", "docker.io/*")
        assert (await al.offers(executable={**IMAGE, "image": {"locations": ["python"]}}))[0]["platform"] == "closed"

    tell(tmp_path, story, here({"allow": {"images": ["docker.io/*"]}}, name="closed"), here(name="open"))


def test_all_reasons_come_at_once(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        data = [{"kind": "simple-data-resource", "location": f"https://{host}/x"} for host in ("evil.org", "h.org", "bad.org")]
        answer = await site.person("al").ask(executable=IMAGE, data=data)
        assert answer["result"] == "NO"
        paths = [item["values"]["path"] for item in answer["meta"]["messages"] if item["level"] == "ERROR"]
        assert paths == ["executable.image.locations[0]", "data[0].location", "data[2].location"]

    tell(tmp_path, story, here({"deny": {"images": ["*"]}, "allow": {"hosts": ["h.org"]}}))


LIMITS = {"cores": 4, "memory": 8, "storage": 10, "accelerators": 2, "nodes": 2, "duration": "PT2H"}


def compute(cores: int = 1, memory: int = 1, gpus: int = 0, **more: Any) -> dict[str, Any]:
    gpu = {"accelerators": [{"kind": "a100", "count": {"min": gpus}}]} if gpus else {}
    return {"compute": {"kind": "simple-compute-resource", "cores": {"min": cores}, "memory": {"min": memory}, **gpu, **more}}


def stored(size: int, most: int | None = None) -> dict[str, Any]:
    return {"storage": [{"kind": "simple-storage-resource", "size": {"min": size, "max": most}}]}


@pytest.mark.parametrize(
    ("request_", "path", "over", "nearest"),
    [
        (compute(6), "compute.cores.min", 2, ("compute.cores.min", "4")),
        (compute(1, 9), "compute.memory.min", 1, ("compute.memory.min", "8")),
        (compute(3, replicas=2), "compute.cores.min", 2, ("compute.replicas", "1")),
        (compute(1, gpus=3), "compute.accelerators", 1, ("compute.accelerators[0].count.min", "2")),
        (compute(1, replicas=3), "compute", 1, ("compute.replicas", "2")),
        (stored(12), "storage", 2, ("storage[0].size.min", "10")),
        (asked(1, 1, "PT3H"), "schedule.requested.duration", 3600, ("schedule.requested.duration", "PT2H")),
    ],
)
def test_a_minimum_above_a_limit_is_no(
    tmp_path: Path, request_: dict[str, Any], path: str, over: int, nearest: tuple[str, str]
) -> None:
    async def story(site: PeopleSite) -> None:
        reasons = await site.person("al").refused(**request_)
        assert set(reasons) == {"over-limit", "counter-offer"}
        assert (reasons["over-limit"]["path"], reasons["over-limit"]["over"]) == (path, str(over))
        assert (reasons["counter-offer"]["path"], reasons["counter-offer"]["value"]) == nearest

    tell(tmp_path, story, here({"limits": LIMITS}))


def test_a_maximum_above_a_limit_is_capped_and_said(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        wide = compute(3, 6, 2)
        wide["compute"] |= {"cores": {"min": 3, "max": 6}, "memory": {"min": 6, "max": 20}}
        answer = await site.person("al").ask(**wide, **stored(8, 20), objectives=["earliest", "largest", "longest"])
        assert answer["result"] == "YES"
        capped = [item["values"]["path"] for item in answer["meta"]["messages"] if item["level"] == "WARN"]
        assert capped == ["compute.cores.max", "compute.memory.max", "storage[0].size.max"]
        for offer in answer["offers"]:
            assert (offer["compute"]["cores"]["max"], offer["compute"]["memory"]["max"]) == (4, 8)
            assert (offer["compute"]["accelerators"][0]["count"]["max"], offer["storage"][0]["size"]["max"]) == (2, 10)
        longest = [offer for offer in answer["offers"] if offer["objective"] == "longest"]
        assert [offer["schedule"]["available"]["duration"] for offer in longest] == ["PT2H"]
        assert names(await site.person("al").ask(**compute(1))) == []

    tell(tmp_path, story, here({"limits": LIMITS}), offers={"limit": 3})


def test_the_nodes_of_a_session_share_what_it_may_have(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        found = (await site.person("al").offers(**compute(1, 3, replicas=2)))[0]["compute"]
        assert (found["cores"]["max"], found["memory"]["max"]) == (2, 4)

    tell(tmp_path, story, here({"limits": LIMITS}))


def test_a_flavour_that_is_too_large_is_not_given(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        assert (await site.person("al").offers(**compute(2)))[0]["compute"]["flavour"] == "small"
        assert (await site.person("al").refused(**compute(3)))["over-limit"]["asked"] == "8"

    flavours = [{"name": "small", "cores": 2, "memory": 4}, {"name": "large", "cores": 8, "memory": 16}]
    tell(tmp_path, story, here({"limits": {"cores": 4}}) | {"flavours": flavours})


def test_nobody_is_under_rules_that_are_not_there(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        me = await site.person("al").me()
        assert me == {
            "name": "al", "groups": [], "admin": False, "platforms": [{"name": "site", "limits": {}, "quotas": []}]
        }  # fmt: skip

    tell(tmp_path, story, here())


def test_wrong_patterns_stop_the_broker(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        raise AssertionError

    with pytest.raises(StartupError, match=r"The policies of the platform site are wrong: data: 'h.org'"):
        tell(tmp_path, story, here({"allow": {"data": ["h.org"]}}))


@pytest.mark.parametrize("quota", [{"monthly": float("inf")}, {"held": float("inf")}, {"monthly": float("nan")}])
def test_what_is_no_number_stops_the_broker(tmp_path: Path, quota: dict[str, float]) -> None:
    async def story(site: PeopleSite) -> None:
        raise AssertionError

    with pytest.raises(ValidationError, match="finite number"):
        tell(tmp_path, story, here({"quotas": {"owner": quota}}))
