"""The table of moves: no answer of a platform, at no time, leads out of it."""

from hypothesis import given
from hypothesis import strategies as st

from execbroker.engine.lifecycle import CHOICES, MOVES, Call, Move, Wait, after_poll, fail, step
from execbroker.model.phases import FINAL, HOLDING, Phase
from execbroker.model.waist import Share, Slot, Status

SLOT = Slot("site", (Share("one", 1, 1),), prepare=100, start=110, end=200, done=205)
FROM_ACCEPTED = [Phase.ACCEPTED, Phase.WAITING, Phase.PREPARING, Phase.AVAILABLE, Phase.RUNNING, Phase.RELEASING]

statuses = st.builds(
    Status,
    st.sampled_from(("running", "ended", "unknown")),
    st.none() | st.integers(0, 255),
    st.none() | st.just("out of memory"),
    st.booleans(),
    st.lists(st.just("careful"), max_size=2).map(tuple),
)


def test_every_phase_has_its_moves_and_only_final_ones_have_none() -> None:
    assert set(MOVES) == set(Phase)
    assert {phase for phase, moves in MOVES.items() if not moves} == FINAL
    assert set(Phase) == FINAL | HOLDING


def test_failure_and_cancellation_pass_through_release() -> None:
    for phase in FROM_ACCEPTED[:-1]:
        assert Phase.RELEASING in MOVES[phase]
        assert not MOVES[phase] & {Phase.FAILED, Phase.CANCELLED, Phase.COMPLETED}
    assert MOVES[Phase.RELEASING] == {Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED}


def test_what_an_owner_may_choose_leads_where_the_table_allows() -> None:
    for phase, choices in CHOICES.items():
        for choice in choices:
            assert choice in MOVES[phase] or (choice is Phase.CANCELLED and Phase.RELEASING in MOVES[phase])


@given(st.sampled_from(FROM_ACCEPTED), st.integers(0, 300))
def test_every_step_is_in_the_table(phase: Phase, now: int) -> None:
    match step(phase, SLOT, now):
        case Move(to, outcome):
            assert to in MOVES[phase]
            assert (to is Phase.RELEASING) == (outcome is not None)
        case Wait(until):
            assert until > now
        case Call(verb):
            assert verb != "tidy"


@given(statuses, st.integers(0, 300))
def test_whatever_a_platform_says_of_a_running_session_is_in_the_table(status: Status, now: int) -> None:
    move = after_poll(status, SLOT, now)
    if move is None:
        assert status.state == "running"
        assert now < SLOT.end
    else:
        assert move.to in MOVES[Phase.RUNNING]
        assert move.outcome in MOVES[Phase.RELEASING]
        assert [message.message for message in move.messages[:-1]] == [*status.warnings]


@given(st.lists(st.tuples(st.integers(0, 60), statuses), max_size=30))
def test_no_sequence_of_answers_leaves_the_table(answers: list[tuple[int, Status]]) -> None:
    """A session whose platform says anything at all, at any time, goes from move to move of the table."""
    phase, outcome, now = Phase.ACCEPTED, None, 0
    for passed, status in answers:
        now += passed
        taken = step(phase, SLOT, now)
        if taken == Call("prepare"):
            taken = Move(Phase.AVAILABLE) if status.state != "unknown" else fail("platform", "no")
        elif taken in (Call("start"), Call("adopt")):
            taken = Move(Phase.RUNNING) if status.state != "unknown" else fail("platform", "no")
        elif taken == Call("poll"):
            taken = after_poll(status, SLOT, now) or Wait(now)
        elif taken == Call("release"):
            assert outcome is not None
            taken = Move(outcome)
        if isinstance(taken, Move):
            assert taken.to in MOVES[phase]
            phase, outcome = taken.to, taken.outcome or outcome
        if phase.is_final:
            return


def test_times_of_a_life() -> None:
    assert step(Phase.WAITING, SLOT, 99) == Wait(100)
    assert step(Phase.WAITING, SLOT, 100) == Move(Phase.PREPARING)
    assert step(Phase.AVAILABLE, SLOT, 109) == Wait(110)
    assert step(Phase.AVAILABLE, SLOT, 199) == Call("start")
    assert step(Phase.AVAILABLE, SLOT, 200) == Call("adopt")
    late = step(Phase.PREPARING, SLOT, 200)
    assert isinstance(late, Move)
    assert (late.to, late.outcome) == (Phase.RELEASING, Phase.FAILED)


def test_the_end_by_time_is_an_end_as_promised() -> None:
    for status, now in ((Status("ended", 0, on_time_limit=True), 150), (Status("running"), 200)):
        move = after_poll(status, SLOT, now)
        assert move is not None
        assert move.outcome is Phase.COMPLETED
        assert [message.level for message in move.messages] == ["WARN"]
