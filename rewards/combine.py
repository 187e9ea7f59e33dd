"""Nodes that make one value out of their children's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmalign.rewards.base import Group, Need, Problem, Score, Services
from llmalign.rewards.tree import REWARDS, Child

_FROM_LEAST: list[Need] = ["pointwise", "groupwise", "paired_groups"]


@REWARDS.register("sum", paper="", traits={"short": "of", "children": "of"})
@dataclass(kw_only=True)
class Sum:
    """The sum of the children's values, each times its ``weight`` (1 unless it says otherwise).

    Range: the sum of theirs. Weights are applied as written, never normalised. None where a child
    with a weight other than 0 has no value; a child of weight 0 is only logged.

    Args:
        of: the children, each a reward of its own.
    """

    name: str
    of: list[Any]

    def __post_init__(self) -> None:
        if not self.of:
            raise ValueError("of is empty, expected at least one reward")
        self.children: list[Child] = list(self.of)

    @property
    def need(self) -> Need:
        """The largest need of any child."""
        needs = {child.reward.need for child in self.children}
        special = needs - set(_FROM_LEAST)
        return min(special) if special else max(needs, key=_FROM_LEAST.index)

    def bind(self, services: Services) -> None:
        """Binds the children."""
        for child in self.children:
            child.reward.bind(services)

    def check(self, problem: Problem) -> None:
        """Raises GoldError where a child does."""
        for child in self.children:
            child.reward.check(problem)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Adds the children's scores, sample by sample."""
        by_child = [child.reward.score(groups) for child in self.children]
        return [
            [self._add(scores) for scores in zip(*group_scores, strict=True)]
            for group_scores in zip(*by_child, strict=True)
        ]

    def _add(self, scores: Sequence[Score]) -> Score:
        value: float | None = 0.0
        for child, score in zip(self.children, scores, strict=True):
            if child.weight and value is not None:
                value = None if score.value is None else value + child.weight * score.value
        aspects = {name: aspect for score in scores for name, aspect in score.aspects.items()}
        judgement = next((s.judgement for s in scores if s.judgement is not None), None)
        note = "; ".join(dict.fromkeys(score.note for score in scores if score.note))
        return Score(value, {**aspects, self.name: value}, judgement, note)
