"""How often somebody may come."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execbroker.errors import TooMany, Unauthorized
from execbroker.web.throttle import LONGEST_ADDRESS, LONGEST_NAME, Failures, Logins, Rate, caller_at, name_in


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 5), max_size=200),
)
def test_no_interval_has_more_than_the_burst_and_the_rate_allow(rate: float, burst: int, pauses: list[float]) -> None:
    time, taken = Time(), list[float]()
    bucket = Rate(rate, burst, time)
    for pause in pauses:
        time.now += pause
        wait = bucket.take("me")
        if not wait:
            taken.append(time.now)
        assert wait >= 0
    for start in range(len(taken)):
        for end in range(start, len(taken)):
            assert end - start + 1 <= burst + rate * (taken[end] - taken[start]) + 1e-6


def test_who_waits_as_long_as_told_may_go_on_and_not_before() -> None:
    time = Time()
    bucket = Rate(2, 3, time)
    assert [bucket.take("me") for _ in range(3)] == [0, 0, 0]
    assert bucket.take("me") == pytest.approx(0.5)
    time.now += 0.49
    assert bucket.take("me") == pytest.approx(0.01)
    time.now += 0.011
    assert bucket.take("me") == 0


def test_one_does_not_use_up_what_another_may() -> None:
    bucket = Rate(1, 1, Time())
    assert bucket.take("me") == 0
    assert bucket.take("me") > 0
    assert bucket.take("you") == 0


def test_however_many_come_few_are_remembered() -> None:
    time = Time()
    bucket, failures = Rate(1, 5, time, most=100), Failures(1, 60, time, most=100)
    for number in range(10_000):
        bucket.take(str(number))
        failures.failed(str(number))
    assert len(bucket) == len(failures) == 100


def test_each_failure_doubles_the_wait_up_to_the_longest() -> None:
    time = Time()
    failures, waits = Failures(3, 60, time), list[float]()
    for _ in range(12):
        waits.append(wait := failures.wait("a"))
        time.now += wait
        failures.failed("a")
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    time.now += 1000
    failures.failed("a")
    assert failures.wait("a") == 0, "what is long ago is forgotten"


def guess(logins: Logins, tries: Iterable[tuple[str, str]]) -> int:
    """How many were not told to wait."""
    return sum(try_(logins, *one, Unauthorized()) for one in tries)


def try_(logins: Logins, address: str, name: str, error: Exception | None = None) -> bool:
    """Whether it was let try; with `error` it fails."""
    with suppress(TooMany):
        enter(logins, address, name, error)
        return True
    return False


def enter(logins: Logins, address: str, name: str, error: Exception | None = None) -> None:
    async def work() -> None:
        async with logins.attempt(address, name):
            if error:
                raise error

    with suppress(Unauthorized):
        asyncio.run(work())


def test_guessing_from_one_address_is_slow_whatever_the_names() -> None:
    time = Time()
    logins, let = Logins(10, time), 0
    for second in range(600):
        time.now = 1000.0 + second
        let += guess(logins, (("1.1.1.1", f"user{second}{number}") for number in range(5)))
    assert let <= 10 + 6 + 600 / LONGEST_ADDRESS + 1


def test_guessing_at_one_name_is_slow_from_wherever() -> None:
    time = Time()
    logins, let = Logins(10, time), 0
    for second in range(600):
        time.now = 1000.0 + second
        let += guess(logins, ((f"10.0.{second % 256}.{number}", "ada") for number in range(5)))
    assert let <= 10 + 5 + 600 / LONGEST_NAME + 1


def test_who_was_let_in_is_locked_out_by_nobody_else() -> None:
    logins = Logins(3, Time())
    assert try_(logins, "10.0.0.1", "ada")
    guess(logins, [("10.0.0.1", f"other{number}") for number in range(50)])
    guess(logins, [("6.6.6.6", "ada") for _ in range(50)])
    assert try_(logins, "10.0.0.1", "ada")
    with pytest.raises(TooMany) as told:
        enter(logins, "10.0.0.1", "new")
    assert int(told.value.headers["Retry-After"]) >= 1


def test_who_was_let_in_once_may_not_guess_on() -> None:
    logins = Logins(3, Time())
    assert try_(logins, "10.0.0.1", "ada")
    assert guess(logins, [("10.0.0.1", "ada")] * 50) == 3


@pytest.mark.parametrize("right", [False, True])
def test_of_many_at_once_some_are_tried_and_the_others_wait_for_them(right: bool) -> None:
    """A guesser gets no more tries than one after the other; whoever is right is let in, by as many connections as they like."""
    logins, trying, most = Logins(3, Time()), 0, 0

    async def one() -> str:
        nonlocal trying, most
        async with logins.attempt("6.6.6.6", "ada"):
            trying += 1
            most = max(most, trying)
            await asyncio.sleep(0)
            trying -= 1
            if not right:
                raise Unauthorized
        return "let in"

    async def work() -> Counter[str]:
        answers = await asyncio.gather(*(one() for _ in range(50)), return_exceptions=True)
        return Counter(answer if isinstance(answer, str) else type(answer).__name__ for answer in answers)

    found = asyncio.run(work())
    assert found == ({"let in": 50} if right else {"Unauthorized": 3, "TooMany": 47})
    assert right or most == 3


def test_credentials_that_were_good_once_are_no_guess() -> None:
    logins, expired = Logins(2, Time()), Unauthorized("The token has expired")
    expired.guess = False
    assert all(try_(logins, "10.0.0.1", "ada", expired) for _ in range(20))


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("somewhere", "somewhere"),
    ],
)
def test_an_ipv6_network_is_one_caller(address: str, caller: str) -> None:
    assert caller_at(address) == caller


def test_the_name_in_credentials() -> None:
    assert name_in("basic", "YWRhOnNlY3JldA==") == "ada"
    names = [name_in("bearer", "secret"), name_in("basic", "secret!"), name_in("basic", "/////w==")]
    assert all(len(name) == 64 and "secret" not in name for name in names)
    assert all(one != other for one, other in pairwise(names))
