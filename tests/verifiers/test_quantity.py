# ruff: noqa: E501  (a table reads best with one case a line)
import time
from typing import Any

import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.quantity import check_gold, judge


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("980 cm/s^2", "9.8 m/s^2", True),
        ("9.8 m s^-2", "9.8 m/s^2", True),
        ("9.8 m·s⁻²", "9.8 m/s^2", True),
        (r"9.8 \text{ m/s}^2", "9.8 m/s^2", True),
        (r"9.8\ \mathrm{m\,s^{-2}}", "9.8 m/s^2", True),
        (r"$9.8\,\frac{\text{m}}{\text{s}^2}$", "9.8 m/s^2", True),
        ("9.8 m/s", "9.8 m/s^2", False),
        ("9.8", "9.8 m/s^2", False),
        ("-9.8 m/s^2", "9.8 m/s^2", False),
        ("180 min", "3 h", True),
        ("180 minutes", "3 hours", True),
        ("180 m", "3 h", False),
        ("5 m", "5 cm", False),
        ("5 cm", "5 m", False),
        ("5 Mm", "5 mm", False),
        (r"3.0 \times 10^{8}\,\mathrm{m/s}", "3e8 m/s", True),
        ("300 000 km/s", "3e8 m/s", True),
        ("299,792,458 m/s", "3e8 m/s", False),
        ("299,792,458 m/s", "3.0e8 m/s", True),
        (r"10^{5}\ \text{Pa}", "1 bar", True),
        ("77 °F", "25 °C", True),
        (r"25^\circ\text{C}", "25 °C", True),
        ("25 degrees Celsius", "25 °C", True),
        ("298.15 K", "25 °C", True),
        ("25 K", "25 °C", False),
        ("25°", "25 °C", False),
        ("-40 °F", "-40 °C", True),
        ("4.186 kJ/(kg K)", "4186 J/kg°C", True),
        ("5000 ohms", r"5\ \text{k}\Omega", True),
        (r"5\,\mu\text{m}", "0.005 mm", True),
        ("5 µm", "5 μm", True),
        ("0.5 nm", "5 Å", True),
        ("3.6 MJ", "1 kWh", True),
        ("5 kg m2 s-2", "5 J", True),
        ("2 1/2 h", "150 min", True),
        (r"2\frac{1}{2}\text{ hours}", "150 min", True),
        ("5 ft 3 in", "63 in", True),
        ("1 h and 30 min", "90 min", True),
        ("1 h 30 m", "90 min", False),
        ("1 h -30 min", "30 min", False),
        ("$5", "5 dollars", True),
        ("-$5.00", "-5 dollars", True),
        (r"\$5", "5 euros", False),
        ("5 apples", "5 Apples", True),
        ("5 apple", "5 pears", False),
        (r"50\%", "50 %", True),
        ("0.5", "50%", False),
        ("5", "5", True),
        ("5 m", "5", False),
        ("v = 5 m/s", "5 m/s", True),
        ("F = 2 kg * 3 m/s^2 = 6 N", "6 N", True),
        ("x ≈ 5 m", "5 m", True),
        ("500 cm = 5 m", "5 m", True),
        ("4 m = 5 m", "5 m", False),
        ("5 m or 6 m", "5 m", False),
        ("5 m, 6 m", "5 m", False),
        ("5 m 6 m", "11 m", True),
        ("5 (m", "5 m", False),
        ("five m", "5 m", False),
        ("m", "5 m", False),
        ("5 m + 0 m", "5 m", False),
        ("__import__('os') m", "5 m", False),
    ],
)
def test_judge(answer: str, gold: str, right: bool) -> None:
    found = judge(answer, gold, form="answer")
    assert found.verdict is (Verdict.RIGHT if right else Verdict.WRONG), found


@pytest.mark.parametrize(
    ("answer", "gold", "rel_tol", "right"),
    [
        # A gold with decimals admits half a unit in the last place, in its own unit.
        ("9.81 m/s^2", "9.8 m/s^2", 0.0, True),
        ("9.85 m/s^2", "9.8 m/s^2", 0.0, True),
        ("9.86 m/s^2", "9.8 m/s^2", 0.0, False),
        ("9.7 m/s^2", "9.8 m/s^2", 0.0, False),
        ("9.84 m/s^2", "9.80 m/s^2", 0.0, False),
        ("5.1 m", "5 m", 0.0, False),
        ("4.83 km", "3 mi", 0.0, False),  # 4.828032 km
        ("4.83 km", "3 mi", 0.001, True),
        ("5.05 m", "5 m", 0.01, True),
        ("5.06 m", "5 m", 0.01, False),
        ("-4.95 m", "-5 m", 0.01, True),
        # Of degrees Celsius, not of kelvins.
        ("26 °C", "25 °C", 0.01, False),
    ],
)
def test_tolerance(answer: str, gold: str, rel_tol: float, right: bool) -> None:
    found = judge(answer, gold, form="answer", rel_tol=rel_tol)
    assert found.verdict is (Verdict.RIGHT if right else Verdict.WRONG), found


def test_a_missing_unit_may_be_allowed_but_never_a_wrong_one() -> None:
    options: Any = {"form": "answer", "unit": "optional"}
    assert judge("5", "5 m", **options).verdict is Verdict.RIGHT
    assert judge("6", "5 m", **options).verdict is Verdict.WRONG
    assert judge("5 s", "5 m", **options).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (r"So $a = \boxed{9.8\text{ m/s}^2}$.", Verdict.RIGHT),
        ("The answer is 9.8 m/s^2.", Verdict.RIGHT),
        ("Long.\n#### 980 cm/s^2", Verdict.RIGHT),
        ("<think>5 m</think><answer>9.8 m/s^2</answer>", Verdict.RIGHT),
        ("9.8 m/s^2", Verdict.RIGHT),
        ("The answer is 5 m. Wait, the answer is 9.8 m/s^2.", Verdict.RIGHT),
        ("It falls\nfast.", Verdict.NO_ANSWER),
        ("", Verdict.NO_ANSWER),
        ("The answer is fast.", Verdict.WRONG),
    ],
)
def test_the_answer_of_a_response(text: str, verdict: Verdict) -> None:
    assert judge(text, "9.8 m/s^2").verdict is verdict


def test_equal_quantities_have_equal_answers() -> None:
    for same in (["980 cm/s^2", "9.8 m/s^2", "0.0098 km s^-2"], ["77 °F", "25 °C", "298.15 K"],
                 ["1/3 h", "20 min"], ["0 m", "0 km"]):  # fmt: skip
        assert len({judge(text, "1 m", form="answer").answer for text in same}) == 1
    assert judge("980 cm/s^2", "1 m", form="answer").answer == "9.8e0 m^1 s^-2"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("1e999999 m", Verdict.UNDECIDED),
        ("10^99999 m", Verdict.UNDECIDED),
        ("1e2000 m", Verdict.WRONG),
        ("9" * 490 + " m", Verdict.WRONG),
        ("5 " + "m " * 90, Verdict.WRONG),
        ("5 m" + "^2" * 90, Verdict.WRONG),
        ("5 " + "(" * 90, Verdict.WRONG),
        ("1/0 m", Verdict.WRONG),
        ("5 m\0", Verdict.WRONG),
        ("\ud800", Verdict.WRONG),
        ("5 m " * 30_000, Verdict.WRONG),
        (r"\text{" * 90, Verdict.WRONG),
        ("=" * 499, Verdict.WRONG),
        ("1 m and " * 60, Verdict.WRONG),
        ("1,000" * 99, Verdict.WRONG),
    ],
    ids=lambda value: repr(value)[:16],
)
def test_no_text_raises_or_takes_long(text: str, verdict: Verdict) -> None:
    began = time.perf_counter()
    assert judge(text, "5 m", form="answer").verdict is verdict
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "bad", [None, "", "fast", True, ["5 m"], "5 x", "5 m^99", "1e999999 m", "1/0 m", float("nan")]
)
def test_an_unusable_gold_is_refused(bad: Any) -> None:
    with pytest.raises(GoldError):
        check_gold(bad)


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(ValueError, match="rel_tol is -1"):
        judge("5 m", "5 m", rel_tol=-1)
