from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.math import accepts, check_gold, judge, read


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
        ("it may be 71 or 72 or even 73", 72, Verdict.NO_ANSWER),
        ("", 72, Verdict.NO_ANSWER),
        (r"\boxed{}", 72, Verdict.NO_ANSWER),
        (r"72 would be the gold, 72! but \boxed{73}", 72, Verdict.WRONG),
        (r"<think>\boxed{72}</think> #### 5", 72, Verdict.WRONG),
        (r"\boxed{72} or \boxed{73}", 72, Verdict.WRONG),
        (r"\boxed{__import__('os').system('true')}", 72, Verdict.WRONG),
        (r"\boxed{" + "9" * 20_001 + "}", 72, Verdict.WRONG),
        (r"\boxed{9**9**9**9}", 72, Verdict.WRONG),
    ],
)
def test_judge(text: str, gold: object, verdict: Verdict) -> None:
    assert judge(text, gold).verdict is verdict


def test_the_last_number_counts_only_where_it_is_asked_for() -> None:
    assert judge("it is 72", 72, markers=("last_number",)).verdict is Verdict.RIGHT


@pytest.mark.parametrize(
    "gold",
    ["", "  ", "####", r"work \boxed{}", "...", r"\frac{1}{2", None, True, [1], float("nan"),
     "1" * 20_001],
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


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("33.3", r"\frac{100}{3}", True),
        ("85.71", "85.714", True),
        ("85.714", "85.71", False),  # fewer digits than the gold
        (r"\frac{100}{3}", "33.3", False),  # an exact gold
        ("3.14159", r"\pi", True),
        (r"\pi", "3.14159", False),
        ("0.29", "0.2951", False),
        ("28%", "0.28", True),
        ("41.4%", r"\sqrt{2}-1", True),
        ("41.4%", r"\sqrt{2}-0.9", False),
        ("0.1", "10%", True),
        ("20", "20%", True),
        ("20", "2000%", False),
        ("1", "100%", False),
        (r"(0.29, 1.5)", "(0.2902, 1.5)", True),
        ("5", "4.9999", False),
    ],
)
def test_what_a_decimal_or_a_percentage_accepts_as_a_gold(
    gold: str, answer: str, verdict: bool
) -> None:
    assert accepts(gold, answer)[0] is verdict


def test_a_bare_answer_is_read_whole() -> None:
    assert judge("5 or 6", 5, form="answer").verdict is Verdict.WRONG
    assert judge("so it is 5", 5, form="answer").verdict is Verdict.WRONG
    assert judge(" 5 ", 5, form="answer").verdict is Verdict.RIGHT
    assert judge("  ", 5, form="answer").verdict is Verdict.NO_ANSWER


HOSTILE = [
    "9^{9^{9^{9}}}", "((7!)!)!", r"\prod_{k=1}^{10^8} k", r"\binom{10^9}{5\cdot10^8}",
    r"\int_0^{10} e^{x^x} dx", r"\sum_{n=1}^{\infty} \frac{\sin(n^n)}{n!}", "F_{10^{12}}",
    r"\lfloor 10^{10^{10}} \rfloor", r"\gcd(10^{10^8}, 7^{10^7})", "(x+1)**(10**6)",
    r"\prod_{k=1}^{3}" * 20 + "k", "(" * 5000 + "5", "{" * 5000,
    "-" * 5000 + "6", r"\sqrt" * 1000, r"\frac" * 1000, "^" * 3000,
    "x^" * 2000 + "x", "7/" * 2000 + "7", "x+" * 4000 + "x", r"\left(" * 1000, "|" * 999,
    r"[0,1)\cup" * 600 + "[0,1)", r"(1\pm1)" * 50, "," * 5000, "$" * 5000, "\\" * 5000,
    " " * 9000,
    r"\boxed{" * 800 + "5" + "}" * 800, "1" * 19_000, "0." + "3" * 19_000, "\ud800",
    "\udf01+1", "5̶ 6",
    "a" * 9999,
    r"\begin{pmatrix}" * 300, r"\sin(" * 300 + "x" + ")" * 300, r"\text{" * 400, "()",
    "f()",
    "x_",
    r"\sqrt[",
    r"\sum_{", r"\int_0^1", r"\lim_{x", r"\binom{", "0^{-1}", r"\log_1 5", r"\sqrt[0]{5}",
    r"\max()", "1e", "..",
]  # fmt: skip


@pytest.mark.parametrize("answer", HOSTILE, ids=lambda text: repr(text[:12]))
@pytest.mark.parametrize("gold", ["7", r"\sqrt{2}", "x+1", "(0,1]", r"\{1,2\}", "y=2x"])
def test_hostile_answers_are_wrong_and_never_raise(answer: str, gold: str) -> None:
    for text, form in ((answer, "answer"), (rf"so \boxed{{{answer}}}", "response")):
        found = judge(text, gold, form=form)  # type: ignore[arg-type]
        assert found.verdict in (Verdict.WRONG, Verdict.NO_ANSWER)


def test_model_text_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for text in (
        f"__import__('os').system('touch {mark}')",
        f"exec(\"open('{mark}', 'w')\")",
        rf"\input{{|touch {mark}}}",
        f"(lambda: open('{mark}', 'w'))()",
    ):
        for form in ("answer", "response"):
            judge(rf"\boxed{{{text}}}", r"\sqrt{2}", form=form)  # type: ignore[arg-type]
    assert not mark.exists()


def test_threads_agree_with_the_main_thread() -> None:
    pairs = [
        (r"\sqrt{12}", r"2\sqrt3"), (r"\sin 2x", r"2\sin x\cos x"), ("x>5", r"(5,\infty)"),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"), (r"\lim_{x\to0}\frac{\sin x}{x}", "1"),
    ] * 20  # fmt: skip
    here = [accepts(a, b) for a, b in pairs]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda pair: accepts(*pair), pairs)) == here
