"""Rows of known data sets: where the problem stands, where the gold, what there is to learn."""

import json
import os
from pathlib import Path

import pytest

from llmalign.layouts import countdown_text, gold_of, problem_of, solution_of

DATA = Path(os.environ.get("LLMALIGN_DATA", Path(__file__).parents[3] / "shared" / "data"))
MESSAGES = [{"role": "user", "content": "2+2?"}]


def real_rows(name):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; set LLMALIGN_DATA to a folder that holds {name}")
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    ("row", "problem", "gold"),
    [
        ({"question": "q", "answer": "1+1=2\n#### 2"}, "q", "2"),
        ({"question": "q", "answer": "-1-1=-2\n#### -2"}, "q", "-2"),
        ({"problem": "q", "solution": "w\n#### 9", "answer": "2"}, "q", "2"),
        ({"problem": "q", "solution": None, "answer": "34"}, "q", "34"),
        ({"prompt": MESSAGES, "reward_model": {"ground_truth": "4"}}, MESSAGES, "4"),
        ({"prompt": "q", "answer": "a"}, "q", "a"),
        ({"prompt": MESSAGES, "ground_truth": "4"}, MESSAGES, "4"),
        ({"prompt": "q", "solution": "$4$"}, "q", "$4$"),
        ({"prompt": "q", "label": "4"}, "q", "4"),
        ({"prompt": "q", "answer": "first", "ground_truth": "second"}, "q", "first"),
        ({"prompt": "q"}, "q", None),
        ({"text": "story"}, None, None),
    ],
    ids=[
        "gsm8k-hub", "gsm8k-negative", "answer-before-solution", "dapo-local", "dapo-hub",
        "trl-string", "trl-messages", "trl-solution", "trl-label", "answer-before-ground-truth",
        "no-gold", "no-problem",
    ],
)  # fmt: skip
def test_problem_and_gold_are_found_by_layout(row, problem, gold):
    assert problem_of(row) == problem
    assert gold_of(row) == gold


def test_a_countdown_row_is_written_in_words_with_its_numbers_and_target():
    row = {"nums": [19, 70, 58, 12], "target": 20, "solution": "(19 + (12 / (70 - 58)))"}
    assert "[19, 70, 58, 12], each exactly once" in countdown_text(row)
    assert "reach 20." in countdown_text(row)
    assert problem_of(row) == countdown_text(row)
    assert gold_of(row) == 20


def test_the_working_of_gsm8k_loses_its_calculator_marks():
    row = {"question": "q", "answer": "48/2 = <<48/2=24>>24 clips\n#### 24"}
    assert solution_of(row) == "48/2 = 24 clips\n#### 24"


@pytest.mark.parametrize(
    "row", [{"answer": "4"}, {"answer": "4", "solution": None}, {"problem": "q"}],
    ids=["bare-answer", "null-solution", "nothing"],
)  # fmt: skip
def test_a_bare_answer_is_no_solution_to_learn_from(row):
    assert solution_of(row) is None


@pytest.mark.parametrize(
    ("name", "count"),
    [("gsm8k/train.jsonl", 7473), ("math/train.jsonl", 7500), ("dapo_math_17k/train.jsonl", 17398)],
    ids=["gsm8k", "math", "dapo"],
)
def test_real_rows_give_their_own_problem_and_answer(name, count):
    rows = real_rows(name)
    assert len(rows) == count
    assert all(problem_of(r) == r["problem"] and gold_of(r) == r["answer"] for r in rows)


def test_real_gsm8k_answers_equal_those_read_from_the_working():
    rows = real_rows("gsm8k/train.jsonl")
    hub = [{"question": r["problem"], "answer": r["solution"]} for r in rows]
    assert [gold_of(h).replace(",", "") for h in hub] == [r["answer"] for r in rows]


def test_real_countdown_rows_name_every_number():
    rows = real_rows("countdown/train.jsonl")
    assert len(rows) == 1800
    assert all(str(r["nums"]) in problem_of(r) and gold_of(r) == r["target"] for r in rows)


def test_the_gold_of_a_boxed_solution_is_what_stands_in_the_last_box():
    row = {"problem": "q", "solution": r"so \boxed{3}, no: \boxed{\frac{1}{2}}"}
    assert gold_of(row) == r"\frac{1}{2}"


@pytest.mark.parametrize("mark", [True, -1, 1.0], ids=repr)
def test_a_mark_of_right_and_wrong_is_no_gold(mark):
    assert gold_of({"problem": "q", "label": mark}) is None
