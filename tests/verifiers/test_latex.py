import pytest

from llmalign.verifiers.latex import normalise, split_unit


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        (r"$\dfrac{1}{2}$", r"\frac{1}{2}"),
        (r"\left( 1 \right)", "( 1 )"),
        ("−5", "-5"),
        ("－５", "-5"),
        ("\u200b5\ufeff", "5"),
        ("2½", "2 1/2"),
        ("x²", "x^{2}"),
        ("10⁻³", "10^{-3}"),
        (r"2\times 3", "2* 3"),
        ("2**3", "2^3"),
        ("**12**", "12"),
        (r"12{,}345", "12,345"),
        (r"11,\! 111", "11,111"),
        (r"7\,425", "7 425"),
        ("12.", "12"),
        (r"28\%", "28%"),
        (r"\mathrm{E}", r"\text{E}"),
        (r"x\leqslant 3", r"x\le 3"),
        ("√(2)", r"\sqrt{2}"),
    ],
)
def test_many_spellings_become_one(written: str, normal: str) -> None:
    assert normalise(written) == normal


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("5", "5", None),
        ("28%", "28", "%"),
        ("28 percent", "28", "%"),
        (r"\$18.90", "18.90", "dollar"),
        (r"-\$5", "-5", "dollar"),
        ("5 dollars", "5", "dollar"),
        (r"5 \text{ cm}^2", "5", "cm^2"),
        (r"5 \text{ square meters}", "5", "m^2"),
        ("5 m", "5", "m"),
        ("5m", "5m", None),
        ("5x", "5x", None),
        ("5 or 6", "5 or 6", None),
        (r"5 \text{ or more}", r"5 \text{ or more}", None),
        (r"12^{\text{th}}", "12", None),
        (r"45^\circ", "45", "degree"),
        (r"3 \text{ apples}", "3", "apple"),
    ],
)
def test_units_are_split_off_only_where_they_are_units(
    text: str, number: str, unit: str | None
) -> None:
    assert split_unit(text) == (number, unit)
