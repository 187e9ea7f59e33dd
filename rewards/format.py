"""Pays responses of a given form."""

import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from llmalign.rewards.base import Problem, Score
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import Verified
from llmalign.verifiers import Judgement
from llmalign.verifiers.pattern import Mode


@REWARDS.register(
    "format",
    paper="DeepSeek-R1, arXiv:2501.12948, section 2.2.2",
    traits={"short": "pattern", "example": {"format": "<think>.+</think>.+"}},
)
@dataclass(kw_only=True)
class Format(Verified):
    """``right`` for a response that matches a regular expression, else ``wrong``.

    Range: {wrong, right}; None where the match ran out of time. It carries no judgement: a form
    is no answer.

    Args:
        pattern: in the syntax of Python's ``re``; the dot matches line ends too.
        mode: ``full``: the whole response matches; ``search``: some part of it does.
    """

    verifier: ClassVar[str] = "regex"

    pattern: str
    mode: Mode = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pattern:
            raise ValueError("pattern is '', expected a regex; an empty one pays empty responses")
        try:
            re.compile(self.pattern, re.DOTALL)
        except re.error as error:
            shown = repr(self.pattern)[:80]
            raise ValueError(f"pattern is {shown}, expected a regex: {error}") from None

    def gold(self, problem: Problem) -> Any:
        """None: a form needs no gold."""
        return None

    def verifier_options(self) -> dict[str, Any]:
        """The pattern and its mode."""
        return {"pattern": self.pattern, "mode": self.mode}

    def _score(self, judgement: Judgement) -> Score:
        return replace(super()._score(judgement), judgement=None)
