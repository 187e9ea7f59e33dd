"""Nodes that bend the value of one child: clipping, centred sigmoids, noise, calibration."""

import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from llmalign.rewards.base import Group, Problem, Score
from llmalign.rewards.node import Node
from llmalign.rewards.tree import REWARDS
from llmalign.verifiers import GoldError

Curve = Literal["sigmoid", "tanh", "log_sigmoid", "identity"]
MAX_LOG = 700.0  # exp() of more overflows


@REWARDS.register("clip", paper="", traits={"short": "of", "children": "of"})
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


@REWARDS.register("scale", paper="", traits={"short": "of", "children": "of"})
@dataclass(kw_only=True)
class Scale(Node):
    """``factor * r + offset``.

    Range: the child's, mapped.

    Args:
        factor, offset: as above.
    """

    single: ClassVar[bool] = True

    factor: float = 1.0
    offset: float = 0.0

    def combine(self, values: Sequence[float]) -> float:
        """Scales."""
        return self.factor * values[0] + self.offset


@REWARDS.register(
    "centred",
    paper="Reward Shaping (PAR); LSC: arXiv:2402.00742",
    traits={"short": "of", "children": "of"},
)
@dataclass(kw_only=True)
class Centred(Node):
    """The child's value against reference values of the same problem, through a curve.

    Range: by the curve. ``sigmoid``: mean_m sigmoid(k (r - ref_m)) (PAR), in (0, 1). ``tanh``: the
    same with tanh, in (-1, 1). ``identity``: k (r - mean ref). ``log_sigmoid``: log sigmoid of
    k (r - q), q a quantile of a normal fit of the references (LSC), in (-inf, 0); summed over
    several rewards it is a soft "all of them".

    Args:
        curve: one of the above.
        references: column with the values of reference answers to the problem (a list); null: 0.
        k: steepness, > 0.
        quantile: of the fit, in (0, 1), for ``log_sigmoid``.
    Source: Reward Shaping to Mitigate Reward Hacking in RLHF (PAR, and its baselines); Transforming
    and Combining Rewards for Aligning Large Language Models, arXiv:2402.00742 (log-sigmoid).
    """

    single: ClassVar[bool] = True

    curve: Curve = "sigmoid"
    references: str | None = None
    k: float = 1.0
    quantile: float = 0.85

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.k > 0:
            raise ValueError(f"k is {self.k}, expected > 0")
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}, expected it in (0, 1)")

    def check(self, problem: Problem) -> None:
        """Raises GoldError where the references are missing or no finite numbers."""
        super().check(problem)
        self._references(problem)

    def _references(self, problem: Problem) -> list[float]:
        if self.references is None:
            return [0.0]
        found = problem.columns.get(self.references)
        numbers = isinstance(found, list | tuple) and all(
            isinstance(x, int | float) and math.isfinite(x) for x in found
        )
        if not numbers or not found:
            raise GoldError(
                f"problem {problem.id!r}: column {self.references!r} is {repr(found)[:80]}, "
                "expected a list of finite numbers: rewards of reference answers"
            )
        return [float(x) for x in found]

    def combine_group(
        self, group: Group, values: Sequence[Sequence[float | None]]
    ) -> list[float | None]:
        """Bends each value of the group by the same references."""
        references = self._references(group.problem)
        return [
            None if v is None else centred(v, references, self.curve, self.k, self.quantile)
            for v in values[0]
        ]


def centred(
    value: float, references: Sequence[float], curve: Curve, k: float = 1.0, quantile: float = 0.85
) -> float:
    """A value against its references, see ``Centred``."""
    if curve == "sigmoid":
        return statistics.fmean(sigmoid(k * (value - ref)) for ref in references)
    mean = statistics.fmean(references)
    if curve == "log_sigmoid":
        spread = statistics.stdev(references) if len(references) > 1 else 0.0
        z = statistics.NormalDist().inv_cdf(quantile)
        centre = mean + z * (spread + 1e-5) if len(references) > 1 else mean
        return log_sigmoid(k * (value - centre))
    if curve == "tanh":
        return statistics.fmean(math.tanh(k * (value - ref)) for ref in references)
    return k * (value - mean)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x > -MAX_LOG else 0.0


def log_sigmoid(x: float) -> float:
    """log of the sigmoid, in nats."""
    return -math.log1p(math.exp(-x)) if x > -MAX_LOG else x


@REWARDS.register(
    "noise",
    paper="The Climb Carves Wisdom Deeper Than the Summit",
    traits={"short": "of", "children": "of"},
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
    traits={"short": "of", "children": "of"},
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


@REWARDS.register("if_undecided", paper="", traits={"short": "of", "children": "of"})
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
    traits={"short": "of", "children": "of"},
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
