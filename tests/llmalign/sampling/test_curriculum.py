import json
import random

import pytest

from llmalign.data import ProblemSampler
from llmalign.rewards import Problem
from llmalign.sampling.curriculum import Curriculum, difficulty_order

EASY, HARD = "curriculum: too easy", "curriculum: too hard"


def curriculum(**changes):
    return Curriculum(**{"low": 0.2, "high": 0.8, "recheck_after": 10, "retire_for": 50, **changes})


def seen(record, **changes):
    """A curriculum that has seen problem p, visit by visit."""
    made = curriculum(**changes)
    for step, values in enumerate(record):
        made.record("p", values, step)
    return made


def supply(ids):
    """An endless supply of ids, and what was drawn from it."""
    drawn = []

    def draw(count):
        new = [ids[(len(drawn) + i) % len(ids)] for i in range(count)]
        drawn.extend(new)
        return new

    return draw, drawn


@pytest.mark.parametrize(
    "rate, expected",
    [(0.0, HARD), (0.2, None), (0.25, None), (0.5, None), (0.8, None), (1.0, EASY)],
)
def test_a_problem_is_left_out_outside_the_bounds_and_not_on_them(rate, expected):
    right = round(20 * rate)
    made = seen([[1.0] * right + [0.0] * (20 - right)])
    assert made.visits["p"].rate == rate
    assert made.objection("p", 1) == expected


def test_the_rate_forgets_the_past_at_the_given_pace():
    made = seen([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], decay=0.75)
    # .5, then .75 * .5 + .25 * .25 = .4375, then .75 * .4375 + .25 * 1
    assert made.visits["p"].rate == 0.578125


def test_without_decay_only_the_last_visit_counts():
    assert seen([[1, 1], [0, 1]], decay=0).visits["p"].rate == 0.5


def test_a_problem_never_seen_is_worth_a_group():
    assert curriculum().objection("p", 0) is None


def test_the_rate_alone_decides_only_after_the_visits_asked_for():
    record = [[0.0] * 4] * 3
    assert [seen(record[:n], min_visits=3).objection("p", 3) for n in (1, 2, 3)] == [
        None,
        None,
        HARD,
    ]


def test_a_problem_left_out_is_tried_again_and_may_come_back():
    made = seen([[0.0] * 4])
    assert made.objection("p", 9) == HARD and made.objection("p", 10) is None
    made.record("p", [1, 1, 1, 0], 10)  # rate 3/8
    assert made.objection("p", 11) is None
    made.record("p", [0] * 4, 12)  # 3/16
    assert made.objection("p", 21) == HARD and made.objection("p", 22) is None


@pytest.mark.parametrize("value, why", [(1, EASY), (0, HARD)])
def test_a_streak_retires_a_problem_for_longer_even_within_the_bounds(value, why):
    for visits in (1, 2):
        assert seen([[value] * 4] * visits, low=0, high=1, retire_after=3).objection("p", 3) is None
    made = seen([[value] * 4] * 3, low=0, high=1, retire_after=3)
    assert made.objection("p", 51) == why and made.objection("p", 52) is None
    made.record("p", [value] * 4, 52)  # still the same: away again
    assert made.objection("p", 60) == why
    made.record("p", [1, 0, 0, 0], 61)
    assert made.objection("p", 62) is None


def test_a_streak_ends_with_the_other_side_or_a_mixed_group():
    records = [[1, 1], [1, 1], [0, 0], [0, 0], [1, 0], [1, None]]
    assert [seen(records[: n + 1]).visits["p"].streak for n in range(6)] == [1, 2, -1, -2, 0, 1]


def test_without_streaks_no_problem_is_retired():
    assert seen([[1, 1]] * 9, low=0, high=1).objection("p", 9) is None


def test_a_visit_nobody_could_score_is_an_attempt_and_no_visit():
    made = seen([[0.0, 0.0], [None, None]])
    assert (made.visits["p"].count, made.visits["p"].rate, made.visits["p"].last) == (1, 0.0, 1)
    assert made.objection("p", 10) == HARD  # ten steps after the attempt, not after the visit
    assert seen([[None]]).objection("p", 1) is None


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_a_score_that_is_no_rate_is_refused_before_it_is_recorded(value):
    made = curriculum()
    with pytest.raises(ValueError, match="a score of problem 'p' is .*expected 0 to 1; name a rew"):
        made.record("p", [0.5, value], 0)
    assert not made.visits


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"low": 0.9, "high": 0.8}, "low is 0.9 and high is 0.8, expected 0 <= low <= high <= 1"),
        ({"high": 1.1}, "high is 1.1"),
        ({"decay": 1.0}, "decay is 1.0, expected >= 0 and < 1"),
        ({"min_visits": 0}, "min_visits is 0, expected >= 1"),
        ({"recheck_after": 0}, "recheck_after is 0"),
        ({"retire_after": 0}, "retire_after is 0"),
        ({"retire_for": 0}, "retire_for is 0"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        curriculum(**changes)


# -- drawing ---------------------------------------------------------------------------------------


def test_drawing_goes_on_until_enough_problems_are_worth_it_and_lists_the_others():
    made = curriculum()
    for name, values in [("a", [1, 1]), ("b", [0, 1]), ("c", [0, 0]), ("d", [1, 0])]:
        made.record(name, values, 3)
    draw, drawn = supply("abcde")
    portion = made.choose(draw, str, count=3, most=100, step=5)
    assert portion.kept == ["b", "d", "e"] and drawn == list("abcde")
    assert [(d.step, d.problem_id, d.reason) for d in portion.skipped] == [
        (5, "a", EASY),
        (5, "c", HARD),
    ]
    assert portion.skipped[0].detail == "rate 1.000 after 1 visits, streak 1, last tried at step 3"
    assert portion.forced == [] and portion.note == ""


def test_no_more_problems_are_drawn_than_may_be_looked_at():
    made = curriculum()
    for name in "abcdef":
        made.record(name, [1, 1], 0)
    draw, drawn = supply("abcdef")
    made.choose(draw, str, count=2, most=5, step=1)
    assert drawn == list("abcde")


def test_where_nothing_is_worth_it_the_least_recently_tried_go_and_it_is_said():
    made = curriculum()
    for step, name in enumerate("bdac"):
        made.record(name, [1, 1], step)
    draw, _ = supply("abcd")
    portion = made.choose(draw, str, count=2, most=8, step=4)
    assert portion.kept == portion.forced == ["b", "d"]
    assert "the 2 least recently tried of 4 others fill the step" in portion.note
    # all were looked at twice, and are listed once
    assert [d.problem_id for d in portion.skipped] == ["a", "c"]


def test_a_shortage_fills_the_step_with_what_is_least_recently_tried():
    made = curriculum()
    made.record("a", [1, 1], 2)
    made.record("b", [0, 0], 1)
    draw, _ = supply("abc")
    portion = made.choose(draw, str, count=2, most=3, step=3)
    assert (portion.kept, portion.forced) == (["c", "b"], ["b"])
    assert [d.problem_id for d in portion.skipped] == ["a"]


def test_a_problem_comes_twice_only_where_nothing_else_is_left():
    made = curriculum()
    made.record("a", [1, 1], 0)
    draw, drawn = supply("aab")
    portion = made.choose(draw, str, count=4, most=9, step=1)
    assert portion.kept == ["b", "a", "b", "b"] and portion.forced == ["a"]
    draw, drawn = supply("ab")
    assert curriculum().choose(draw, str, count=3, most=60, step=0).kept == ["a", "b", "a"]
    assert len(drawn) == 3  # and the place in the data does not run on


def test_a_policy_that_solves_everything_starves_no_problem():
    made = curriculum(recheck_after=1000, retire_after=1)
    draw, _ = supply([f"p{i}" for i in range(7)])
    last = {}
    for step in range(40):
        portion = made.choose(draw, str, count=2, most=21, step=step)
        assert len(set(portion.kept)) == 2
        for name in portion.kept:
            made.record(name, [1.0] * 4, step)
            last[name] = step
    assert len(last) == 7 and min(last.values()) >= 40 - 4  # in turn: 7 problems, 2 a step


def test_a_resumed_curriculum_goes_on_as_the_unbroken_one():
    def run(steps, state=None):
        made = curriculum(decay=0.7, retire_after=2, recheck_after=3)
        sampler = ProblemSampler(9, seed=5, shuffle=True)
        if state is not None:
            made.load_state_dict(state[0])
            sampler.load_state_dict(state[1])
        trace = []
        for step in steps:
            portion = made.choose(
                sampler.next, lambda drawn: f"p{drawn[0]}", count=3, most=12, step=step
            )
            trace.append((portion.kept, portion.forced, portion.skipped))
            for index, epoch in portion.kept:
                chance = random.Random(f"{index}-{epoch}-{step}")
                values = [float(chance.random() < index / 8) for _ in range(3)]
                made.record(f"p{index}", values, step)
        return trace, json.loads(json.dumps([made.state_dict(), sampler.state_dict()]))

    whole, end = run(range(40))
    first, middle = run(range(17))
    rest, resumed = run(range(17, 40), middle)
    assert first + rest == whole and resumed == end
    assert any(skipped for _, _, skipped in whole) and any(forced for _, forced, _ in whole)


# -- prior difficulty ------------------------------------------------------------------------------


def problems(*levels):
    return [
        Problem(f"p{i}", "q", {"level": level, "answer": "1"}) for i, level in enumerate(levels)
    ]


@pytest.mark.parametrize(
    "order, expected",
    [("none", [0, 1, 2, 3]), ("easy_first", [1, 3, 0, 2]), ("hard_first", [0, 2, 3, 1])],
)
def test_problems_are_ordered_by_the_difficulty_of_their_rows(order, expected):
    given = problems(5, 1, "5", 2.5)  # a number may come as text, as in a CSV file
    assert difficulty_order(given, order=order, column="level") == expected


def test_without_an_order_the_column_is_not_looked_at():
    assert difficulty_order(problems("?"), order="none", column="nowhere") == [0]


def test_a_missing_difficulty_is_named_with_the_columns_there_are():
    with pytest.raises(
        ValueError, match="problem 'p0' has no column 'depth'; known: answer, level"
    ):
        difficulty_order(problems(1), order="easy_first", column="depth")


@pytest.mark.parametrize("level", ["Level 5", None, float("nan"), [1]])
def test_a_difficulty_that_is_no_number_is_refused(level):
    with pytest.raises(
        ValueError, match="level of problem 'p1' is .*expected a number; name a col"
    ):
        difficulty_order(problems(1, level), order="easy_first", column="level")
