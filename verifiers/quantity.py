r"""Is a quantity right: a number with its unit, in whatever unit of the same dimension?

9.8 m/s^2 is 980 cm/s^2, 3 h is 180 min, 25 °C is 77 °F, and 5 m is not 5 cm. Numbers and factors
are exact fractions. A gold written with decimals is a rounded one: an answer is right that lies
within half a unit of its last place (9.8 m/s^2 admits 9.81 m/s^2); a gold without decimals is
exact. ``rel_tol`` widens both. Only dimensions are compared: a torque in N m equals an energy in
J. ``J/kg K`` may mean J/(kg K) or J K/kg: either reading will do.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import after_thinking
from llmalign.verifiers.format import marked_answer
from llmalign.verifiers.latex import normalise
from llmalign.verifiers.rational import NotRational, TooLarge, evaluate
from llmalign.verifiers.units import NotAUnit, Unit, parse
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

MAX_ANSWER = 500  # characters
MAX_PARTS = 4  # of a quantity such as 1 h 30 min

# In this order: a later rule may rely on an earlier one.
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(?<![\\A-Za-z])\$|\\[(\[\])]", ""),
        (r"\^\s*\{\s*([+-]?[0-9]+)\s*\}", r"^\1"),
        (r"\\(?:left|right)(?![A-Za-z])", ""),
        (r"\\mu(?![A-Za-z])\s*|μ", "µ"),
        (r"\\Omega(?![A-Za-z])", "Ω"),
        (r"\\(?:AA|angstrom)(?![A-Za-z])", "Å"),
        (r"\}\s*\\(?:text|mathrm)", r"} \\text"),
        (r"\\(?:text|mathrm|operatorname)\s?\{([^{}]*)\}", r"\1"),
        (r"\\frac\s*\{\s*([0-9.]+)\s*\}\s*\{\s*([0-9.]+)\s*\}", r" \1/\2"),
        (r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" (\1)/(\2)"),
        (r"(?:\^\s*\{?\s*\\circ\s*\}?|\bdegrees?\b|\bdeg\b)\s*(?:C|[Cc]elsius)\b", " degC"),
        (r"(?:\^\s*\{?\s*\\circ\s*\}?|\bdegrees?\b|\bdeg\b)\s*(?:F|[Ff]ahrenheit)\b", " degF"),
        (r"\b[Cc]elsius\b", " degC"),
        (r"\b[Ff]ahrenheit\b", " degF"),
        (r"\^\s*\{?\s*\\circ\s*\}?", " ° "),
        (r"\\([$%])", r"\1"),
        (r"[{}]", ""),
        (r"\s+", " "),
    ]
]
_MANTISSA = r"(?:[0-9]+ )?[0-9]+/[0-9]+(?!\.)|[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_NUMBER = re.compile(
    r"(?P<minus>[+-]?)\s?10\s?\^\s?(?P<power>[+-]?[0-9]+)"
    rf"|(?P<sign>[+-]?)\s?(?P<mantissa>{_MANTISSA})"
    r"(?:\s?\*\s?10\s?\^\s?(?P<tens>[+-]?[0-9]+)|[eE](?P<e>[+-]?[0-9]+))?"
)
_GROUPED = re.compile(r"(?<![\w.,/^])([0-9]{1,3})((?:,[0-9]{3})+|(?: [0-9]{3})+)(?![0-9,/])")
_LEADING_SIGN = re.compile(r"([+-]?)\s?([$€£])\s?(?=[0-9.])")
_ABOUT = re.compile(r".*(?:\\approx|≈|\\simeq|\\sim)(?![A-Za-z])", re.DOTALL)
_LONE_DOLLAR = re.compile(r"(?<!\\)\$")
_PART_GAP = re.compile(r"(?<=[A-Za-z])(?:,? and|,)? (?=[0-9])")


class NotAQuantity(ValueError):
    """The text is no number with a unit."""


@dataclass(frozen=True)
class Quantity:
    """``value`` times one of ``units``: more than one where ``/`` can be read in two ways, none
    where there is no unit. ``ulp`` is one in the last place of a number with decimals."""

    value: Fraction
    units: tuple[Unit, ...]
    ulp: Fraction | None

    def in_unit(self, unit: Unit) -> Fraction | None:
        """The value in another unit, None where the dimensions differ."""
        for own in self.units:
            if own.powers == unit.powers:
                return (self.value + own.offset) * own.factor / unit.factor - unit.offset
        return None

    @property
    def normal_form(self) -> str:
        """In SI base units, twelve digits: equal quantities have equal normal forms."""
        unit = self.units[0] if self.units else Unit()
        value = (self.value + unit.offset) * unit.factor
        digits = f"{Decimal(value.numerator) / Decimal(value.denominator):.11e}"
        mantissa, _, exponent = digits.partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        powers = " ".join(f"{base}^{unit.powers[base]}" for base in sorted(unit.powers))
        return f"{mantissa}e{int(exponent)} {powers}".strip()


def read_quantity(text: str) -> Quantity:
    """A quantity as written. What stands before ``≈`` is passed over, and before ``=`` unless it
    is another quantity.

    Raises:
        NotAQuantity: it is none.
        TooLarge: the number is beyond the caps of exact arithmetic.
    """
    if len(text) > MAX_ANSWER:
        raise NotAQuantity(f"longer than {MAX_ANSWER} characters")
    if "\0" in text:  # which marks a currency sign below
        raise NotAQuantity("holds a control character")
    if len(_LONE_DOLLAR.findall(text)) % 2:  # no pair round a formula, but money
        text = _LONE_DOLLAR.sub(r"\\$", text)
    plain = normalise(text)
    for pattern, replacement in _RULES:
        plain = pattern.sub(replacement, plain)
    *before, last = _ABOUT.sub("", plain).split("=")
    found = _read_side(last)
    for side in filter(None, map(_side_or_none, before)):
        if side.units and found.units and side.in_unit(found.units[0]) != found.value:
            raise NotAQuantity("sides that differ")
    return found


def _side_or_none(text: str) -> Quantity | None:
    try:
        return _read_side(text)
    except (NotAQuantity, TooLarge):  # a name, or a formula
        return None


def _read_side(text: str) -> Quantity:
    plain = _LEADING_SIGN.sub(_trailing_sign, text.strip(), count=1)
    plain = _GROUPED.sub(lambda m: m[1] + re.sub("[ ,]", "", m[2]), plain).strip(" .")
    first, *rest = map(_read_part, _PART_GAP.split(plain, maxsplit=MAX_PARTS))
    return _sum(first, rest) if rest else first


def _trailing_sign(match: re.Match[str]) -> str:
    """Marks a currency sign that stands before its number."""
    return f"{match[1]}\0{match[2]}"


def _read_part(text: str) -> Quantity:
    before, mark, after = text.partition("\0")
    if mark:
        text = f"{before}{after[1:].strip()} {after[0]}"
    match = _NUMBER.match(text)
    if not match:
        raise NotAQuantity("no number")
    value, ulp = _value(match)
    spelled = text[match.end() :].strip()
    if not spelled:
        return Quantity(value, (), ulp)
    try:
        units = [parse(spelled, divides_all=divides_all) for divides_all in (True, False)]
    except NotAUnit as error:
        raise NotAQuantity(f"{spelled[:40]!r} is no unit: {error}") from None
    return Quantity(value, tuple(units[:1] if units[0] == units[1] else units), ulp)


def _value(match: re.Match[str]) -> tuple[Fraction, Fraction | None]:
    if match["power"]:
        return _exactly(f"{match['minus']}10^({match['power']})"), None
    exponent = match["tens"] or match["e"] or "0"
    mantissa = match["mantissa"].replace(" ", "+")
    value = _exactly(f"{match['sign']}({mantissa})*10^({exponent})")
    _, point, decimals = mantissa.partition(".")
    return value, _exactly(f"10^({exponent}-{len(decimals)})") if point and decimals else None


def _exactly(text: str) -> Fraction:
    try:
        return evaluate(text)
    except NotRational as error:
        raise NotAQuantity(f"no number: {error}") from None


def _sum(first: Quantity, rest: list[Quantity]) -> Quantity:
    """``5 ft 3 in`` as 5.25 ft."""
    total, sign = first.value, -1 if first.value < 0 else 1
    for part in rest:
        value = part.in_unit(first.units[0]) if first.units else None
        if value is None or part.value < 0 or first.units[0].offset:
            raise NotAQuantity("parts that do not add up")
        total += sign * value
    last = rest[-1]
    scale = last.units[0].factor / first.units[0].factor
    return Quantity(total, first.units, last.ulp and last.ulp * scale)


def check_gold(gold: Any) -> None:
    """Raises GoldError unless ``gold`` is a text that reads as a quantity."""
    _read_gold(gold)


def _read_gold(gold: Any) -> Quantity:
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise GoldError(f"gold is {repr(gold)[:80]}, expected a text such as '9.8 m/s^2'")
    try:
        return read_quantity(str(gold))
    except (NotAQuantity, TooLarge) as error:
        hint = "expected a number with a unit, such as '9.8 m/s^2'"
        raise GoldError(f"gold is {repr(gold)[:80]}, {hint}: {error}") from None


@VERIFIERS.register(
    "quantity",
    paper="",
    traits={"signature": "quantity|v1", "check_gold": check_gold, "preload": ()},
)
def judge(
    text: str,
    gold: Any,
    *,
    form: Literal["response", "answer"] = "response",
    rel_tol: float = 0.0,
    unit: Literal["required", "optional"] = "required",
) -> Judgement:
    """Whether a quantity equals the gold, units converted.

    Args:
        text: the whole response, or a bare answer; never raises on it.
        gold: a number with its unit, ``"9.8 m/s^2"``; one without unit asks for none.
        form: ``response``: the answer is where ``marked_answer`` finds it, else the response
            itself where it is a single line; ``answer``: the text is one.
        rel_tol: of the gold's value in its own unit, >= 0. 0: half a unit in the last place of a
            gold with decimals, else exact.
        unit: ``required``: an answer without unit is wrong where the gold has one; ``optional``:
            it is taken to be in the gold's unit.
    Raises:
        GoldError: the gold is no quantity.
        ValueError: ``rel_tol`` is negative.
    """
    if not rel_tol >= 0:
        raise ValueError(f"rel_tol is {rel_tol}, expected a number >= 0")
    expected = _read_gold(gold)
    answer = text.strip() if form == "answer" else _find(text)
    if not answer:
        return Judgement(Verdict.NO_ANSWER, None, "no answer found")
    try:
        said = read_quantity(answer)
    except NotAQuantity as error:
        return Judgement(Verdict.WRONG, None, f"no quantity: {str(error)[:100]}")
    except TooLarge as error:
        return Judgement(Verdict.UNDECIDED, None, f"the number is too large: {error}")
    if not said.units and unit == "optional":
        said = Quantity(said.value, expected.units, said.ulp)
    right, why = _compare(expected, said, rel_tol)
    return Judgement(Verdict.RIGHT if right else Verdict.WRONG, said.normal_form, why)


def _find(text: str) -> str | None:
    if found := marked_answer(text):
        return found
    line = after_thinking(text).strip()
    return line if "\n" not in line else None


def _compare(expected: Quantity, said: Quantity, rel_tol: float) -> tuple[bool, str]:
    if bool(expected.units) != bool(said.units):
        return False, "lacks a unit" if expected.units else "has a unit, expected none"
    allowed = Fraction(rel_tol) * abs(expected.value)
    if not rel_tol and expected.ulp:
        allowed = expected.ulp / 2
    readings = [said.in_unit(unit) for unit in expected.units or (Unit(),)]
    values = [value for value in readings if value is not None]
    if not expected.units:
        values = [said.value]
    if not values:
        return False, "another dimension"
    right = any(abs(value - expected.value) <= allowed for value in values)
    return right, "equal quantities" if right else "another value"
