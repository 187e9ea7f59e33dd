"""Pays programs that pass their tests."""

from dataclasses import dataclass
from typing import Any, ClassVar

from llmalign.rewards.base import Problem
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import Verified, column
from llmalign.verifiers.code_layouts import gold_from_row
from llmalign.verifiers.sandbox import LEVELS, Level


@REWARDS.register("code", paper="", traits={"example": "code"})
@dataclass(kw_only=True)
class Code(Verified):
    """``right`` for a program that passes all tests, else ``wrong``; None where undecided.

    Range: {wrong, right}. A response without a program is wrong.

    Args:
        column: the column that holds the tests as the verifier reads them; empty: the tests are
            found in the columns of a known layout such as HumanEval, MBPP or CodeContests.
        layout: the layout, by name, or ``auto``.
        level: the least isolation a program may run in: ``strict``, ``basic`` or ``none``.
        time_limit_s: wall time of one case, in seconds, in place of what the tests say.
        memory_limit_mb: address space of the program, in MiB, likewise.
    """

    verifier: ClassVar[str] = "code"

    column: str = ""
    layout: str = "auto"
    level: Level = "strict"
    time_limit_s: float | None = None
    memory_limit_mb: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level not in LEVELS:
            raise ValueError(f"level is {self.level!r}, expected one of {', '.join(LEVELS)}")

    def gold(self, problem: Problem) -> Any:
        """The tests of a problem, with this reward's limits."""
        if self.column:
            gold = gold_from_row({"tests": column(problem, self.column)}, "gold")
        else:
            gold = gold_from_row(problem.columns, self.layout)
        limits = {"time_limit_s": self.time_limit_s, "memory_limit_mb": self.memory_limit_mb}
        return gold | {name: value for name, value in limits.items() if value is not None}

    def verifier_options(self) -> dict[str, Any]:
        """The level of isolation."""
        return {"level": self.level}
