"""What was drawn or generated and then not trained on, one record each, and why."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Reason = Literal[
    "all equal",  # the scores of the group do not differ, so no sample is better than another
    "not scorable",  # no sample of the group has a score
    "not selected",  # scored, but other samples of the group are trained on
    "curriculum: too easy",
    "curriculum: too hard",
    "stale",  # sampled by a policy too many optimizer steps ago
    "budget spent",  # wanted, but the step may not generate more
]


@dataclass(frozen=True)
class Dropped:
    """One problem, or samples of it, that a step leaves out; ``detail`` is for people."""

    step: int
    problem_id: str
    reason: Reason
    detail: str = ""

    def __post_init__(self) -> None:
        if self.reason not in get_args(Reason):
            raise ValueError(
                f"reason is {self.reason!r:.80}, expected one of {', '.join(get_args(Reason))}"
            )

    def to_record(self) -> dict[str, Any]:
        """A line of the run's list."""
        return asdict(self)


def teaches_nothing(value: Sequence[float | None]) -> Reason | None:
    """Why a group with these values has no signal; None where at least two of them differ."""
    scored = {v for v in value if v is not None}
    if not scored:
        return "not scorable"
    return "all equal" if len(scored) == 1 else None
