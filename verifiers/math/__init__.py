r"""Is a mathematical answer right? Judged by meaning, never by running what a model wrote.

An answer is normalised, then read by the cheapest rule that fits: exact numbers; letters of a
choice, times of day, numerals in a base; then an expression tree of our own parser, compared by
structure (lists, tuples, intervals, equations, matrices) and at last by value at random points.
Nothing is evaluated by eval or sympify, every stage has its caps, and no stage needs a time limit:
the verdict is the same in any thread or process.

Where answers are ambiguous the rules are these:

- A percent sign of the gold means 28 %, 28 and 0.28 alike; a gold without one accepts 28 % for 28
  and 10 % for 0.1, nothing else a hundred times off.
- A missing unit fits any unit, two known units must be the same. Degrees equal radians where a
  degree sign stands; 90 equals 90 degrees.
- A decimal gold with k places accepts what rounds to it, but no decimal with fewer places. An exact
  gold accepts a decimal of at least 12 significant digits, else equality.
- Lists and sets have no order and must be complete; tuples and points have one, and their brackets
  must match. ``\pm`` means both values.
- A name in front (``x =``, ``f(x) =``) may be missing or another, as may the bound variable; free
  variables may not. Equations are equal up to a constant factor.
- ``5 or 6``, several letters, several different boxes without a list: wrong for a gold 5.
- An empty or unreadable gold raises GoldError; it is never rewarded.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from typing import Any, Literal, NamedTuple

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import DEFAULT_MARKERS, Marker, extract
from llmalign.verifiers.latex import normalise, split_unit, without_grouping
from llmalign.verifiers.math import plain
from llmalign.verifiers.rational import NotRational, TooLarge, evaluate
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

MAX_ANSWER = 20_000  # characters
_ROUNDED_DIGITS = 12  # a decimal this long stands for the fraction it was cut from

Form = Literal["response", "answer"]

_NAMED = re.compile(r"[A-Za-z](?:_\{?\w\}?)?(?:\([A-Za-z]\))?\s*=(.*)", re.DOTALL)
_MIXED = re.compile(
    r"([+-]?)\s*([0-9]+)(?:\s+([0-9]+\s*/\s*[0-9]+)"
    r"|\s*(\\frac\s*(?:[0-9]|\{\s*[0-9]+\s*\})\s*(?:[0-9]|\{\s*[0-9]+\s*\})))\s*"
)
_DECIMAL = re.compile(r"[+-]?[0-9]*\.([0-9]+)")
_PLAIN = re.compile(r"-?[0-9]{1,1000}(?:\.([0-9]{1,1000}))?")
_FRACTION = re.compile(
    r"(-?)(?:\\frac\{([0-9]{1,1000})\}\{([0-9]{1,1000})\}|([0-9]{1,1000})/([0-9]{1,1000}))"
)
_GAP = re.compile(r"(?<![0-9])\s+|\s+(?![0-9])")  # "1 00" is not 100


@dataclass(frozen=True)
class Number:
    """An exact value, its unit ("%" included, None where it has none), and how many decimals it
    was written with (None unless a plain decimal)."""

    value: Fraction
    unit: str | None
    places: int | None

    @property
    def ulp(self) -> Fraction | None:
        """Size of one unit in the last place of a decimal of 12 significant digits or more."""
        if not self.places or abs(self.value) * 10**self.places < 10 ** (_ROUNDED_DIGITS - 1):
            return None
        return Fraction(1, 10**self.places)


@dataclass(frozen=True)
class Reading:
    """An answer as read: normalised, without spaces, its number if it is one, and its unit."""

    text: str
    compact: str
    number: Number | None
    unit: str | None = None
    beyond: str = ""

    @property
    def normal_form(self) -> str:
        """Equal numbers have equal normal forms: ``0.5`` and ``1/2`` give ``1/2``."""
        if self.number is None:
            return self.compact
        return f"{self.number.value}%" if self.number.unit == "%" else str(self.number.value)


@lru_cache(maxsize=8192)
def read(answer: str) -> Reading:
    """An answer, normalised and evaluated; never raises."""
    if len(answer) > MAX_ANSWER:
        return Reading("", "", None, beyond=f"the answer is too long: {len(answer):,} characters")
    text = normalise(answer)
    compact = _GAP.sub("", text)
    try:
        number = _number(text)
        return Reading(text, compact, number, number.unit)
    except NotRational:
        return Reading(text, compact, None, split_unit(text)[1])
    except TooLarge as error:
        return Reading(text, compact, None, None, f"the number is too large: {error}")


def _number(text: str) -> Number:
    if plain_number := _PLAIN.fullmatch(text):
        decimals = plain_number[1]
        return Number(Fraction(text), None, len(decimals) if decimals else None)
    if fraction := _FRACTION.fullmatch(text):
        top, bottom = fraction[2] or fraction[4], fraction[3] or fraction[5]
        if int(bottom):
            return Number(Fraction(int(fraction[1] + top), int(bottom)), None, None)
    if named := _NAMED.fullmatch(text):
        text = named[1].strip()
    text, unit = split_unit(text)
    values = {evaluate(_bracket_mixed(side)) for side in without_grouping(text).split("=")}
    if len(values) > 1:
        raise NotRational("sides that differ")
    decimal = _DECIMAL.fullmatch(without_grouping(text).strip())
    return Number(values.pop(), unit, len(decimal[1]) if decimal else None)


def _bracket_mixed(text: str) -> str:
    r"""``-2\frac{5}{8}`` and ``-2 5/8`` as ``-(2+…)``; anything else as it is."""
    match = _MIXED.fullmatch(text.strip())
    return f"{match[1]}({match[2]}+{match[3] or match[4]})" if match else text


class Equality(NamedTuple):
    """Whether two answers mean the same (None: we cannot tell), and by which rule; true only where
    they do."""

    same: bool | None
    why: str

    def __bool__(self) -> bool:
        return self.same is True


def equal(a: str, b: str) -> Equality:
    """Whether two bare answers mean the same, and why. Symmetric."""
    return Equality(*_compare(read(a), read(b), lenient=False))


def accepts(gold: str, answer: str) -> Equality:
    """Whether a bare gold accepts a bare answer, and why: ``equal``, and what a decimal or a
    percentage means as a gold (see the rules above)."""
    return Equality(*_compare(read(gold), read(answer), lenient=True))


def _compare(a: Reading, b: Reading, lenient: bool) -> tuple[bool | None, str]:
    if a.number and b.number:
        same = _equal_numbers(a.number, b.number, lenient)
        return same, "equal numbers" if same else "different numbers"
    if a.compact and a.compact == b.compact:
        return True, "equal as text"
    if len(a.text) + len(b.text) == 0:
        return False, "nothing there"
    for rule in (_choices, _times, _numerals):
        verdict = rule(a.text, b.text)
        if verdict is not None:
            return verdict, rule.__name__.strip("_")
    if not _compatible(a.unit, b.unit):
        return False, "different units"
    from llmalign.verifiers.math import expressions  # late: flint, which numbers never need

    return expressions.compare(a, b, lenient)


def _equal_numbers(a: Number, b: Number, lenient: bool) -> bool:
    if "%" in (a.unit, b.unit) and a.unit != b.unit:
        return _percent(a, b, lenient)
    if not _compatible(a.unit, b.unit):
        return False
    if a.value == b.value or _rounded(a, b) or _rounded(b, a):
        return True
    return lenient and _rounds_to(b, a.value, a.places)


def _compatible(a: str | None, b: str | None) -> bool:
    """A missing unit fits any; the yen sign is also that of the yuan."""
    if not a or not b:
        return True
    return bool(set(a.split(" or ")) & set(b.split(" or ")))


def _percent(a: Number, b: Number, lenient: bool) -> bool:
    """28 % against a plain number. As a gold, 28 % accepts 28 and 0.28; as an answer it must be a
    gold of 28, or of a fraction below one."""
    percent, plain_number = (a, b) if a.unit == "%" else (b, a)
    if plain_number.unit:
        return False
    if percent is b and lenient:
        below_one = abs(plain_number.value) < 1
        return plain_number.value == percent.value / (100 if below_one else 1)
    if plain_number.value in (percent.value, percent.value / 100):
        return True
    if not lenient or not percent.places:
        return False
    hundredth = percent.places + 2
    return _rounds_to(plain_number, percent.value, percent.places) or _rounds_to(
        plain_number, percent.value / 100, hundredth
    )


def _rounds_to(other: Number, gold: Fraction, places: int | None) -> bool:
    if not places or (other.places is not None and other.places < places):
        return False
    return abs(other.value - gold) * 2 * 10**places <= 1


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


def _choices(a: str, b: str) -> bool | None:
    for gold, answer in ((a, b), (b, a)):
        if letter := plain.choice_letter(gold):
            chosen = plain.chosen_letter(answer)
            if chosen:
                return chosen == letter
    return None


def _times(a: str, b: str) -> bool | None:
    first, second = plain.time_of_day(a), plain.time_of_day(b)
    if first and second and (plain.is_certainly_time(a) or plain.is_certainly_time(b)):
        return plain.same_time(first, second)
    if plain.is_certainly_time(a) or plain.is_certainly_time(b):
        return False
    return None


def _numerals(a: str, b: str) -> bool | None:
    first, second = plain.based_numeral(a), plain.based_numeral(b)
    return first == second if first or second else None


def gold_answer(gold: Any) -> str:
    r"""The bare gold answer: a string or number as it is, or what stands after ``####`` or in
    ``\boxed{}`` of a worked solution.

    Raises:
        GoldError: there is none, or it cannot be read.
    """
    unreadable = isinstance(gold, bool) or not isinstance(gold, str | int | float)
    if unreadable or (isinstance(gold, float) and not isfinite(gold)):
        raise GoldError(f"gold is {repr(gold)[:80]}, expected a string or a finite number")
    return _gold_answer(str(gold))


@lru_cache(maxsize=65536)
def _gold_answer(text: str) -> str:
    worked = "####" in text or r"\boxed" in text
    answer = extract(text, ("boxed", "hashes")) if worked else text
    reading = read(answer or "")
    if len(answer or "") > MAX_ANSWER:
        raise GoldError(f"gold is {repr(text)[:80]}: {reading.beyond}; shorten it")
    if not re.search(r"\w|\\[a-z]+|∞|∅|\\\{", reading.compact) or not _balanced(reading.compact):
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
    traits={
        "signature": "math|v3",
        "check_gold": check_gold,
        "preload": ("llmalign.verifiers.math.expressions",),
    },
)
def judge(
    text: str,
    gold: Any,
    *,
    form: Form = "response",
    markers: tuple[Marker, ...] = DEFAULT_MARKERS,
) -> Judgement:
    r"""Equality of mathematical answers: exact numbers, then structure, then values.

    Args:
        text: what the model wrote; never raises on it.
        gold: the answer (string or number), bare, after ``####``, or in ``\boxed{}``.
        form: ``response``: the answer is found in the text by its markers; ``answer``: the text
            is the bare answer.
        markers: how the answer is found in a response, see ``extract``.
    Raises:
        GoldError: the gold is empty or unreadable.
        ValueError: a marker is unknown.
    """
    expected = gold_answer(gold)
    answer = extract(text, markers) if form == "response" else _bare(text)
    if not answer:
        return Judgement(Verdict.NO_ANSWER, None, "no answer found")
    same, why = accepts(expected, answer)
    verdict = {True: Verdict.RIGHT, False: Verdict.WRONG, None: Verdict.UNDECIDED}[same]
    return Judgement(verdict, read(answer).normal_form or None, why)


def _bare(text: str) -> str:
    return (extract(text, ("boxed",)) or "") if r"\boxed" in text else text.strip()
