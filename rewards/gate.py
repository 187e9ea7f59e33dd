"""Gates: lower rewards count only where higher ones are good enough."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmalign.rewards.base import Score, StepScore
from llmalign.rewards.node import Node
from llmalign.rewards.tree import REWARDS


@REWARDS.register(
    "gate",
    paper="Gated Rewards (G-RA)",
    traits={
        "short": "of",
        "children": "of",
        "weighted": True,
        "example": {
            "gate": {
                "of": ["math", {"format": {"pattern": "<think>.+</think>.+", "weight": 0.2}}],
                "thresholds": [0.5],
            }
        },
    },
)
@dataclass(kw_only=True)
class Gate(Node):
    """Gated accumulation: children in order of priority, each counts only while all above it pass.

        R = sum_i w_i r_i * 1[r_j > threshold_j for every j < i]

    Range: the sum of the children's. A value at its threshold closes the gate, as does None; a
    closed gate also silences the step and turn rewards of the children below it, and comparisons.

    Args:
        of: the children, highest priority first.
        thresholds: what each child but the last must exceed, in order; one for all by default.
    Source: Stabilizing Long-term Multi-turn Reinforcement Learning with Gated Rewards; the form for
    several levels is reconstructed.
    """

    thresholds: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        gates = len(self.children) - 1
        if gates < 1:
            raise ValueError("of lists one reward, expected two or more: a gate needs both sides")
        if len(self.thresholds) == 1:
            self.thresholds = tuple(self.thresholds) * gates
        if len(self.thresholds) != gates:
            raise ValueError(
                f"thresholds has {len(self.thresholds)} values, expected {gates}: one for each "
                "child but the last"
            )

    def _combine_known(self, values: Sequence[float | None]) -> float | None:
        if values[0] is None:
            return None  # nobody knows whether the goal was reached
        return sum(self.contributions(values))

    def contributions(self, values: Sequence[float | None]) -> list[float]:
        """Weight times value, 0 below a closed gate."""
        kept = gated(values, self.thresholds)
        return [c.weight * v for c, v in zip(self.children, kept, strict=True)]

    def _merged(self, scores: Sequence[Score], value: float | None) -> Score:
        merged = super()._merged(scores, value)
        steps: tuple[StepScore, ...] = ()
        versus: Mapping[int, tuple[float | None, ...]] = {}
        opened = passes([score.value for score in scores], self.thresholds)
        for is_open, score in zip(opened, scores, strict=True):
            steps += score.steps if is_open else ()
            versus = versus or (score.versus if is_open else {})
        return replace(merged, steps=steps, versus=versus)


def passes(values: Sequence[float | None], thresholds: Sequence[float]) -> list[bool]:
    """Whether each level is open: all levels above it exceed their thresholds."""
    opened = [True]
    for value, threshold in zip(values, thresholds, strict=False):
        opened.append(opened[-1] and value is not None and value > threshold)
    return opened[: len(values)]


def gated(values: Sequence[float | None], thresholds: Sequence[float]) -> list[float]:
    """The value of each level that counts; 0 below a closed gate, and for None."""
    opened = passes(values, thresholds)
    return [v if o and v is not None else 0.0 for v, o in zip(values, opened, strict=True)]


@REWARDS.register(
    "bottom_line",
    paper="Searcher Preferences (SearchLLM)",
    traits={
        "children": ("bottom", "of"),
        "weighted": True,
        "example": {
            "bottom_line": {"bottom": ["citation"], "of": ["rouge", {"relevance": {"weight": 0.5}}]}
        },
    },
)
@dataclass(kw_only=True)
class BottomLine(Node):
    """A weighted mean of behaviours, damped by every bottom line that is not met.

        R = exp(mean_k log((s_k + delta) / (1 + delta))) * sum_i w_i b_i / sum_i w_i

    Range: [0, 1] for children in [0, 1]. A bottom line of 0 damps, it is no veto.

    Args:
        bottom: rewards in [0, 1] that must hold.
        of: the behaviours, with weights.
        delta: softness, > 0.
    Source: Aligning Large Language Models with Searcher Preferences, gated aggregation.
    """

    bottom: list[Any]
    delta: float = 0.01

    def __post_init__(self) -> None:
        self.num_bottom = len(self.bottom)
        super().__post_init__()
        self.children = [*self.bottom, *self.of]
        if not self.delta > 0:
            raise ValueError(f"delta is {self.delta}, expected > 0")
        for child in self.bottom:
            if child.weight != 1:
                raise ValueError(
                    f"bottom: {child.reward.name!r} has weight {child.weight}, expected none: "
                    "bottom lines count alike; weigh the rewards of `of`"
                )
        if not sum(child.weight for child in self.of) > 0:
            raise ValueError("the weights of the children add up to 0, expected more")

    def combine(self, values: Sequence[float]) -> float | None:
        """None where a bottom line is below ``-delta``, so that it has no logarithm."""
        bottom, behaviour = values[: self.num_bottom], values[self.num_bottom :]
        if any(value <= -self.delta for value in bottom):
            return None
        weights = [child.weight for child in self.of]
        return bottom_line(bottom, self.delta) * weighted_mean(behaviour, weights)


def bottom_line(values: Sequence[float], delta: float) -> float:
    """Geometric mean of softened values; 1 without any."""
    if not values:
        return 1.0
    return math.exp(sum(math.log((v + delta) / (1 + delta)) for v in values) / len(values))


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Mean of values by weight."""
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
