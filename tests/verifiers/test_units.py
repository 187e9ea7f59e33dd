from fractions import Fraction
from typing import Any

import pytest

from llmalign.verifiers import units
from llmalign.verifiers.units import NotAUnit, named, parse


@pytest.mark.parametrize(
    ("text", "factor", "powers"),
    [
        ("m/s^2", Fraction(1), {"m": 1, "s": -2}),
        ("m s-2", Fraction(1), {"m": 1, "s": -2}),
        ("km*h^-1", Fraction(5, 18), {"m": 1, "s": -1}),
        ("cm2", Fraction(1, 10_000), {"m": 2}),
        ("square inches", Fraction("0.00064516"), {"m": 2}),
        ("feet squared", Fraction("0.09290304"), {"m": 2}),
        ("miles per hour", Fraction("0.44704"), {"m": 1, "s": -1}),
        ("kg m^2/(s^2 A)", Fraction(1), {"kg": 1, "m": 2, "s": -2, "A": -1}),
        ("(m/s)^2", Fraction(1), {"m": 2, "s": -2}),
        ("mm", Fraction(1, 1000), {"m": 1}),
        ("Mm", Fraction(10**6), {"m": 1}),
        ("min", Fraction(60), {"s": 1}),
        ("ms", Fraction(1, 1000), {"s": 1}),
        ("m s", Fraction(1), {"m": 1, "s": 1}),
        ("mol", Fraction(1), {"mol": 1}),
        ("cd", Fraction(1), {"cd": 1}),
        ("dam", Fraction(10), {"m": 1}),
        ("Kilometres", Fraction(1000), {"m": 1}),
        ("micrograms", Fraction(1, 10**9), {"kg": 1}),
        ("V A", Fraction(1), {"kg": 1, "m": 2, "s": -3}),
        ("red apples", Fraction(1), {"red": 1, "apple": 1}),
        ("m/m", Fraction(1), {}),
    ],
)
def test_a_unit_has_its_factor_and_dimensions(
    text: str, factor: Fraction, powers: dict[str, int]
) -> None:
    unit = parse(text, divides_all=True)
    assert (unit.factor, unit.powers) == (factor, powers)


def test_a_slash_divides_by_the_next_unit_or_by_all_that_follows() -> None:
    assert parse("J/kg K", divides_all=True) == parse("J/(kg K)", divides_all=False)
    assert parse("J/kg K", divides_all=False) == parse("J K/kg", divides_all=False)


def test_an_offset_counts_only_where_the_unit_stands_alone() -> None:
    assert named("degC").offset == Fraction("273.15")
    assert parse("(degC)", divides_all=True).offset == Fraction("273.15")
    for text in ("J/degC", "degC m", "m degC", "degC^2"):
        assert parse(text, divides_all=True).offset == 0


@pytest.mark.parametrize(
    "text",
    ["", "x", "m^", "^2", "m^x", "m^99", "m^1.5", "(m", "m)", "m/", "*", "m&s", "()", "m**2",
     "((((((((m))))))))", "m" * 300, "5", "m 5", "m^2^2^", "__import__('os')", "m;s"],
)  # fmt: skip
def test_what_is_no_unit_is_refused(text: str) -> None:
    with pytest.raises(NotAUnit):
        parse(text, divides_all=True)


def test_the_table_agrees_with_pint() -> None:
    pint = pytest.importorskip("pint")
    registry: Any = pint.UnitRegistry(non_int_type=Fraction)
    bases = {"m": "meter", "kg": "kilogram", "s": "second", "A": "ampere", "K": "kelvin",
             "mol": "mole", "cd": "candela", "bit": "bit"}  # fmt: skip
    theirs = {"M": "molar", "kn": "knot", "u": "dalton", "amu": "dalton", "Wh": "watt_hour",
              "h": "hour", "hr": "hour", "wk": "week", "y": "year", "yr": "year", "kmh": "kph",
              "au": "astronomical_unit", "AU": "astronomical_unit", "gal": "gallon",
              "qt": "quart", "pt": "pint", "Torr": "torr", "Btu": "Btu_it", "BTU": "Btu_it",
              "gramme": "gram"}  # fmt: skip
    # Pint counts decays, has Gaussian gauss, the survey acre and another parsec.
    other = {"Bq", "becquerel", "Ci", "curie", "G", "gauss", "acre", "pc", "parsec"}
    compared = 0
    for name, unit in {**units._BY_SYMBOL, **units._BY_NAME}.items():
        if name in other or set(unit.powers) - set(bases):
            continue
        quantity = registry.Quantity(Fraction(1), theirs.get(name, name)).to_base_units()
        found = {str(k): v for k, v in quantity._units.items() if k != "radian"}
        assert found == {bases[base]: power for base, power in unit.powers.items()}, name
        assert float(quantity.magnitude) == pytest.approx(float(unit.factor), rel=1e-10), name
        compared += 1
    assert compared > 130
