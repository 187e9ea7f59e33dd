import time
from typing import Any

import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.text import Mode, check_gold, judge, normalise_text


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        pytest.param("The Eiffel Tower.", "eiffel tower", True, id="case article full stop"),
        pytest.param("Eiffel  \n tower!", "the Eiffel Tower", True, id="whitespace"),
        pytest.param("U.S.A", "USA", True, id="points in a word"),
        pytest.param("ﬁne", "fine", True, id="ligature"),
        pytest.param("ＡＢＣ", "abc", True, id="full width"),
        pytest.param("Straße", "STRASSE", True, id="case folding"),
        pytest.param("cafe\u0301", "café", True, id="combining accent"),
        pytest.param("“Hamlet”", "Hamlet", True, id="curly quotes"),
        pytest.param("1,000", "1000", True, id="thousands"),
        pytest.param("3.5", "3.5", True, id="decimal"),
        pytest.param("cafe", "café", False, id="an accent is a letter"),
        pytest.param("3.5", "35", False, id="a point in a number"),
        pytest.param("1,5", "15", True, id="a comma elsewhere goes"),
        pytest.param("-5", "5", False, id="a minus"),
        pytest.param("−5", "-5", True, id="a typographic minus"),
        pytest.param("10-5", "105", True, id="a hyphen between digits goes"),
        pytest.param("two", "2", False, id="number words"),
        pytest.param("Eiffel", "Eiffel Tower", False, id="a part"),
        pytest.param("Eiffel Tower Paris", "Eiffel Tower", False, id="more"),
        pytest.param("Paris or Rome", "Paris", False, id="two answers"),
        pytest.param("theatre", "atre", False, id="an article inside a word"),
        pytest.param("A", "the", False, id="articles alone differ"),
        pytest.param("!", "?", False, id="punctuation alone differs"),
        pytest.param("The", "the!", True, id="an article alone"),
        pytest.param("7", 7, True, id="a number as gold"),
    ],
)
def test_exact(answer: str, gold: Any, right: bool) -> None:
    found = judge(answer, gold, form="answer")
    assert found.verdict is (Verdict.RIGHT if right else Verdict.WRONG)


def test_any_of_several_golds_will_do() -> None:
    golds = ["New York City", "NYC"]
    assert judge("N.Y.C.", golds, form="answer").verdict is Verdict.RIGHT
    assert judge("York", golds, form="answer").verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("answer", "mode", "threshold", "right"),
    [
        ("in the city of Paris, France", "contains", 0.8, True),
        ("comparison", "contains", 0.8, False),  # words, not letters
        ("Par is", "contains", 0.8, False),
        ("Paris", "f1", 1.0, True),
        # 2 * 1 / (2 + 1) = 0.667
        ("Paris France", "f1", 0.66, True),
        ("Paris France", "f1", 0.67, False),
        ("Paris Paris", "f1", 0.67, False),
        ("Rome", "f1", 0.01, False),
    ],
)
def test_contains_and_f1(answer: str, mode: Mode, threshold: float, right: bool) -> None:
    found = judge(answer, "Paris", mode=mode, threshold=threshold, form="answer")
    assert found.verdict is (Verdict.RIGHT if right else Verdict.WRONG)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Paris", Verdict.RIGHT),
        ("The answer is Paris.", Verdict.RIGHT),
        ("Long thoughts.\nAnswer: Paris", Verdict.RIGHT),
        ("<think>Rome</think><answer> Paris </answer>", Verdict.RIGHT),
        (r"So \boxed{\text{Paris}} it is", Verdict.WRONG),  # the answer keeps its LaTeX
        (r"So \boxed{Paris} it is", Verdict.RIGHT),
        ("#### Paris", Verdict.RIGHT),
        ("<answer>Rome</answer> The answer is Paris", Verdict.WRONG),
        ("Paris is nice.\nSo is Rome.", Verdict.NO_ANSWER),
        ("<think>Paris</think>", Verdict.NO_ANSWER),
        ("", Verdict.NO_ANSWER),
    ],
)
def test_the_answer_of_a_response(text: str, verdict: Verdict) -> None:
    assert judge(text, "Paris").verdict is verdict


def test_normalisation_is_stable() -> None:
    for text in ["The -3.50 a-b, 1,000,000 (an) x.", "the", "?!", "", "a\0b\1c", "１２．５", "½"]:
        assert normalise_text(normalise_text(text)) == normalise_text(text)


@pytest.mark.parametrize(
    "text",
    ["the " * 30_000, "<answer>" * 20_000, "-" * 90_000, "1,000" * 20_000, "\ud800", "\0\1",
     "ﷺ" * 9_000, "#### " * 20_000],
    ids=lambda text: repr(text[:8]),
)  # fmt: skip
def test_no_text_raises_or_takes_long(text: str) -> None:
    began = time.perf_counter()
    for mode in ("exact", "contains", "f1"):
        judge(text, "gold", mode=mode)
        judge(text, "gold", mode=mode, form="answer")
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("bad", [None, "", "  ", [], ["a", ""], [["a"]], True, {"a": 1}, [None]])
def test_an_unusable_gold_is_refused(bad: Any) -> None:
    with pytest.raises(GoldError):
        check_gold(bad)


def test_a_threshold_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold is 0"):
        judge("a", "a", threshold=0)
