"""Comparison of answers that are more than numbers, by their trees."""

import re
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from llmalign.verifiers.latex import split_unit, without_grouping
from llmalign.verifiers.math import plain
from llmalign.verifiers.math.compare import same
from llmalign.verifiers.math.identity import out_of_reach
from llmalign.verifiers.math.lexer import NotMath
from llmalign.verifiers.math.parser import parse
from llmalign.verifiers.math.scalars import near_percent
from llmalign.verifiers.math.tree import Node
from llmalign.verifiers.math.values import start

if TYPE_CHECKING:
    from llmalign.verifiers.math import Reading

_PARAMETER = re.compile(
    r"[\s,]*\(?\s*(?:\\text\s*\{\s*where\s*\}\s*)?[a-z]\s*\\in\s*\\mathbb\s*\{?\s*[ZNRQ]\s*\}?"
    r"(?:\s*[_^]\s*(?:\{[^{}]*\}|\S))?\s*\)?\s*$"
)
_FOR_ALL = re.compile(
    r"\\text\s*\{\s*(?:for (?:all|any|every|each|some)|where)\b[^{}]*\}"
    r"(?:\s*[a-z]\s*(?:\\in\s*\\mathbb\s*\{?\s*[ZNRQ]\s*\}?(?:\s*_\s*\{[^{}]*\})?)?)?"
)


_one_at_a_time = Lock()  # the precision of the arithmetic is a setting of the process


def compare(a: "Reading", b: "Reading", lenient: bool) -> tuple[bool | None, str]:
    """Whether two answers mean the same, and by which rule; None where we cannot tell.

    Args:
        a: the gold, where one of them is.
        b: the other.
        lenient: ``a`` is a gold, see ``accepts``.
    """
    if (first := plain.words(a.text)) and first == plain.words(b.text):
        return True, "equal words"
    left, right = _tree_of(a.text), _tree_of(b.text)
    if left is None or right is None:
        return False, "different as text"
    if lenient and a.number and a.number.unit == "%":
        with _one_at_a_time:
            start(left, right)
            close = near_percent(a.number.value, a.number.places or 0, right)
        return close, "equal as a percentage" if close else "different as a percentage"
    with _one_at_a_time:
        start(left, right)
        verdict = same(left, right, lenient=lenient)
        if verdict is None and not (out_of_reach(left) and out_of_reach(right)):
            return False, "only one of them can be evaluated"
    why = {True: "equal in value", False: "different in value", None: "cannot be evaluated"}
    return verdict, why[verdict]


def _tree_of(text: str) -> Node | None:
    found = tree(text)
    if found is not None and found.kind == "text":  # an answer that stands in quotes as a whole
        found = tree(plain.without_text(text))
    return found


@lru_cache(maxsize=8192)
def tree(text: str) -> Node | None:
    """The tree of a normalised answer without its unit; None where it is no mathematics."""
    if plain.is_all_reals(text):
        return Node("space", value="R")
    text = _FOR_ALL.sub("", text)
    if "=" in text:
        text = _PARAMETER.sub("", text)
    text = without_grouping(text)
    stripped, unit = split_unit(text)
    if unit in ("degree", "%"):  # these change the value: the parser reads them
        stripped = text
    for candidate in dict.fromkeys((stripped, text)):
        try:
            return parse(candidate)
        except (NotMath, RecursionError):  # the latter where the caller's stack is deep already
            continue
    return None
