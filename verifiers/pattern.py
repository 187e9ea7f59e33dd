"""Does a response have a form? A regular expression, judged where it can be killed."""

import re
from typing import Any, Literal

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.verdict import Judgement, Verdict

Mode = Literal["full", "search"]


def check_gold(gold: Any) -> None:
    """Any gold will do: a pattern needs none."""


@VERIFIERS.register(
    "regex", paper="", traits={"signature": "regex|v1", "check_gold": check_gold, "preload": ()}
)
def judge(text: str, gold: Any = None, *, pattern: str, mode: Mode = "full") -> Judgement:
    """Whether a response matches a regular expression, whole or in part.

    Args:
        text: the whole response. A pattern may take exponential time on it: use the pool.
        gold: not read.
        pattern: in the syntax of ``re``; the dot matches line ends too.
        mode: ``full``: the whole response matches; ``search``: some part of it does.
    """
    compiled = re.compile(pattern, re.DOTALL)
    if (compiled.fullmatch if mode == "full" else compiled.search)(text):
        return Judgement(Verdict.RIGHT, None, "matches the pattern")
    return Judgement(Verdict.WRONG, None, "does not match the pattern")
