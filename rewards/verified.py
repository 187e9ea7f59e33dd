"""What rewards that ask a verifier have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmalign.rewards.base import Group, Need, Problem, Score, Services
from llmalign.verifiers import VERIFIERS, GoldError, Judgement, Verdict


@dataclass(kw_only=True)
class Verified(ABC):
    """Base of a reward that pays ``right`` or ``wrong`` as a verifier says; None if undecided.

    Args:
        right: paid for a right answer; must be the larger.
        wrong: paid for any other.
    """

    verifier: ClassVar[str]
    need: ClassVar[Need] = "pointwise"

    name: str
    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        if self.right <= self.wrong:
            raise ValueError(
                f"right is {self.right} and wrong is {self.wrong}; "
                "right must be the larger, or the policy is paid for wrong answers"
            )
        self._services: Services | None = None

    @abstractmethod
    def gold(self, problem: Problem) -> Any:
        """What the verifier compares with; raises GoldError where a column is missing."""

    def verifier_options(self) -> dict[str, Any]:
        """Options of the verifier."""
        return {}

    def bind(self, services: Services) -> None:
        """Takes the host's services; before ``score``."""
        self._services = services

    def check(self, problem: Problem) -> None:
        """Raises GoldError that names the problem where its gold is missing or unreadable."""
        try:
            VERIFIERS.get(self.verifier, self.name).traits["check_gold"](self.gold(problem))
        except GoldError as error:
            raise GoldError(f"problem {problem.id!r}: {error}") from None

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Judges all samples of all groups at once."""
        if self._services is None:
            raise RuntimeError(f"reward {self.name!r} is not bound; score through a RewardHost")
        golds = [self.gold(group.problem) for group in groups]
        pairs = [
            (s.text, gold) for group, gold in zip(groups, golds, strict=True) for s in group.samples
        ]
        judgements = iter(self._services.verify(self.verifier, pairs, self.verifier_options()))
        return [[self._score(next(judgements)) for _ in group.samples] for group in groups]

    def _score(self, judgement: Judgement) -> Score:
        value: float | None = self.right if judgement.verdict is Verdict.RIGHT else self.wrong
        if judgement.verdict is Verdict.UNDECIDED:
            value = None
        note = "" if judgement.verdict is Verdict.RIGHT else f"{self.name}: {judgement.why}"
        return Score(value, {self.name: value}, judgement, note)


def column(problem: Problem, name: str) -> Any:
    """A column of a problem; raises GoldError where it is missing."""
    if name not in problem.columns:
        known = ", ".join(sorted(map(str, problem.columns))) or "none"
        raise GoldError(f"column {name!r} is missing, expected it among: {known}; map it in data")
    return problem.columns[name]
