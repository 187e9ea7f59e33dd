# ruff: noqa: E501  (a table reads best with one case a line)
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.choice import check_gold, judge

SHARED = Path(__file__).parents[3] / "shared"
TRIPLES = SHARED / "conformance" / "math_triples.jsonl"
MMLU = SHARED / "data" / "mmlu_stem" / "test.jsonl"

OPTIONS = {
    "letter": "B",
    "options": ["4", "5", r"\frac12", "a frog", "Both (A) and (B)", "5 m", "5 m"],
}


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("B", Verdict.RIGHT),
        ("b", Verdict.RIGHT),
        ("(B)", Verdict.RIGHT),
        ("[B]", Verdict.RIGHT),
        ("B.", Verdict.RIGHT),
        ("**B**", Verdict.RIGHT),
        ("$B$", Verdict.RIGHT),
        (r"\textbf{(B)}", Verdict.RIGHT),
        (r"\mathrm{B}", Verdict.RIGHT),
        (r"\boxed{B}", Verdict.RIGHT),
        ("Option B", Verdict.RIGHT),
        ("The correct answer is (B).", Verdict.RIGHT),
        ("B. 5", Verdict.RIGHT),
        ("(B) 1/2", Verdict.RIGHT),
        ("b) 5", Verdict.RIGHT),
        ("B: five of them", Verdict.RIGHT),
        ("B, because A is too small", Verdict.RIGHT),
        ("B, not A", Verdict.RIGHT),
        ("A", Verdict.WRONG),
        ("A. 5", Verdict.WRONG),
        ("A or B", Verdict.WRONG),
        ("B or A", Verdict.WRONG),
        ("B, or maybe A", Verdict.WRONG),
        ("(B) or (A)", Verdict.WRONG),
        ("A, B", Verdict.WRONG),
        ("B and A", Verdict.WRONG),
        ("AB", Verdict.WRONG),
        ("A/B", Verdict.WRONG),
        ("(B) A", Verdict.WRONG),
        ("(A) B", Verdict.WRONG),
        ("A B C D", Verdict.WRONG),
        ("2", Verdict.WRONG),
        ("B^1", Verdict.WRONG),
        ("2B", Verdict.WRONG),
        ("Bob", Verdict.WRONG),
        ("not B", Verdict.WRONG),
        ("", Verdict.NO_ANSWER),
        ("   ", Verdict.NO_ANSWER),
    ],
)
def test_a_letter_without_known_options(answer: str, verdict: Verdict) -> None:
    assert judge(answer, "B", form="answer").verdict is verdict


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("5", Verdict.RIGHT),
        ("$5$.", Verdict.RIGHT),
        ("(B) 5", Verdict.RIGHT),
        ("B", Verdict.RIGHT),
        ("B. since it is", Verdict.RIGHT),
        ("4", Verdict.WRONG),
        ("(B) 4", Verdict.WRONG),
        ("(A) 5", Verdict.WRONG),
        ("6", Verdict.WRONG),
        ("5 m", Verdict.WRONG),  # the text of two options
        ("Z", Verdict.WRONG),
        ("A frog", Verdict.WRONG),  # text of D, not letter A
        ("4 5", Verdict.WRONG),
        ("5 or 4", Verdict.WRONG),
        ("A and B", Verdict.WRONG),
    ],
)
def test_a_letter_or_the_text_of_a_known_option(answer: str, verdict: Verdict) -> None:
    assert judge(answer, OPTIONS, form="answer").verdict is verdict


def test_an_option_may_speak_of_letters() -> None:
    gold = {**OPTIONS, "letter": "E"}
    for answer in ("E", "both (A) and (B)", "(E) Both (A) and (B)"):
        assert judge(answer, gold, form="answer").verdict is Verdict.RIGHT
    assert judge("(A) and (B)", gold, form="answer").verdict is Verdict.WRONG


def test_options_may_have_letters_of_their_own() -> None:
    gold = {"letter": "q", "options": {"(P)": "one", "(Q)": "two"}}
    assert judge("two", gold, form="answer").answer == "Q"


@pytest.mark.parametrize(
    ("answer", "right"),
    [("A,C", True), ("C, A", True), ("A and C", True), ("(A), (C)", True), ("AC", True),
     ("A; C.", True), ("A, C and A", True), ("A", False), ("A,B", False), ("A,C,D", False),
     ("A or C", False), ("", False)],
)  # fmt: skip
def test_a_gold_of_several_letters_is_a_set(answer: str, right: bool) -> None:
    found = judge(answer, "A,C", form="answer")
    assert (found.verdict is Verdict.RIGHT) == right
    assert not right or found.answer == "A,C"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The answer is (B) 5.", Verdict.RIGHT),
        ("A is too small.\n\nAnswer: **B**", Verdict.RIGHT),
        ("First A. So the correct option is B", Verdict.RIGHT),
        (r"So $\boxed{\text{(B)}}$.", Verdict.RIGHT),
        ("<think>The answer is A</think><answer>B</answer>", Verdict.RIGHT),
        ("<answer>The answer is B.</answer>", Verdict.RIGHT),
        ("Long reasoning.\n(B) 5", Verdict.RIGHT),
        ("Long reasoning.\n5", Verdict.RIGHT),
        ("The answer is A. No: the answer is B.", Verdict.RIGHT),
        (r"$\boxed{A}$ or $\boxed{B}$", Verdict.WRONG),
        ("The answer is A or B.", Verdict.WRONG),
        ("<answer>A</answer> The answer is B", Verdict.WRONG),
        ("Both A and B look good to me.", Verdict.NO_ANSWER),
        ("", Verdict.NO_ANSWER),
        ("<think>The answer is B", Verdict.RIGHT),  # a thinking that never ends is all there is
    ],
)
def test_the_choice_of_a_response(text: str, verdict: Verdict) -> None:
    assert judge(text, OPTIONS).verdict is verdict


@pytest.mark.parametrize(
    "text",
    ["A, " * 30_000, "(" * 90_000, "B" * 90_000, "answer is " * 20_000, "option is " * 20_000,
     r"\boxed{" * 9_000, r"\text{" * 300, "\ud800", "A\n" * 50_000, "B. " + " " * 1_900 + "x\0",
     "(A) and " * 240, "A B " * 490 + "!", "the option" + " " * 1_900],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_no_text_raises_or_takes_long(text: str) -> None:
    began = time.perf_counter()
    for gold in ("B", OPTIONS):
        judge(text, gold)
        judge(text, gold, form="answer")
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    "bad",
    [None, "", "5", 2, "A or B", "the frog", {"letter": 2}, {"options": ["a"]},
     {"letter": "C", "options": ["a", "b"]}, {"letter": "A", "options": "ab"},
     {"letter": "A", "options": [1, 2]}],
    ids=repr,
)  # fmt: skip
def test_an_unusable_gold_is_refused(bad: Any) -> None:
    with pytest.raises(GoldError):
        check_gold(bad)


@pytest.mark.skipif(not TRIPLES.is_file(), reason="no labelled cases next to the tree")
def test_labelled_cases() -> None:
    rows = [json.loads(line) for line in TRIPLES.read_text().splitlines()]
    rows = [row for row in rows if row["category"] == "multiple_choice"]
    assert len(rows) == 27
    for row in rows:
        found = judge(row["prediction"], row["gold"], form=row["form"])
        assert (found.verdict is Verdict.RIGHT) == row["label"], (row, found)


@pytest.mark.skipif(not MMLU.is_file(), reason="no MMLU data next to the tree")
def test_each_gold_of_mmlu_is_found_by_letter_and_by_text_and_no_other() -> None:
    by_text = 0
    for row in [json.loads(line) for line in MMLU.read_text().splitlines()][::3]:
        parts = re.split(r"\n\(([A-Z])\) ", row["problem"])
        options = dict(zip(parts[1::2], parts[2::2], strict=True))
        gold = {"letter": row["answer"], "options": options}
        check_gold(row["answer"])
        check_gold(gold)
        for letter, text in options.items():
            right = letter == row["answer"]
            line = " ".join(text.split())
            for said in (
                f"The answer is ({letter}).",
                rf"\boxed{{{letter}}}",
                f"...\n({letter}) {line}",
            ):
                assert (judge(said, gold).verdict is Verdict.RIGHT) == right, (said, gold)
            found = judge(text, gold, form="answer").verdict
            # "C" is letter C, whatever option reads "C".
            assert right or found is not Verdict.RIGHT or text in options, (text, gold)
            by_text += found is Verdict.RIGHT
    assert by_text > 950
