from fractions import Fraction

import pytest

from llmalign.verifiers.rational import NotRational, TooLarge, evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", Fraction(12)),
        (".5", Fraction(1, 2)),
        ("1e-3", Fraction(1, 1000)),
        ("2+3*4", Fraction(14)),
        ("(2+3)*4", Fraction(20)),
        ("7-3-2", Fraction(2)),
        ("8/4/2", Fraction(1)),
        ("-2^2", Fraction(-4)),
        ("2^3^2", Fraction(512)),
        ("2^{-3}", Fraction(1, 8)),
        ("3*-2", Fraction(-6)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"\frac12", Fraction(1, 2)),
        (r"\frac1{72}", Fraction(1, 72)),
        (r"\frac{\frac{1}{2}}{\frac{3}{4}}", Fraction(2, 3)),
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"16.1\overline{6}", Fraction(97, 6)),
        (r"0.\dot{3}", Fraction(1, 3)),
        ("5!", Fraction(120)),
        ("0.1+0.2", Fraction(3, 10)),
        ("9007199254740993", Fraction(9007199254740993)),
    ],
)
def test_arithmetic_is_exact(text: str, value: Fraction) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "1 00", "2(3)", "1/0", "0^0", "0^{-1}", "2^{1/2}", "(1", "1)", "1+", "(1}", "3!!",
     "(1/2)!", r"\frac{1}", "__import__('os')", "1.2.3", "1,2"],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(NotRational):
        evaluate(text)


@pytest.mark.parametrize(
    "text",
    ["9^9^9^9", "10^10^10", "1E+1000000000", "99999999!", "2^{100000}",
     "1" * 4000, "(" * 500 + "1" + ")" * 500, "(10^1000)*(10^1000)*(10^1000)*(10^1000)"],
    ids=["tower", "tens", "exponent", "factorial", "power", "digits", "brackets", "product"],
)  # fmt: skip
def test_values_beyond_the_caps_are_refused_before_they_are_computed(text: str) -> None:
    with pytest.raises(TooLarge):
        evaluate(text)


def test_every_number_read_is_listed_in_order() -> None:
    literals: list[Fraction] = []
    evaluate(r"3*(7-2)/\frac{4}{5}", literals)
    assert literals == [3, 7, 2, 4, 5]
