import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.math import check_gold, equal, judge, read

SAME = [
    ("1/2", "0.5"),
    (r"\frac{1}{2}", ".5"),
    ("7", "007"),
    ("7", "+7"),
    ("-5", "−5"),
    ("1000", "1,000"),
    ("1000", "1 000"),
    ("12345", "12,345.0"),
    ("1000.99", r"\$1,000.99"),
    ("3/2", r"1\frac{1}{2}"),
    ("-5/4", r"-1\frac{1}{4}"),
    ("2.625", "2 5/8"),
    ("28%", "28"),
    ("28%", "0.28"),
    ("28%", r"28.0\%"),
    ("1e-10", r"1 \times 10^{-10}"),
    ("1000000", "10^6"),
    ("11", "x=11"),
    ("11", "5+6 = 11"),
    ("5 cm", "5"),
    (r"\frac{1}{2^{99}}", "2^{-99}"),
    ("1/12", "0.0833333333333333"),
    ("1/3", r"0.\overline{3}"),
    ("2½", "2.5"),
    ("ellipse", r"\text{ellipse}"),
    ("(1, 2)", "(1,2)"),
    (r"\sqrt{3}", "3^{1/2}"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\{1,2\}", r"\{2,1\}"),
]

DIFFERENT = [
    ("5", "-5"),
    ("1.5", "15"),
    ("12345", "12.345"),
    ("1/2", "2/1"),
    ("1/3", "0.33"),
    ("100", "1 00"),
    ("1", "100"),
    ("20", "0.2"),
    ("28%", "0.028"),
    ("28%", "2800%"),
    ("5", "5 or 6"),
    ("5", r"5 \text{ or } 6"),
    ("5", "5, 6"),
    ("5", r"\neq 5"),
    ("5", r"\geq 5"),
    ("5", "5x"),
    ("5", "5_6"),
    ("204_5", "204_6"),
    ("4", "x^2+y^2=4"),
    ("6", "2+3=6"),
    (r"5 \text{ cm}", r"5 \text{ m}"),
    ("5 cm", "5 m"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    ("123456789123456789", "123456789123456788"),
    ("9007199254740993", "9007199254740992"),
    ("-1\\frac{1}{4}", "-0.75"),
    ("2\\frac{5}{8}", "10/8"),
    ("0.999", "1"),
    ("(1,2)", "(2,1)"),
    ("x^2", "2x"),
    ("0.0833333333333333", "0.0833333333333334"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_equal_answers_are_equal_both_ways_round(a: str, b: str) -> None:
    assert equal(a, b)[0] is True
    assert equal(b, a)[0] is True


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_near_misses_differ_both_ways_round(a: str, b: str) -> None:
    assert equal(a, b)[0] is False
    assert equal(b, a)[0] is False


@pytest.mark.parametrize("answer", sorted({a for pair in SAME + DIFFERENT for a in pair}))
def test_an_answer_accepts_itself(answer: str) -> None:
    assert equal(answer, answer)[0] is True


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("0.5", "1/2"),
        (r"\frac{2}{4}", "1/2"),
        ("1,000", "1000"),
        ("28 percent", "28%"),
        ("x + 1", "x+1"),
    ],
)
def test_equal_numbers_have_equal_normal_forms(answer: str, normal: str) -> None:
    assert read(answer).normal_form == normal
    assert judge(rf"\boxed{{{answer}}}", "3").answer == normal


@pytest.mark.parametrize(
    ("text", "gold", "verdict"),
    [
        (r"\boxed{72}", "48/2=24 clips, 48+24=72\n#### 72", Verdict.RIGHT),
        (r"\boxed{72}", r"hence \boxed{72}", Verdict.RIGHT),
        ("#### 72", 72, Verdict.RIGHT),
        ("#### 0.5", 0.5, Verdict.RIGHT),
        ("#### 71", 72, Verdict.WRONG),
        ("it is 72, I think", 72, Verdict.NO_ANSWER),
        ("", 72, Verdict.NO_ANSWER),
        (r"\boxed{}", 72, Verdict.NO_ANSWER),
        (r"72 would be the gold, 72! but \boxed{73}", 72, Verdict.WRONG),
        (r"<think>\boxed{72}</think> #### 5", 72, Verdict.WRONG),
        (r"\boxed{72} or \boxed{73}", 72, Verdict.WRONG),
        (r"\boxed{__import__('os').system('true')}", 72, Verdict.WRONG),
        (r"\boxed{" + "9" * 2001 + "}", 72, Verdict.UNDECIDED),
        (r"\boxed{9**9**9**9}", 72, Verdict.UNDECIDED),
    ],
)
def test_judge(text: str, gold: object, verdict: Verdict) -> None:
    assert judge(text, gold).verdict is verdict


def test_the_last_number_counts_only_where_it_is_asked_for() -> None:
    assert judge("it is 72", 72, forms=("last_number",)).verdict is Verdict.RIGHT


@pytest.mark.parametrize(
    "gold",
    ["", "  ", "####", r"work \boxed{}", "...", r"\frac{1}{2", None, True, [1], float("nan"),
     "1" * 3000],
    ids=lambda gold: repr(gold)[:12],
)  # fmt: skip
def test_an_unreadable_gold_is_a_fault_of_the_data(gold: object) -> None:
    with pytest.raises(GoldError, match="gold is"):
        check_gold(gold)
    with pytest.raises(GoldError):
        judge(r"\boxed{}", gold)


@pytest.mark.parametrize("gold", ["72", 72, -0.5, "x+1", r"\infty", "infinitely many", "#### 3"])
def test_a_readable_gold_passes(gold: object) -> None:
    check_gold(gold)
