"""Pays expressions that reach a target."""

from dataclasses import dataclass
from typing import Any, ClassVar

from llmalign.rewards.base import Problem
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import Verified, column


@REWARDS.register("countdown", paper="", traits={"example": "countdown"})
@dataclass(kw_only=True)
class Countdown(Verified):
    """``right`` for an expression that uses each number once and hits the target, else ``wrong``.

    Range: {wrong, right}; None where undecided.

    Args:
        nums_column: the column with the list of numbers.
        target_column: the column with the target.
    """

    verifier: ClassVar[str] = "countdown"

    nums_column: str = "nums"
    target_column: str = "target"

    def gold(self, problem: Problem) -> Any:
        """The numbers and the target."""
        nums, target = column(problem, self.nums_column), column(problem, self.target_column)
        return {"nums": nums, "target": target}
