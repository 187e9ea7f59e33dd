from typing import Any

import pytest

from llmalign.rewards.judging import (
    EMPTY_RESPONSES,
    canary,
    fence_mark,
    has_content,
    read_number,
    read_yes,
)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("0.5", 0.5),
        (" 1\n", 1.0),
        (".25", 0.25),
        ('{"score": 0.5}', 0.5),
        ('{"reason": "fine", "score": 1}', 1.0),
        ('```json\n{"score": 0}\n```', 0.0),
        ("<think>maybe 0.1, maybe 0.9</think>0.7", 0.7),
        ("The score is 0.5", None),
        ("0.5 because it is good", None),
        ('Sure: {"score": 0.5}', None),
        ('{"score": "0.5"}', None),
        ('{"score": true}', None),
        ('{"score": NaN}', None),
        ('{"score": 1.5}', None),
        ('{"score": 0.1, "score": 0.9}', None),
        ('{"grade": 0.5}', None),
        ("nan", None),
        ("inf", None),
        ("1e-3", None),
        ("-1", None),
        ("[0.5]", None),
        ("", None),
        (None, None),
        ("1" * 5000, None),
    ],
)
def test_only_a_number_is_a_number(answer: str | None, number: float | None) -> None:
    assert read_number(answer, low=0, high=1) == number


@pytest.mark.parametrize(
    ("answer", "value"),
    [("Yes", 1.0), ("no.", 0.0), ("**YES**", 1.0), ("<think>no</think> yes", 1.0), ('"No"', 0.0),
     ("Yes, it does", None), ("not", None), ("", None), (None, None)],
)  # fmt: skip
def test_only_one_word_is_yes_or_no(answer: str | None, value: float | None) -> None:
    assert read_yes(answer) == value


@pytest.mark.parametrize("response", [*EMPTY_RESPONSES, "", "Solution: .", "THOUGHT PROCESS:\n解"])
def test_responses_that_say_nothing_have_no_content(response: str) -> None:
    assert not has_content(response)


@pytest.mark.parametrize("response", ["42", "Solution: 42", "no", "解は3", "é"])
def test_one_letter_or_digit_more_is_content(response: str) -> None:
    assert has_content(response)


def grader(verdict: Any) -> Any:
    return lambda pairs: [verdict(response) for _, response in pairs]


def test_the_canary_feeds_every_empty_response() -> None:
    seen: set[str] = set()
    canary(grader(lambda response: seen.add(response) or 0.0), name="j")
    assert seen == set(EMPTY_RESPONSES)


def test_the_canary_ignores_missing_verdicts_but_not_false_ones() -> None:
    assert canary(grader(lambda r: None if r == "." else 0.4), name="j") == 0.0
    with pytest.raises(RuntimeError, match=r"j calls 11.1% of empty responses right.*':'"):
        canary(grader(lambda r: None if r == "." else float(r == ":")), name="j")


def test_a_mark_depends_on_the_text_it_parts() -> None:
    assert fence_mark("a") == fence_mark("a") != fence_mark("b")
    assert fence_mark("\ud800")
