"""What comparisons are made of, without a judge: drawing, reading, averaging."""

import math
import re
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, Sample, Score, Services, build_reward
from llmalign.rewards.pairwise import (
    Form,
    against_reference,
    drawn_reference,
    margins,
    mean_margin,
    position_biased,
    read_margin,
    settled,
    win_probability,
)


def test_the_reference_is_drawn_by_problem_and_step_alike_for_all() -> None:
    by_step = [drawn_reference("p", step, 4, seed=0) for step in range(400)]
    by_problem = [drawn_reference(f"p{k}", 0, 4, seed=0) for k in range(400)]
    by_seed = [drawn_reference("p", 0, 4, seed=seed) for seed in range(400)]
    for drawn in (by_step, by_problem, by_seed):
        assert all(70 < drawn.count(index) < 130 for index in range(4))
    assert by_step != by_problem != by_seed
    assert by_step[:8] == [drawn_reference("p", step, 4, seed=0) for step in range(8)]


def test_a_group_without_comparisons_has_no_reference() -> None:
    assert against_reference([Score(None), Score(0.0)]) == ([[], []], [False, False])


@pytest.mark.parametrize(
    ("said", "form", "margin"),
    [
        ("A", "word", 1.0),
        ("b.", "word", -1.0),
        ("**Tie**", "word", 0.0),
        ("[[B]]", "word", -1.0),
        ("<think>A is good</think> B", "word", -1.0),
        ("A is longer. <answer>[[A]]</answer>", "word", 1.0),
        ("<answer>A</answer> says the response, but: B", "word", None),
        ("<answer>A</answer><answer>B</answer>", "word", None),
        ("A or B", "word", None),
        ("A because", "word", None),
        ("<think>A", "word", None),
        ("1", "word", None),
        ("", "word", None),
        (None, "word", None),
        ('{"a": 7, "b": 5.5}', "numbers", 1.5),
        ('```json\n{"a": 0, "b": 10}\n```', "numbers", -10.0),
        ('So: <answer>{"a": 3, "b": 3}</answer>', "numbers", 0.0),
        ('{"a": 11, "b": 5}', "numbers", None),
        ('{"a": 5, "b": -1}', "numbers", None),
        ('{"a": true, "b": 5}', "numbers", None),
        ('{"a": "7", "b": 5}', "numbers", None),
        ('{"a": NaN, "b": 5}', "numbers", None),
        ('{"a": 7}', "numbers", None),
        ('{"a": 7, "a": 8, "b": 1}', "numbers", None),
        ("7", "numbers", None),
        ("A", "numbers", None),
    ],
)
def test_a_verdict_is_read_from_its_form_and_from_nothing_else(
    said: str | None, form: Form, margin: float | None
) -> None:
    assert read_margin(said, form=form) == margin


def test_formulas_by_hand() -> None:
    assert win_probability([1, None], both=False) == 1.0
    assert win_probability([1, None], both=True) is None
    assert win_probability([None, None], both=False) is None
    assert win_probability([1, 1, 1, -1, 0, None], both=True) == pytest.approx(
        0.5 * (2.5 / 3 + 0.5)
    )
    assert position_biased([3, -1]) is True
    assert position_biased([3, 1]) is False
    assert position_biased([0, 1]) is True  # a tie in one order, a win in the other
    assert position_biased([1, None]) is None
    # first order: 2 and 4, second: 1; not (2 + 4 + 1) / 3
    assert mean_margin([2, 1, 4, None]) == 2.0
    assert [settled("a", "a"), settled("a", "b"), settled(":", "b")] == [0.0, None, -1.0]


def test_margins_need_only_one_side_to_know_the_pair() -> None:
    table = margins([Score(1.0), Score(0.0, versus={0: (2.0, 4.0)}), Score(None)])
    assert table[0][1] == -3.0 and table[1][0] == 3.0
    assert math.isnan(table[0][2]) and math.isnan(table[2][1]) and table[2][2] == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"votes": 0}, "votes is 0, expected >= 1"),
        ({"criteria": " "}, "criteria is empty"),
        ({"prompt": "{a} {c}"}, "prompt is '{a} {c}' without {b}, expected places for both"),
        ({"against": "best"}, "against is 'best', expected one of"),
        ({"answer": "json"}, "answer is 'json', expected one of"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build_reward({"pairwise": options})


def test_it_says_that_it_needs_a_judge_and_a_host() -> None:
    with pytest.raises(RuntimeError, match="reward 'pairwise' needs a judge"):
        build_reward("pairwise").bind(Services(verify=lambda *_: []))
    with pytest.raises(RuntimeError, match="reward 'pairwise' is not bound"):
        build_reward("pairwise").score(
            [Group(Problem("p", "q"), (Sample("a", (1,), (0.0,), "eos"),))]
        )
