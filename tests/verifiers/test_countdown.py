import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.countdown import check_gold, judge

GOLD = {"nums": [3, 7, 25], "target": 46}  # 25 + 3 * 7


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<answer>25 + 3 * 7</answer>", Verdict.RIGHT),
        ("<answer>25 + 3 × 7 = 46</answer>", Verdict.RIGHT),
        ("<answer>(7*3) + 25</answer>", Verdict.RIGHT),
        (r"\boxed{25 + 3 \times 7}", Verdict.RIGHT),
        ("#### 25+7*3", Verdict.RIGHT),
        ("I see:\n25 + 3*7 = 46\n", Verdict.RIGHT),
        ("<answer>1</answer><answer>25+3*7</answer>", Verdict.RIGHT),
        ("<answer>25+3*7</answer><answer>25-3*7</answer>", Verdict.WRONG),
        ("<answer>25 - 3 * 7</answer>", Verdict.WRONG),
        ("<answer>46</answer>", Verdict.WRONG),
        ("<answer>25 + 21</answer>", Verdict.WRONG),
        ("<answer>25+3*7+3-3</answer>", Verdict.WRONG),
        ("<answer>25 + 7 * 3 * 1</answer>", Verdict.WRONG),
        ("<answer>25 - 7 * 3 = 46</answer>", Verdict.WRONG),
        ("<answer>3 ** 7 + 25</answer>", Verdict.WRONG),
        ("<answer>3! + 7 + 25</answer>", Verdict.WRONG),
        ("<answer>the sum</answer>", Verdict.NO_ANSWER),
        ("<answer>25/(3-3)*7</answer>", Verdict.NO_ANSWER),
        ("<answer>__import__('os')</answer>", Verdict.NO_ANSWER),
        ("", Verdict.NO_ANSWER),
        ("<think>25+3*7</think>", Verdict.NO_ANSWER),
        ("<answer>" + "1+" * 400 + "1</answer>", Verdict.UNDECIDED),
        ("<answer>" + "(" * 150 + "1" + ")" * 150 + "</answer>", Verdict.UNDECIDED),
    ],
)
def test_judge(text: str, verdict: Verdict) -> None:
    assert judge(text, GOLD).verdict is verdict


def test_fractions_on_the_way_are_exact() -> None:
    # 8 / (3 - 8 / 3) = 8 / (1 / 3) = 24, which floats miss.
    gold = {"nums": [3, 3, 8, 8], "target": 24}
    assert judge("<answer>8/(3-8/3)</answer>", gold).verdict is Verdict.RIGHT
    assert 8 / (3 - 8 / 3) != 24


@pytest.mark.parametrize(
    "gold",
    [None, 46, {"nums": [1]}, {"nums": [], "target": 1}, {"nums": ["1"], "target": 1},
     {"nums": [1], "target": "1"}, {"nums": [True], "target": 1}],
    ids=repr,
)  # fmt: skip
def test_a_gold_of_another_form_is_refused(gold: object) -> None:
    with pytest.raises(GoldError):
        check_gold(gold)
