"""Properties that hold for every answer, on answers made at random."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.math import equal, judge

integers = st.integers(-99, 99)


def _written(value: int) -> str:
    return str(value) if value >= 0 else f"({value})"


@st.composite
def arithmetic(draw: st.DrawFn) -> tuple[str, Fraction]:
    """An expression in LaTeX and its value, worked out here by exact fractions."""
    if draw(st.integers(0, 9)) < 6:
        value = draw(integers)
        return _written(value), Fraction(value)
    left, right = draw(arithmetic()), draw(arithmetic())
    operator = draw(st.sampled_from(["+", "-", r"\cdot ", r"\frac", "^2"]))
    if operator == "^2":
        return f"({left[0]})^{{2}}", left[1] ** 2
    if operator == r"\frac":
        if not right[1]:
            return left
        return rf"\frac{{{left[0]}}}{{{right[0]}}}", left[1] / right[1]
    values = {"+": left[1] + right[1], "-": left[1] - right[1], r"\cdot ": left[1] * right[1]}
    return f"({left[0]}){operator}({right[0]})", values[operator]


@settings(max_examples=60, deadline=None)
@given(arithmetic())
def test_arithmetic_equals_its_value_and_nothing_near(expression: tuple[str, Fraction]) -> None:
    text, value = expression
    assert equal(text, str(value))[0] is True
    assert equal(text, str(value + 1))[0] is False
    assert equal(rf"\sqrt{{2}}+{text}", rf"{value}+\sqrt{{2}}")[0] is True
    assert equal(rf"\sqrt{{2}}+{text}", rf"{value + 1}+\sqrt{{2}}")[0] is False


@settings(max_examples=40, deadline=None)
@given(st.lists(integers, min_size=1, max_size=4), integers)
def test_a_polynomial_equals_its_factors(roots: list[int], scale: int) -> None:
    coefficients = [scale or 1]
    for root in roots:
        shifted = [*coefficients, 0]
        coefficients = [a - root * b for a, b in zip(shifted, [0, *coefficients], strict=True)]
    degree = len(coefficients) - 1
    expanded = "+".join(f"({c})x^{{{degree - k}}}" for k, c in enumerate(coefficients))
    factored = f"{_written(scale or 1)}" + "".join(f"(x-{_written(root)})" for root in roots)
    assert equal(expanded, factored)[0] is True
    assert equal(expanded + "+1", factored)[0] is False


@settings(max_examples=100, deadline=None)
@given(st.lists(integers, min_size=1, max_size=8, unique=True), st.randoms())
def test_a_set_has_no_order_and_no_missing_part(values: list[int], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    left = rf"\{{{', '.join(map(str, values))}\}}"
    assert equal(left, ", ".join(map(str, shuffled)))[0] is True
    if len(values) > 1:
        assert equal(left, ", ".join(map(str, shuffled[1:])))[0] is False


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_judged_without_raising_and_the_same_both_ways(a: str, b: str) -> None:
    assert equal(a, b)[0] == equal(b, a)[0]
    try:
        found = judge(rf"\boxed{{{a}}}", b)
    except GoldError:
        return
    assert isinstance(found.verdict, Verdict)


PIECES = r"""1 2 3 x y n e i + - * / ^ ( ) [ ] { } , = < \frac \sqrt \sin \pi \infty \cup \le \pm |
    ! _ \text{ \{ \} \begin{pmatrix} & \\ \end{pmatrix} \sum_{k=1}^{3} \in and or : %
    ^\circ""".split()
ANSWERS = ["7", r"\sqrt{2}", "x+1", "(0,1]", r"\{1,2\}", "y=2x"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30), st.sampled_from(ANSWERS))
def test_any_sequence_of_tokens_is_judged_without_raising(tokens: list[str], gold: str) -> None:
    text = " ".join(tokens)
    assert isinstance(judge(text, gold, form="answer").verdict, Verdict)
    assert equal(text, gold)[0] == equal(gold, text)[0]
