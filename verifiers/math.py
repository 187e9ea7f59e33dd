r"""Is a mathematical answer right?

Exact rational arithmetic decides whenever both sides are numbers, then equality of the normalised
text, and only what is left goes to math-verify. That last stage may take any amount of time and
memory: judge model text only inside a ``VerifierPool``, which can kill it.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from typing import Any

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import DEFAULT_FORMS, Form, extract
from llmalign.verifiers.latex import normalise, split_unit
from llmalign.verifiers.rational import NotRational, TooLarge, evaluate
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

MAX_ANSWER = 2_000  # characters
_ROUNDED_DIGITS = 12  # a decimal this long stands for the fraction it was cut from

_NAMED = re.compile(r"[A-Za-z](?:_\{?\w\}?)?(?:\([A-Za-z]\))?\s*=(.*)", re.DOTALL)
_GROUPED = re.compile(
    r"(?<![\w.,(\[{/])([1-9][0-9]{0,2})((?:,[0-9]{3})+|(?: [0-9]{3})+)(?![0-9,)\]}/])"
)
_MIXED = re.compile(
    r"([+-]?)\s*([0-9]+)(?:\s+([0-9]+\s*/\s*[0-9]+)"
    r"|\s*(\\frac\s*(?:[0-9]|\{\s*[0-9]+\s*\})\s*(?:[0-9]|\{\s*[0-9]+\s*\})))\s*"
)
_DECIMAL = re.compile(r"[+-]?[0-9]*\.([0-9]+)")
_GAP = re.compile(r"(?<![0-9])\s+|\s+(?![0-9])")  # "1 00" is not 100
_BASED = re.compile(r"([0-9]+)_\{?([0-9]+)\}?")
_EQUATION = re.compile(r"(?:[-+*/^]|\\frac).*=")
_SUBSCRIPT = re.compile(r"_\{[^{}]*\}")
_RELATION = re.compile(r"[<>≈]|\\(?:n?le|n?ge|ne|approx|not)(?![a-zA-Z])")


@dataclass(frozen=True)
class Number:
    """An exact value, its unit ("%" included, None where it has none), and the size of one unit
    in the last place where it is a decimal of 12 significant digits or more."""

    value: Fraction
    unit: str | None
    ulp: Fraction | None


@dataclass(frozen=True)
class Reading:
    """An answer as read: its normal text, its number if it is one, and why it is beyond us."""

    text: str
    number: Number | None
    beyond: str = ""

    @property
    def normal_form(self) -> str:
        """Equal numbers have equal normal forms: ``0.5`` and ``1/2`` give ``1/2``."""
        if self.number is None:
            return self.text
        return f"{self.number.value}%" if self.number.unit == "%" else str(self.number.value)


@lru_cache(maxsize=4096)
def read(answer: str) -> Reading:
    """An answer, normalised and evaluated; never raises."""
    if len(answer) > MAX_ANSWER:
        return Reading("", None, f"the answer is too long: {len(answer):,} characters")
    text = normalise(answer)
    compact = _GAP.sub("", text)
    try:
        return Reading(compact, _number(text))
    except NotRational:
        return Reading(compact, None)
    except TooLarge as error:
        return Reading(compact, None, f"the number is too large: {error}")


def _number(text: str) -> Number:
    if named := _NAMED.fullmatch(text):
        text = named[1].strip()
    text, unit = split_unit(text)
    text = _GROUPED.sub(lambda m: m[1] + re.sub("[ ,]", "", m[2]), text)
    values = {evaluate(_bracket_mixed(side)) for side in text.split("=")}
    if len(values) > 1:
        raise NotRational("sides that differ")
    return Number(values.pop(), unit, _ulp(text))


def _bracket_mixed(text: str) -> str:
    r"""``-2\frac{5}{8}`` and ``-2 5/8`` as ``-(2+…)``; anything else as it is."""
    match = _MIXED.fullmatch(text.strip())
    return f"{match[1]}({match[2]}+{match[3] or match[4]})" if match else text


def _ulp(text: str) -> Fraction | None:
    decimal = _DECIMAL.fullmatch(text.strip())
    digits = text.strip("+- ").replace(".", "").lstrip("0")
    if decimal is None or len(digits) < _ROUNDED_DIGITS:
        return None
    return Fraction(1, 10 ** len(decimal[1]))


def equal_numbers(a: Number, b: Number) -> bool:
    """Whether two numbers mean the same; symmetric.

    28% equals 28% and, against a number without unit, 28 or 0.28. A missing unit fits any unit,
    different units never fit. A fraction without finite decimals equals a decimal of at least 12
    significant digits that differs by less than one unit in its last place.
    """
    if "%" in (a.unit, b.unit) and None in (a.unit, b.unit):
        percent, plain = (a, b) if a.unit == "%" else (b, a)
        return plain.value in (percent.value, percent.value / 100)
    if a.unit and b.unit and a.unit != b.unit:
        return False
    return a.value == b.value or _rounded(a, b) or _rounded(b, a)


def _rounded(decimal: Number, exact: Number) -> bool:
    if decimal.ulp is None or exact.ulp is not None or _has_finite_decimals(exact.value):
        return False
    return abs(decimal.value - exact.value) < decimal.ulp


def _has_finite_decimals(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def equal(a: str, b: str) -> tuple[bool | None, str]:
    """Whether two bare answers mean the same, and why; None where we cannot tell. Symmetric."""
    left, right = read(a), read(b)
    if left.number and right.number:
        same = equal_numbers(left.number, right.number)
        return same, "equal numbers" if same else "different numbers"
    if left.text and left.text == right.text:
        return True, "equal as text"
    if beyond := left.beyond or right.beyond:
        return None, beyond
    if why := _different_kinds(left, right) or _different_kinds(right, left):
        return False, why
    return _symbolic(*sorted((normalise(a), normalise(b))))


def _different_kinds(a: Reading, b: Reading) -> str:
    """Why ``a`` and ``b`` differ by their kind alone, where math-verify would overlook it."""
    if based := _BASED.fullmatch(a.text):
        other = _BASED.fullmatch(b.text)
        if other is None or other.groups() != based.groups():
            return "different digits or base"
    if a.number and _RELATION.search(b.text):
        return "a number is no relation"
    if a.number and _EQUATION.search(_SUBSCRIPT.sub("", b.text)):
        return "a number is no equation"
    return ""


def _symbolic(a: str, b: str) -> tuple[bool | None, str]:
    # Imported late: sympy takes a third of a second that numeric answers never need.
    from math_verify import parse, verify
    from math_verify.parser import LatexExtractionConfig

    settings: dict[str, Any] = {"parsing_timeout": None, "fallback_mode": "no_fallback"}
    try:
        left, right = (
            parse(rf"\boxed{{{text}}}", [LatexExtractionConfig()], **settings) for text in (a, b)
        )
        if not left or not right:
            return False, "different as text"
        options: dict[str, Any] = {
            "float_rounding": 12,
            "numeric_precision": 30,
            "allow_set_relation_comp": True,
            "timeout_seconds": None,
            "raise_on_error": True,
        }
        # Both ways round, because math-verify treats gold and prediction differently.
        same = verify(left, right, **options) or verify(right, left, **options)
    except Exception as error:  # noqa: BLE001  (any failure of the library is a verdict: undecided)
        return None, f"math-verify raised {type(error).__name__}: {str(error)[:80]}"
    return same, "equal by algebra" if same else "different by algebra"


def gold_answer(gold: Any) -> str:
    r"""The bare gold answer: a string or number as it is, or what stands after ``####`` or in
    ``\boxed{}`` of a worked solution.

    Raises:
        GoldError: there is none, or it cannot be read.
    """
    unreadable = isinstance(gold, bool) or not isinstance(gold, str | int | float)
    if unreadable or (isinstance(gold, float) and not isfinite(gold)):
        raise GoldError(f"gold is {repr(gold)[:80]}, expected a string or a finite number")
    text = str(gold)
    worked = "####" in text or r"\boxed" in text
    answer = extract(text, ("boxed", "hashes")) if worked else text
    reading = read(answer or "")
    if reading.beyond and len(answer or "") > MAX_ANSWER:
        raise GoldError(f"gold is {repr(text)[:80]}: {reading.beyond}; shorten it")
    if not re.search(r"\w|\\[a-z]+|∞|∅", reading.text) or not _balanced(reading.text):
        raise GoldError(f"gold is {repr(text)[:80]}, expected a readable answer")
    return answer or ""


def _balanced(text: str) -> bool:
    depth = 0
    for bracket in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if bracket == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def check_gold(gold: Any) -> None:
    """Raises GoldError where ``gold`` is empty or cannot be read; some ten microseconds."""
    gold_answer(gold)


@VERIFIERS.register(
    "math",
    paper="",
    traits={"signature": "math|v1", "check_gold": check_gold, "preload": ("math_verify",)},
)
def judge(text: str, gold: Any, *, forms: tuple[Form, ...] = DEFAULT_FORMS) -> Judgement:
    r"""Equality of mathematical answers: exact numbers, then text, then algebra.

    Args:
        text: the whole response; never raises on it.
        gold: the answer (string or number), bare, after ``####``, or in ``\boxed{}``.
        forms: how the answer is found in the response, see ``extract``.
    Raises:
        GoldError: the gold is empty or unreadable.
        ValueError: a form is unknown.
    """
    expected = gold_answer(gold)
    answer = extract(text, forms)
    if answer is None:
        return Judgement(Verdict.NO_ANSWER, None, "no answer found")
    same, why = equal(expected, answer)
    verdict = {True: Verdict.RIGHT, False: Verdict.WRONG, None: Verdict.UNDECIDED}[same]
    return Judgement(verdict, read(answer).normal_form or None, why)
