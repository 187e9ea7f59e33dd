"""Nodes that bend the value of one child: clipping, scaling, noise, calibration."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from llmalign.rewards.base import Group, Score
from llmalign.rewards.node import Node
from llmalign.rewards.tree import REWARDS


@REWARDS.register(
    "clip",
    paper="",
    traits={
        "short": "of",
        "children": "of",
        "example": {"clip": {"of": {"length": {"per_token": -0.001}}, "low": -0.5}},
    },
)
@dataclass(kw_only=True)
class Clip(Node):
    """The child's value, kept within [low, high].

    Range: [low, high].

    Args:
        low, high: bounds; null for none.
    """

    single: ClassVar[bool] = True

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is None and self.high is None:
            raise ValueError("low and high are unset; give at least one")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low is {self.low}, expected <= high, {self.high}")

    def combine(self, values: Sequence[float]) -> float:
        """Clips."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return min(max(values[0], low), high)


@REWARDS.register(
    "scale",
    paper="",
    traits={
        "short": "of",
        "children": "of",
        "example": {"scale": {"of": {"length": {"per_token": -1.0}}, "factor": 0.001}},
    },
)
@dataclass(kw_only=True)
class Scale(Node):
    """``factor * r + offset``.

    Range: the child's, mapped.

    Args:
        factor: what the child's value is multiplied by.
        offset: added to it afterwards.
    """

    single: ClassVar[bool] = True

    factor: float = 1.0
    offset: float = 0.0

    def combine(self, values: Sequence[float]) -> float:
        """Scales."""
        return self.factor * values[0] + self.offset


@REWARDS.register(
    "noise",
    paper="The Climb Carves Wisdom Deeper Than the Summit",
    traits={"short": "of", "children": "of", "example": {"noise": {"of": "math", "rate": 0.2}}},
)
@dataclass(kw_only=True)
class Noise(Node):
    """Flips the reward of whole problems: with probability ``rate`` all its samples get
    ``low + high - r``. For studies of how much wrong verification training survives.

    Range: the child's.

    Args:
        rate: share of problems flipped, in [0, 1]; the coin of a problem is the same every time.
        low, high: the values that change places.
        seed: of the coins.
    Source: The Climb Carves Wisdom Deeper Than the Summit: one coin per prompt.
    """

    single: ClassVar[bool] = True

    rate: float
    low: float = 0.0
    high: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is {self.rate}, expected it in [0, 1]")

    def combine_group(
        self, group: Group, values: Sequence[Sequence[float | None]]
    ) -> list[float | None]:
        """Flips all samples of the problem, or none."""
        if not coin(group.problem.id, self.rate, self.seed):
            return list(values[0])
        return [None if v is None else flip(v, self.low, self.high) for v in values[0]]


def coin(problem_id: str, rate: float, seed: int) -> bool:
    """A coin of a problem, True with probability ``rate``; the same in every process."""
    digest = hashlib.blake2b(f"{seed}/{problem_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < rate * 2**64


def flip(value: float, low: float = 0.0, high: float = 1.0) -> float:
    """The other one of two values."""
    return low + high - value


@REWARDS.register(
    "calibrate",
    paper="The Climb Carves Wisdom Deeper Than the Summit",
    traits={
        "short": "of",
        "children": "of",
        "example": {"calibrate": [{"noise": {"of": "math", "rate": 0.2}}, "reasoning_pattern"]},
    },
)
@dataclass(kw_only=True)
class Calibrate(Node):
    """Lifts low values of the first child by the second: min(1, r + by * s) where r < below.

    Range: [0, 1].

    Args:
        of: a noisy reward in [0, 1], then what corrects it (such as ``reasoning_pattern``).
        below: values from here on stay as they are.
        by: weight of the correction.
    Source: The Climb Carves Wisdom Deeper Than the Summit: calibration of a noisy reward model.
    """

    below: float = 0.5
    by: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.children) != 2:
            raise ValueError(f"of lists {len(self.children)} rewards, expected two")

    def combine(self, values: Sequence[float]) -> float:
        """Lifts the first by the second."""
        return calibrated(values[0], values[1], self.by, self.below)


def calibrated(value: float, correction: float, by: float, below: float) -> float:
    """See ``Calibrate``."""
    return min(1.0, value + by * correction) if value < below else value


@REWARDS.register(
    "if_undecided",
    paper="",
    traits={
        "short": "of",
        "children": "of",
        "example": {"if_undecided": {"of": "math", "then": "zero"}},
    },
)
@dataclass(kw_only=True)
class IfUndecided(Node):
    """Says what becomes of samples that the child cannot score.

    Range: the child's, and 0.

    Args:
        then: ``drop_sample`` leaves them out of baseline and loss (as without this node); ``zero``
            pays 0, so that a policy gains nothing by answers beyond the checker; ``fail_run``
            stops the run with the child's note.
    """

    single: ClassVar[bool] = True

    then: Literal["drop_sample", "zero", "fail_run"] = "drop_sample"

    def _merged(self, scores: Sequence[Score], value: float | None) -> Score:
        if value is None and self.then == "fail_run":
            raise RuntimeError(
                f"reward {self.children[0].reward.name!r} could not score a sample: "
                f"{scores[0].note or 'no reason given'}; if_undecided.then is fail_run"
            )
        if value is None and self.then == "zero":
            value = 0.0
        return super()._merged(scores, value)

    def combine(self, values: Sequence[float]) -> float:
        """The child's value."""
        return values[0]


@REWARDS.register(
    "flawed_positive",
    paper="FAPO: Flawed-Aware Policy Optimization",
    traits={
        "short": "of",
        "children": "of",
        "example": {
            "flawed_positive": [
                "math",
                {"principles": {"principles": ["A step of the reasoning is wrong or unfounded."]}},
            ]
        },
    },
)
@dataclass(kw_only=True)
class FlawedPositive(Node):
    """FAPO: a right answer reached by flawed reasoning is paid less.

        R = r - penalty * 1[r > right_above and flaw > flaw_above]

    Range: the outcome's, down to it minus the penalty.

    Args:
        of: the outcome, then the flaw (1 where the reasoning is flawed, such as a judge's score).
        penalty: lambda; 1 gives a flawed right answer 0 where right answers earn 1.
        right_above, flaw_above: what counts as right, and as flawed.
    Source: FAPO, R = R_RLVR - lambda * 1[correct and flagged]. Different from the released code: a
    flaw that could not be judged makes the sample not scorable, not flawless.
    """

    penalty: float = 1.0
    right_above: float = 0.0
    flaw_above: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.children) != 2:
            raise ValueError(f"of lists {len(self.children)} rewards, expected two")

    def _combine_known(self, values: Sequence[float | None]) -> float | None:
        outcome, flaw = values
        if outcome is None or (outcome > self.right_above and flaw is None):
            return None
        flagged = outcome > self.right_above and flaw is not None and flaw > self.flaw_above
        return outcome - self.penalty * flagged
