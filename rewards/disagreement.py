"""How often the members of an ensemble disagree on which of two samples is better."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from llmalign.rewards.base import Reward, Score
from llmalign.rewards.combine import Ensemble
from llmalign.rewards.node import walk


def disagreement(reward: Reward, scores: Sequence[Sequence[Score]]) -> float | None:
    """Share of the pairs of samples of one group that two members of an ``ensemble`` order
    differently, among the pairs that both order; None where there is no such pair.

    0 means that all say the same, 0.5 is what members that know nothing of each other reach.

    Args:
        reward: the tree.
        scores: of the tree, by group and sample.
    """
    signs = [
        sign
        for node in walk(reward)
        if isinstance(node, Ensemble)
        for a, b in combinations([child.reward.name for child in node.children], 2)
        for row in scores
        for sign in _agreements(row, a, b)
    ]
    return sum(sign < 0 for sign in signs) / len(signs) if signs else None


def _agreements(row: Sequence[Score], a: str, b: str) -> Iterator[float]:
    """Above 0 for each pair of samples that both order alike, below 0 for the others."""
    values = [(s.aspects.get(a), s.aspects.get(b)) for s in row]
    known = [(x, y) for x, y in values if x is not None and y is not None]
    for (x1, y1), (x2, y2) in combinations(known, 2):
        if (x1 - x2) and (y1 - y2):
            yield (x1 - x2) * (y1 - y2)
