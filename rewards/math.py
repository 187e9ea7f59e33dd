"""Pays right mathematical answers."""

from dataclasses import dataclass
from typing import Any, ClassVar

from llmalign.rewards.base import Problem
from llmalign.rewards.tree import REWARDS
from llmalign.rewards.verified import Verified, column
from llmalign.verifiers.extract import DEFAULT_MARKERS, Marker


@REWARDS.register("math", paper="", traits={"example": "math"})
@dataclass(kw_only=True)
class Math(Verified):
    """``right`` for the right mathematical answer, else ``wrong``; None where undecided.

    Range: {wrong, right}. A response without an answer is wrong.

    Args:
        column: the column of the problem that holds the gold answer.
        markers: how the answer is found in the response, tried in order: ``boxed``, ``hashes``
            (``#### x``), ``answer_is``, ``last_number``.
    """

    verifier: ClassVar[str] = "math"

    column: str = "answer"
    markers: tuple[Marker, ...] = DEFAULT_MARKERS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.markers:
            raise ValueError("markers is empty, expected at least one marker such as 'boxed'")

    def gold(self, problem: Problem) -> Any:
        """The gold answer of ``column``."""
        return column(problem, self.column)

    def verifier_options(self) -> dict[str, Any]:
        """How the answer is found."""
        return {"markers": list(self.markers)}
