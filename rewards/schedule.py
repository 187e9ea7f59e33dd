"""Nodes that change with the step: schedules, annealed trust, weights by hypervolume."""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from llmalign.rewards.base import Group
from llmalign.rewards.node import Node
from llmalign.rewards.tree import REWARDS


@REWARDS.register(
    "schedule",
    paper="",
    traits={
        "short": "of",
        "children": "of",
        "example": {
            "sum": [
                "math",
                {
                    "schedule": {
                        "of": {"format": "<think>.+</think>.+"},
                        "points": [[0, 1.0], [200, 0.0]],
                    }
                },
            ]
        },
    },
)
@dataclass(kw_only=True)
class Schedule(Node):
    """The child's value times a factor that depends on the step, linear between given points.

    Range: the child's, times the factors.

    Args:
        points: pairs of (step, factor), steps ascending, such as [[0, 1.0], [200, 0.0]]; before the
            first and after the last the factor stays.
    """

    single: ClassVar[bool] = True

    points: list[Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        good = all(
            isinstance(p, list | tuple)
            and len(p) == 2
            and all(isinstance(x, int | float) and math.isfinite(x) for x in p)
            for p in self.points
        )
        steps = [p[0] for p in self.points] if good else []
        if not steps or steps != sorted(set(steps)):
            shown = repr(self.points)[:80]
            raise ValueError(f"points is {shown}, expected pairs [step, factor], steps ascending")

    def combine(self, values: Sequence[float]) -> float:
        """Times the factor of this step."""
        assert self.services is not None
        return interpolated(self.points, self.services.step()) * values[0]


def interpolated(points: Sequence[Sequence[float]], step: float) -> float:
    """Linear between points (x, y), constant outside."""
    xs = [point[0] for point in points]
    k = bisect.bisect_right(xs, step)
    if k == 0 or k == len(points):
        return float(points[min(k, len(points) - 1)][1])
    (x0, y0), (x1, y1) = points[k - 1], points[k]
    return y0 + (y1 - y0) * (step - x0) / (x1 - x0)


@REWARDS.register(
    "trust",
    paper="SophiaVL-R1 (Trust-GRPO)",
    traits={"short": "of", "children": "of", "example": {"trust": ["math", "rubric"]}},
)
@dataclass(kw_only=True)
class Trust(Node):
    """Adds a judged score as far as it can be trusted, less and less: R = r + f s.

        f = start * exp(-step / half_time) * (exp(mean_right - mean_wrong) if smaller on the right)

    ``s`` is the judged score (0 where r < ``none_below``), its means are over the right (r >= 0.5)
    and the wrong samples of the group. Groups all right (r >= 0.9) or all wrong (r <= 0.1) get no
    part of it.

    Range: [0, 1 + start].

    Args:
        of: the outcome in [0, 1], then the judged score in [0, 1].
        start: f at step 0 where the score ranks right answers first.
        decay_steps: T of the decay, > 0.
        none_below: outcomes below it make the score 0.
    Source: SophiaVL-R1 (Trust-GRPO); the reward's single exponent, as released.
    """

    start: float = 0.3
    decay_steps: float = 500.0
    none_below: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.children) != 2:
            raise ValueError(f"of lists {len(self.children)} rewards, expected two")
        if not self.decay_steps > 0:
            raise ValueError(f"decay_steps is {self.decay_steps}, expected > 0")

    def combine_group(
        self, group: Group, values: Sequence[Sequence[float | None]]
    ) -> list[float | None]:
        """Outcome plus trusted score, for the samples that have both."""
        assert self.services is not None
        known = [
            (i, a, s)
            for i, (a, s) in enumerate(zip(*values, strict=True))
            if a is not None and s is not None
        ]
        made: list[float | None] = [None] * len(values[0])
        outcomes = [a for _, a, _ in known]
        scores = [s if a >= self.none_below else 0.0 for _, a, s in known]
        factor = trust_factor(outcomes, scores, self.services.step(), self.start, self.decay_steps)
        for (index, outcome, _), score in zip(known, scores, strict=True):
            made[index] = outcome + factor * score
        return made


def trust_factor(
    outcomes: Sequence[float], scores: Sequence[float], step: int, start: float, decay_steps: float
) -> float:
    """f of ``Trust`` for one group; an empty side has mean 0."""
    if all(a >= 0.9 for a in outcomes) or all(a <= 0.1 for a in outcomes):
        return 0.0
    right = [s for a, s in zip(outcomes, scores, strict=True) if a >= 0.5]
    wrong = [s for a, s in zip(outcomes, scores, strict=True) if a < 0.5]
    gap = _mean(right) - _mean(wrong)
    trusted = math.exp(gap) if right and gap < 0 else 1.0
    return start * math.exp(-step / decay_steps) * trusted


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@REWARDS.register(
    "dynamic_weights",
    paper="Dynamic Reward Weighting",
    traits={
        "short": "of",
        "children": "of",
        "weighted": True,
        "example": {
            "dynamic_weights": {
                "of": ["math", {"length": {"per_token": -0.001}}],
                "low": [0, -1],
                "high": [1, 0],
            }
        },
    },
)
@dataclass(kw_only=True)
class DynamicWeights(Node):
    """A weighted sum, times a factor for progress on the Pareto front of its children.

    After each step the mean of every child, mapped to [0, 1] by its bounds, is a point; the factor
    of the next step is 0.5 + 1.5 tanh(volume this point adds to the front), and a point that adds
    volume joins it. Saved with the checkpoint.

    Range: the weighted sum's, times a factor in (0.5, 2).

    Args:
        low, high: bounds of the children's values, in order.
    Source: Learning to Optimize Multi-Objective Alignment Through Dynamic Reward Weighting
    (hypervolume-guided). Different from the released code: objectives are normalised first, because
    raw token counts saturate the factor, and points are means of the step, not of a validation.
    """

    whole_batch: ClassVar[bool] = True

    low: list[float]
    high: list[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.low) == len(self.high) == len(self.children):
            raise ValueError(
                f"low has {len(self.low)} and high {len(self.high)} values, "
                f"expected {len(self.children)}: one for each child"
            )
        if any(a >= b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low is {self.low} and high {self.high}, expected low < high")
        self.front: list[list[float]] = []
        self.factor = 1.0

    def combine_batch(self, groups: Sequence[Group], values: Sequence[Any]) -> Any:
        """Adds by weight, times the factor of the steps before; then looks at this step."""
        made = super().combine_batch(groups, values)
        scaled = [[None if v is None else self.factor * v for v in row] for row in made]
        point = []
        for child, low, high in zip(values, self.low, self.high, strict=True):
            known = [v for row in child for v in row if v is not None]
            if not known:
                return scaled
            point.append(min(max((_mean(known) - low) / (high - low), 0.0), 1.0))
        gained = added_volume(self.front, point)
        if self.front:
            self.factor = 0.5 + 1.5 * math.tanh(gained)
        if gained > 0 or not self.front:
            self.front.append(point)
        return scaled

    def combine(self, values: Sequence[float]) -> float:
        """The weighted sum."""
        return sum(c.weight * v for c, v in zip(self.children, values, strict=True))

    def state(self) -> dict[str, Any]:
        """The front and the factor."""
        return {"front": [list(point) for point in self.front], "factor": self.factor}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes front and factor back."""
        self.front = [list(map(float, point)) for point in state["front"]]
        self.factor = float(state["factor"])


def added_volume(front: Sequence[Sequence[float]], point: Sequence[float]) -> float:
    """Hypervolume that a point adds to a front; all coordinates are maximised, and volumes count
    from the worst value of each coordinate in sight."""
    if not front:
        return 0.0
    worst = [min(p[axis] for p in [*front, point]) for axis in range(len(point))]
    *shifted, last = ([x - w for x, w in zip(p, worst, strict=True)] for p in [*front, point])
    return hypervolume([*shifted, last]) - hypervolume(shifted)


def hypervolume(points: Sequence[Sequence[float]]) -> float:
    """Volume of the union of the boxes from 0 to each point, cell by cell of their grid."""
    axes = [sorted({0.0, *(p[axis] for p in points)}) for axis in range(len(points[0]))]
    total = 0.0
    for cell in product(*(range(len(axis) - 1) for axis in axes)):
        corner = [axis[k + 1] for axis, k in zip(axes, cell, strict=True)]
        if any(all(x >= c for x, c in zip(p, corner, strict=True)) for p in points):
            total += math.prod(axis[k + 1] - axis[k] for axis, k in zip(axes, cell, strict=True))
    return total
