"""What owners and groups may have in all is never exceeded, is no less than was set, and is told as it is."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokersite import MORNING, ManualClock, asked, platform, start_of
from peoplesite import PeopleSite, Person, account_of, all_held, month_of

BIG = [{"count": 4, "cores": 16, "memory": 64, "storage": 1000}]
EVENING = "2026-11-30T22:00:00Z"


def tell(
    folder: Path, story: Callable[[PeopleSite], Awaitable[None]], *policies: dict[str, Any], start: str = MORNING, **more: Any
) -> None:
    async def told() -> None:
        here = {"platforms": [platform(nodes=BIG, policies=list(policies))], "offers": {"limit": 1}, **more}
        async with PeopleSite(folder, ManualClock(start), **here) as site:
            await story(site)
            assert await site.faults() == []

    asyncio.run(told())


def schedule(duration: str) -> dict[str, Any]:
    return {"schedule": {"requested": {"duration": duration}}}


def owner(**quota: Any) -> dict[str, Any]:
    return {"quotas": {"owner": quota}}


def group(**quota: Any) -> dict[str, Any]:
    return {"groups": ["g*"], "quotas": {"group": quota}}


def test_what_is_over_a_quota_comes_later_or_not_at_all(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al, bo = site.person("al"), site.person("bo")
        await al.take(**asked(3, 1, "PT1H"))
        now = site.clock.at(0)
        reasons = await al.refused(**asked(2, 1, "PT1H", f"{now}/PT30M"))
        over = reasons["over-quota"]
        assert (over["path"], over["total"], over["over"], over["quota"]) == ("compute.cores.min", "5", "1", "4")
        assert reasons["counter-offer"]["path"] in ("compute.cores.min", "schedule.requested.start")
        later = (await al.offers(**asked(2, 1, "PT1H")))[0]
        assert start_of(later) == site.clock.seconds + 3600
        assert start_of((await al.offers(**asked(1, 1, "PT1H")))[0]) == site.clock.seconds
        assert start_of((await bo.offers(**asked(4, 1, "PT1H")))[0]) == site.clock.seconds

    tell(tmp_path, story, owner(cores=4))


@pytest.mark.parametrize(
    ("quota", "first", "second"),
    [({"cores": 4}, asked(4), asked(1)), ({"memory": 8}, asked(1, 8), asked(1, 1)), ({"sessions": 1}, asked(1), asked(1))],
)
def test_every_quota_at_a_time(tmp_path: Path, quota: dict[str, int], first: Any, second: Any) -> None:
    async def story(site: PeopleSite) -> None:
        al, bo, cy = site.person("al", "g1"), site.person("bo", "g1", "g2"), site.person("cy", "g2")
        start = {"schedule": {"requested": {"duration": "PT10M", "start": f"{site.clock.at(0)}/PT0S"}}}
        offer = (await al.offers(**first | start))[0]
        assert (await bo.refused(**second | start))["over-quota"]["whose"] == "the group g1's"
        await cy.offers(**first | start)
        await al.update(offer, "REJECTED")
        assert (await bo.refused(**second | start))["over-quota"]["whose"] == "the group g2's"

    tell(tmp_path, story, group(**quota))


def test_alternatives_count_once(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al")
        offers = await al.offers(**asked(2, 1, "PT1H"), objectives=["earliest", "largest", "longest"])
        assert len(offers) == 4
        mine = account_of(await all_held(site), "al")
        assert mine.most()[2] == 1
        await al.offers(**asked(2, 1, "PT1H"))
        for offer in offers[1:]:
            assert (await al.update(offer, "REJECTED")).status_code == 200
        await al.accept(offers[0])

    tell(tmp_path, story, owner(cores=4, sessions=2), offers={"limit": 4})


def test_what_is_enlarged_stays_within(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        wide = {"compute": {"kind": "simple-compute-resource", "cores": {"min": 3}, "memory": {"min": 4}}}
        first = (await site.person("al").offers(**wide))[0]["compute"]
        assert (first["cores"]["max"], first["memory"]["max"]) == (5, 7)
        two = {"compute": {**wide["compute"], "cores": {"min": 2}, "memory": {"min": 2}, "replicas": 2}}
        second = (await site.person("bo").offers(**two))[0]["compute"]
        assert (second["cores"]["max"], second["memory"]["max"]) == (2, 3)

    tell(tmp_path, story, owner(cores=5, memory=7))


def test_what_is_enlarged_stays_within_the_month(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        wide = {"compute": {"kind": "simple-compute-resource", "cores": {"min": 2}, "memory": {"min": 4}}}
        first = (await site.person("al").offers(**wide, **schedule("PT1H")))[0]
        assert first["compute"]["cores"]["max"] == 3
        assert (await site.person("al").me())["platforms"][0]["quotas"][0]["left"] == {"monthly": 0.5}

    tell(tmp_path, story, owner(monthly=3.5))


def test_offers_held(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al")
        assert len(await al.offers(**asked(4, 1, "PT1H"))) == 2  # as many as may be held
        over = (await al.refused(**asked(3, 1, "PT1H")))["too-many-offers"]
        assert (over["total"], over["over"], over["quota"]) == ("11", "1", "10")
        last = (await al.offers(**asked(2, 1, "PT1H")))[0]
        await al.accept(last)
        await al.offers(**asked(2, 1, "PT1H"))
        site.clock.advance(301)
        assert len(await al.offers(**asked(10, 1, "PT1H"))) == 1
        direct = await al.call(
            "POST", "/direct", json={"executable": {"kind": "docker-container", "image": {"locations": ["x"]}}}
        )
        assert direct.json()["phase"] == "ACCEPTED"

    tell(tmp_path, story, owner(held=10), offers={"limit": 4})


def test_a_platform_on_which_too_much_is_held_leaves_the_others(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al")
        assert {offer["platform"] for offer in await al.offers(**asked(16, 1, "PT1H"))} == {"other"}
        assert (await al.refused(**asked(16, 1, "PT1H"), platforms="site"))["too-many-offers"]["platform"] == "site"

    sites = [platform(nodes=BIG, policies=[owner(held=10)]), platform("other", nodes=BIG)]
    tell(tmp_path, story, platforms=sites)


def test_a_month_has_so_many_core_hours(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al")
        await al.take(**asked(2, 1, "PT1H"))  # 2 of 6 in November
        over = (await al.refused(**asked(5, 1, "PT1H", f"{site.clock.at(0)}/PT30M")))["over-quota"]
        assert (over["path"], over["month"]) == ("schedule.requested.duration", "2026-11")
        assert (over["total"], over["over"], over["quota"]) == ("7", "1", "6")
        night = (await al.offers(**asked(5, 1, "PT1H")))[0]  # as much of it in December as has to be
        assert start_of(night) == site.clock.seconds + 3600 + 12 * 60
        await al.accept(night)
        (quota,) = (await al.me())["platforms"][0]["quotas"]
        assert (quota["used"], quota["left"]) == ({"monthly": 6.0}, {"monthly": 0.0})
        assert quota["renewed"] == "2026-12-01T00:00:00Z"
        await site.advance(3 * 3600)
        (quota,) = (await al.me())["platforms"][0]["quotas"]
        assert (quota["used"], quota["renewed"]) == ({"monthly": 1.0}, "2027-01-01T00:00:00Z")
        await al.take(**asked(5, 1, "PT1H"))
        await al.refused(**asked(1, 1, "PT1M"))

    tell(tmp_path, story, owner(monthly=6), start=EVENING)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_goes_back_into_the_month_before_finds_it_as_it_was(tmp_path: Path, restarted: bool) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al")
        await al.take(**asked(4, 1, "PT1H"))
        await site.advance(6 * 3600)
        assert (await al.me())["platforms"][0]["quotas"][0]["used"] == {"monthly": 0.0}
        if restarted:
            await site.restart()
        site.clock.step(-6 * 3600)
        assert (await al.me())["platforms"][0]["quotas"][0]["used"] == {"monthly": 4.0}
        await al.refused(**asked(3, 1, "PT30M", f"{site.clock.at(0)}/PT1M"))

    tell(tmp_path, story, owner(monthly=5), start=EVENING)


def test_what_has_ended_counts_as_it_was_used(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al", "g1")
        first, second = await al.take(**asked(4, 1, "PT1H")), await al.take(**asked(4, 1, "PT30M"))
        await site.advance(900)
        assert (await al.update(first, "CANCELLED")).status_code == 200
        await site.advance(3600)
        for _ in range(2):
            used = [quota["used"]["monthly"] for quota in (await al.me())["platforms"][0]["quotas"]]
            assert used == [3.0, 3.0]
            await site.restart()
        await site.ledger.forget(await site.ledger.old_sessions(1 << 40))
        await site.restart()
        assert (await al.me())["platforms"][0]["quotas"][0]["used"]["monthly"] == 3.0
        assert (await al.show(second)).get("status") == 404

    quotas = {"quotas": {"owner": {"monthly": 10}, "group": {"monthly": 10}}}
    tell(tmp_path, story, quotas)


def test_longer_within_quotas_and_limits(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al")
        session = await al.take(**asked(2, 1, "PT1H"))
        after = await al.take(**asked(2, 1, "PT1H", f"{site.clock.at(2 * 3600)}/PT0S"))
        option = (await al.show(session))["meta"]["options"][-1]
        assert (option["path"], option["max"]) == ("schedule.available.duration", 60)
        refused = await al.extend(session, 61)
        assert (refused.status_code, refused.json()["seconds"]) == (409, 3600)
        assert "1 more than the 3" in refused.json()["detail"]
        assert (await al.extend(session, 60)).status_code == 200
        assert (await al.show(after))["meta"]["options"][-1]["max"] == 120
        refused = await al.extend(after, 121)
        assert (refused.status_code, refused.json()["seconds"]) == (409, 7200)
        assert (await al.extend(after, -30)).status_code == 200

    tell(tmp_path, story, {"limits": {"duration": "PT3H"}, **owner(cores=3)})


def test_longer_by_several_at_once_no_further_than_the_limit(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al")
        session = await al.take(**asked(2, 1, "PT1H"))
        answers = await asyncio.gather(*(al.extend(session, 60) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
        assert (await al.show(session))["schedule"]["available"]["duration"] == "PT2H"
        assert {answer.json().get("seconds", 0) for answer in answers} == {0}

    tell(tmp_path, story, {"limits": {"duration": "PT2H"}})


def test_longer_within_the_quotas_of_the_groups_that_it_counts_for(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        before, now = site.person("al", "a"), site.person("al", "b")
        session = await before.take(**asked(2, 1, "PT1H"))
        assert (await now.show(session))["meta"]["options"][-1]["max"] == 30
        refused = await now.extend(session, 31)
        assert (refused.status_code, refused.json()["seconds"]) == (409, 1800)
        assert (await now.extend(session, 30)).status_code == 200
        assert (await before.me())["platforms"][0]["quotas"][0]["left"] == {"monthly": 0}

    tell(tmp_path, story, {**group(monthly=3), "groups": ["a"]}, {**group(monthly=100), "groups": ["b"]})


def test_who_is_no_longer_let_in_cannot_have_more(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        session = await site.person("al", "g1").take(**asked(2, 1, "PT1H"))
        outside = site.person("al")
        assert (await outside.extend(session, 10)).status_code == 403
        assert (await outside.show(session))["meta"]["options"][-1]["max"] == 0
        assert (await outside.extend(session, -10)).status_code == 200

    tell(tmp_path, story, group(cores=4))


def test_pulled_forward_no_further_than_the_quota_goes(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        al = site.person("al")
        first = await al.take(**asked(2, 1, "PT2H"))
        flexible = asked(2, 1, "PT1H")
        flexible["schedule"]["requested"]["flexible"] = True
        waiting = await al.take(**flexible)
        assert start_of(waiting) == site.clock.seconds
        assert (await al.me())["platforms"][0]["quotas"][0]["used"]["cores"] == 2
        await site.advance(600)
        assert (await al.show(waiting))["phase"] == "WAITING"
        await al.update(first, "CANCELLED")
        await site.advance(60)
        assert (await al.show(waiting))["phase"] == "RUNNING"

    tell(tmp_path, story, owner(cores=3))


def test_sixteen_at_once_never_hold_more(tmp_path: Path) -> None:
    async def story(site: PeopleSite) -> None:
        people = [site.person(f"p{number}", f"g{number % 2}") for number in range(16)]

        async def press(person: Person) -> None:
            for number in range(4):
                answer = await person.ask(**asked(1 + number % 3, 1, "PT40M", f"{site.clock.at(0)}/PT2H"))
                if answer["result"] == "YES" and number % 2:
                    await person.accept(answer["offers"][-1])

        await asyncio.gather(*map(press, people))
        held = await all_held(site)
        for name in ("g0", "g1"):
            cores, _, sessions = account_of(held, group=name).most()
            assert 5 <= cores <= 7
            assert sessions <= 4
        assert all(account_of(held, person.name).most()[0] <= 4 for person in people)

    tell(tmp_path, story, {"groups": ["g*"], "quotas": {"owner": {"cores": 4}, "group": {"cores": 7, "sessions": 4}}})


@pytest.mark.postgres
def test_several_brokers_keep_one_quota(tmp_path: Path) -> None:
    """Each hears from the others what owners and groups hold, what has ended, and what is taken back."""

    async def story(one: PeopleSite) -> None:
        async with PeopleSite(tmp_path, one.clock, platforms=one.settings["platforms"], offers={"limit": 2}) as two:

            async def press(site: PeopleSite, number: int) -> None:
                person = site.person(f"p{number % 4}", f"g{number % 2}")
                for turn in range(4):
                    answer = await person.ask(**asked(1 + turn % 2, 1, "PT40M", f"{site.clock.at(0)}/PT2H"))
                    if answer["result"] == "YES":
                        await person.update(answer["offers"][-1], ("ACCEPTED", "REJECTED")[turn % 2])

            await asyncio.gather(*(press((one, two)[number // 8], number) for number in range(16)))
            for _ in range(3):
                held = await all_held(one)
                for number in range(4):
                    told = [await site.person(f"p{number}", f"g{number % 2}").me() for site in (one, two)]
                    assert told[0] == told[1]
                    used = [entry["used"] for entry in told[0]["platforms"][0]["quotas"]]
                    mine, ours = account_of(held, f"p{number}"), account_of(held, group=f"g{number % 2}")
                    month = month_of(one.clock.seconds)
                    assert used == [{"cores": mine.at(one.clock.seconds)[0], "monthly": pytest.approx(mine.months[month] / 3600)},
                                    {"cores": ours.at(one.clock.seconds)[0]}]  # fmt: skip
                    assert mine.most()[0] <= 3
                    assert ours.most()[0] <= 5
                await one.advance(1500)
                await two.restart()

    quotas = {"groups": ["g*"], "quotas": {"owner": {"cores": 3, "monthly": 20}, "group": {"cores": 5}}}
    tell(tmp_path, story, quotas, offers={"limit": 2})


QUOTAS = {"owner": {"cores": 4, "sessions": 3, "monthly": 9}, "group": {"cores": 5, "memory": 9, "monthly": 12, "held": 14}}
PEOPLE = (("al", "g1"), ("bo", "g1", "g2"), ("cy", "g2"))
STEPS = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from((1, 2, 4)), st.sampled_from((10, 30, 60, 180)), st.integers(0, 4), st.booleans()),
    st.tuples(st.just("accept"), st.integers(0, 9)),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("extend"), st.integers(0, 9), st.sampled_from((-5, 10, 60))),
    st.tuples(st.just("wait"), st.sampled_from((60, 300, 1800, 7200))),
    st.tuples(st.just("restart")),
)


class Story:
    """Random steps of three people, each checked against what the sessions' own schedules say."""

    def __init__(self, site: PeopleSite) -> None:
        self.site, self.people = site, [site.person(*one) for one in PEOPLE]
        self.offers: list[tuple[Person, Any]] = []
        self.taken: list[tuple[Person, Any]] = []

    async def do(self, person: Person, what: str, *how: Any) -> None:
        if what == "ask":
            await self.ask(person, *how)
        elif what == "wait":
            await self.site.advance(how[0])
        elif what == "restart":
            await self.site.restart()
        elif what == "accept" and self.offers:
            whose, offer = self.offers.pop(how[0] % len(self.offers))
            if (answer := await whose.update(offer, "ACCEPTED")).status_code == 200:
                self.taken.append((whose, offer))
            else:
                assert answer.json()["phase"] in ("EXPIRED", "REJECTED")  # never for a quota
        elif what == "end" and self.taken:
            whose, session = self.taken.pop(how[0] % len(self.taken))
            await whose.update(session, "CANCELLED")
            await self.site.settle()
        elif what == "extend" and self.taken:
            whose, session = self.taken[how[0] % len(self.taken)]
            assert (await whose.extend(session, how[1])).status_code in (200, 409)

    async def ask(self, person: Person, cores: int, minutes: int, hours: int, flexible: bool) -> None:
        now = self.site.clock.seconds
        request = asked(cores, 2, f"PT{minutes}M", f"{self.site.clock.at(0)}/PT{hours}H")
        request["schedule"]["requested"]["flexible"] = flexible
        held = await all_held(self.site)
        answer = await person.ask(**request)
        starts = range(now, now + hours * 3600 + 1, 60)
        first = next((start for start in starts if self.fits(held, person, cores, start, start + minutes * 60)), None)
        if answer["result"] == "YES":
            assert first is None or start_of(answer["offers"][0]) <= first
            self.offers += [(person, offer) for offer in answer["offers"]]
        else:
            names = {item["kind"].rpartition(":")[2] for item in answer["meta"]["messages"]}
            assert names & {"over-quota", "too-many-offers"}
            assert first is None or "too-many-offers" in names

    def fits(self, held: list[Any], person: Person, cores: int, start: int, end: int) -> bool:
        accounts = [(account_of(held, person.name), QUOTAS["owner"])]
        accounts += [(account_of(held, group=name), QUOTAS["group"]) for name in person.groups]
        middle = next((edge for edge in range(start, end, 60) if month_of(edge) != month_of(start)), end)
        for account, quota in accounts:
            for edge in {start, *(one for one in account.edges if start < one < end)}:
                total = [a + b for a, b in zip(account.at(edge), (cores, 2, 1), strict=True)]
                most = [quota.get(name, 1 << 30) for name in ("cores", "memory", "sessions")]
                if any(a > b for a, b in zip(total, most, strict=True)):
                    return False
            for a, b in ((start, middle), (middle, end)):
                if b > a and account.months[month_of(a)] + cores * (b - a) > quota["monthly"] * 3600:
                    return False
        return True

    async def check(self) -> None:
        assert await self.site.faults() == []
        told = {person.name: (await person.me())["platforms"][0]["quotas"] for person in self.people}
        held = await all_held(self.site)
        for person in self.people:
            for entry in told[person.name]:
                mine = entry["of"] == "owner"
                account = account_of(held, entry["name"]) if mine else account_of(held, group=entry["name"])
                now = dict(zip(("cores", "memory", "sessions"), account.at(self.site.clock.seconds), strict=True))
                used = now | {"held": account.held / 3600, "monthly": account.months[month_of(self.site.clock.seconds)] / 3600}
                quota = QUOTAS[entry["of"]]
                assert entry["quota"] == quota
                assert entry["used"] == {name: pytest.approx(used[name]) for name in quota}
                most = dict(zip(("cores", "memory", "sessions"), account.most(), strict=True))
                most |= {"held": account.held / 3600, "monthly": max(account.months.values(), default=0) / 3600}
                assert all(most[name] <= quota[name] for name in quota), (entry, most)


@settings(max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 2), STEPS), min_size=5, max_size=25))
def test_whatever_happens_quotas_are_exact(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    async def told(site: PeopleSite) -> None:
        story = Story(site)
        for who, step in steps:
            await story.do(story.people[who], *step)
            await story.check()

    policy = {"groups": ["g*"], "quotas": QUOTAS}
    tell(tmp_path_factory.mktemp("story"), told, policy, start=EVENING, offers={"limit": 2, "longest": "PT4H"})
