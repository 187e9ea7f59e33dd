"""Does an arithmetic expression reach the target with the given numbers, each used once?"""

import re
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import after_thinking, extract
from llmalign.verifiers.latex import normalise
from llmalign.verifiers.rational import NotRational, TooLarge, evaluate
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

MAX_EXPRESSION = 500  # characters

_ANSWER_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_RESULT = re.compile(r"=\s*[-+]?[0-9][0-9.,/ ]*$")


def check_gold(gold: Any) -> None:
    """Raises GoldError unless ``gold`` is ``{"nums": [integers], "target": integer}``."""
    nums, target = _read_gold(gold)
    if not nums:
        raise GoldError(f"nums is {nums!r}, expected at least one number; drop the row")


def _read_gold(gold: Any) -> tuple[list[int], int]:
    if not isinstance(gold, Mapping) or not {"nums", "target"} <= gold.keys():
        raise GoldError(f"gold is {repr(gold)[:80]}, expected a mapping with nums and target")
    nums, target = gold["nums"], gold["target"]
    if not isinstance(nums, list | tuple) or not all(_is_integer(n) for n in nums):
        raise GoldError(f"nums is {repr(nums)[:80]}, expected a list of integers")
    if not _is_integer(target):
        raise GoldError(f"target is {repr(target)[:80]}, expected an integer")
    return list(nums), target


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def find_expression(text: str) -> str | None:
    r"""The expression of a response, a trailing ``= n`` removed.

    It stands in the last ``<answer>``, else the last ``\boxed{}``, else after the last ``####``,
    else in the last line that is not empty.
    """
    text = after_thinking(text)
    tagged = [found.strip() for found in _ANSWER_TAG.findall(text)]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = (tagged[-1] if tagged else "") or extract(text, ("boxed", "hashes"))
    found = found or (lines[-1] if lines else "")
    return _RESULT.sub("", found[: MAX_EXPRESSION + 100].strip()).strip() or None


@VERIFIERS.register(
    "countdown",
    paper="",
    traits={"signature": "countdown|v1", "check_gold": check_gold, "preload": ()},
)
def judge(text: str, gold: Any) -> Judgement:
    """Exact value of an expression that uses each given number once, with + - * / and brackets.

    Args:
        text: the whole response; never raises on it. ``×``, ``÷`` and ``−`` are read too.
        gold: ``{"nums": [3, 7, 25], "target": 46}``.
    Raises:
        GoldError: the gold has another form.
    """
    check_gold(gold)
    nums, target = _read_gold(gold)
    expression = find_expression(text)
    if expression is None:
        return Judgement(Verdict.NO_ANSWER, None, "no expression found")
    if len(expression) > MAX_EXPRESSION:
        return Judgement(Verdict.UNDECIDED, None, "the expression is too long")
    plain = normalise(expression)
    verdict, why = _decide(plain, nums, target)
    return Judgement(verdict, re.sub(r"\s+", "", plain), why)


def _decide(expression: str, nums: list[int], target: int) -> tuple[Verdict, str]:
    # normalise writes ** as ^: neither a power nor a factorial is among the four operations.
    if re.search(r"[\^!]", expression):
        return Verdict.WRONG, "uses an operation that is not allowed"
    literals: list[Fraction] = []
    try:
        value = evaluate(expression, literals)
    except NotRational as error:
        return Verdict.NO_ANSWER, f"no readable expression: {error}"
    except TooLarge as error:
        return Verdict.UNDECIDED, f"the value is too large: {error}"
    if Counter(literals) != Counter(map(Fraction, nums)):
        return Verdict.WRONG, "does not use each number exactly once"
    if value != target:
        return Verdict.WRONG, f"gives {str(value)[:40]}, not {target}"
    return Verdict.RIGHT, "reaches the target"
