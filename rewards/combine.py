"""Nodes that make one value out of their children's, sample by sample."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmalign.rewards.node import Node
from llmalign.rewards.tree import REWARDS

Ensembled = Literal["mean", "median", "min", "mean_minus_std", "uwo"]


@REWARDS.register(
    "sum",
    paper="",
    traits={
        "short": "of",
        "children": "of",
        "weighted": True,
        "example": {"sum": ["math", {"format": {"pattern": "<think>.+</think>.+", "weight": 0.1}}]},
    },
)
@dataclass(kw_only=True)
class Sum(Node):
    """The sum of the children's values, each times its ``weight`` (1 unless it says otherwise).

    Range: the sum of theirs. Weights are applied as written, never normalised. None where a child
    with a weight other than 0 has no value; a child of weight 0 is only logged.
    """

    def _combine_known(self, values: Sequence[float | None]) -> float | None:
        total = 0.0
        for child, value in zip(self.children, values, strict=True):
            if child.weight:
                if value is None:
                    return None
                total += child.weight * value
        return total

    def contributions(self, values: Sequence[float | None]) -> list[float]:
        """Weight times value."""
        return [c.weight * (v or 0.0) for c, v in zip(self.children, values, strict=True)]


@REWARDS.register(
    "product",
    paper="",
    traits={"short": "of", "children": "of", "example": {"product": ["rouge", "citation"]}},
)
@dataclass(kw_only=True)
class Product(Node):
    """The product of the children's values: for values in [0, 1] a soft "all of them".

    Range: the product of theirs.
    """

    def combine(self, values: Sequence[float]) -> float:
        """Multiplies."""
        return math.prod(values)


@REWARDS.register(
    "min",
    paper="",
    traits={"short": "of", "children": "of", "example": {"min": ["rouge", "citation"]}},
)
@dataclass(kw_only=True)
class Minimum(Node):
    """The least of the children's values: a sample is as good as its weakest side.

    Range: theirs.
    """

    def combine(self, values: Sequence[float]) -> float:
        """The least."""
        return min(values)


@REWARDS.register(
    "all_of",
    paper="",
    traits={
        "short": "of",
        "children": "of",
        "example": {"all_of": ["math", {"format": "<think>.+</think>.+"}]},
    },
)
@dataclass(kw_only=True)
class AllOf(Node):
    """1 where every child's value is above ``above``, else 0.

    Range: {0, 1}.

    Args:
        above: what each must exceed (strictly).
    """

    above: float = 0.0

    def combine(self, values: Sequence[float]) -> float:
        """1 or 0."""
        return float(all(value > self.above for value in values))


@REWARDS.register(
    "ensemble",
    paper="Helping or Herding? Reward Model Ensembles; UWO: Coste et al. 2023",
    traits={
        "short": "of",
        "children": "of",
        "example": {"ensemble": {"of": ["bleu", "rouge", "chrf"], "how": "mean_minus_std"}},
    },
)
@dataclass(kw_only=True)
class Ensemble(Node):
    """One value from several judges of the same thing, such as reward models of several seeds.

    Range: about that of the members. A member without a value is left out; None where none has one.

    Args:
        how: ``mean``, ``median``, ``min``, ``mean_minus_std`` (population std), or ``uwo``: mean
            minus ``uncertainty`` times the population variance.
        uncertainty: weight of the variance in ``uwo``, >= 0.
    Source: Helping or Herding? Reward Model Ensembles Mitigate but do not Eliminate Reward Hacking;
    UWO: Coste et al. 2023.
    """

    how: Ensembled = "mean"
    uncertainty: float = 0.5

    def _combine_known(self, values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return ensemble(known, self.how, self.uncertainty) if known else None


def ensemble(values: Sequence[float], how: Ensembled, uncertainty: float = 0.5) -> float:
    """The value of an ensemble for one sample; ``values`` must not be empty."""
    if how == "median":
        return statistics.median(values)
    if how == "min":
        return min(values)
    mean = statistics.fmean(values)
    if how == "mean":
        return mean
    variance = statistics.pvariance(values, mean)
    return mean - (math.sqrt(variance) if how == "mean_minus_std" else uncertainty * variance)


def brme(means: Sequence[float], stds: Sequence[float], alpha: float) -> float:
    """Robust value of a multi-head reward model: ``alpha`` times the mean of the head that is
    surest of itself, plus ``1 - alpha`` times the least mean. Source: Reward-Robust RLHF in LLMs
    (BRME)."""
    nominal = means[min(range(len(stds)), key=stds.__getitem__)]
    return alpha * nominal + (1 - alpha) * min(means)
