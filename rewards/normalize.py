"""Nodes that compare samples with each other: normalisation by group, batch or running moments."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from llmalign.rewards.base import Group
from llmalign.rewards.node import Node, Values
from llmalign.rewards.tree import REWARDS

Scope = Literal["none", "group", "batch", "running"]
How = Literal["standard", "range", "clip"]


def standardised(values: Sequence[float | None], eps: float, ddof: int) -> list[float | None]:
    """(x - mean) / (std + eps) over the values there are; 0 where all of them are equal."""
    known = [v for v in values if v is not None]
    if not known:
        return list(values)
    if min(known) == max(known):
        return [None if v is None else 0.0 for v in values]
    mean = math.fsum(known) / len(known)
    variance = math.fsum((v - mean) ** 2 for v in known) / (len(known) - ddof)
    scale = math.sqrt(variance) + eps
    return [None if v is None else (v - mean) / scale for v in values]


def bent(values: Sequence[float | None], how: How, low: float, high: float) -> list[float | None]:
    """(x - low) / (high - low) for ``range``, x kept within [low, high] for ``clip``; a range of
    width 0 gives 0."""
    if how == "clip":
        return [None if v is None else min(max(v, low), high) for v in values]
    width = high - low
    return [None if v is None else (v - low) / width if width else 0.0 for v in values]


@REWARDS.register(
    "normalize",
    paper="",
    traits={
        "short": "of",
        "children": "of",
        "example": {"normalize": {"of": "rouge", "scope": "running"}},
    },
)
@dataclass(kw_only=True)
class Normalize(Node):
    """The child's value with mean 0 and standard deviation 1 among its peers.

    Range: unbounded, mostly within [-3, 3]; [0, 1] by ``range``. Equal values give 0. Samples
    without value are left out of the moments and stay without.

    Args:
        scope: the peers: the samples of the same problem (``group``), of the step (``batch``), or
            all so far, this step included (``running``; saved with the checkpoint); ``none`` does
            nothing.
        how: ``standard``: as above. ``range``: (r - least) / (largest - least). ``clip``: r
            kept within one standard deviation of the mean. Both are baselines of PAR.
        eps: added to the standard deviation.
        ddof: 1 for the sample standard deviation, 0 for the population's; ``running`` uses 0.
    """

    single: ClassVar[bool] = True

    scope: Scope = "group"
    how: How = "standard"
    eps: float = 1e-6
    ddof: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ddof not in (0, 1):
            raise ValueError(f"ddof is {self.ddof}, expected 0 or 1")
        if not self.eps >= 0:
            raise ValueError(f"eps is {self.eps}, expected >= 0")
        self.whole_batch = self.scope in ("batch", "running")  # type: ignore[misc]
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        self.low, self.high = math.inf, -math.inf

    def combine_batch(self, groups: Sequence[Group], values: Sequence[Values]) -> Values:
        """Normalises within the scope."""
        if self.scope == "none":
            return [list(row) for row in values[0]]
        if self.scope == "group":
            return [self._among(row) for row in values[0]]
        flat = [v for row in values[0] for v in row]
        if self.scope == "batch":
            made = iter(self._among(flat))
        else:
            made = iter(self._running(flat))
        return [[next(made) for _ in row] for row in values[0]]

    def _among(self, values: Sequence[float | None]) -> list[float | None]:
        known = [v for v in values if v is not None]
        if self.how == "standard" or not known:
            return standardised(values, self.eps, self.ddof)
        if self.how == "range":
            return bent(values, "range", min(known), max(known))
        mean = math.fsum(known) / len(known)
        squares = math.fsum((v - mean) ** 2 for v in known)
        spread = math.sqrt(squares / max(1, len(known) - self.ddof))
        return bent(values, "clip", mean - spread, mean + spread)

    def _running(self, values: Sequence[float | None]) -> list[float | None]:
        for value in values:
            if value is not None:  # Welford
                self.count += 1
                step = value - self.mean
                self.mean += step / self.count
                self.squares += step * (value - self.mean)
                self.low, self.high = min(self.low, value), max(self.high, value)
        scale = math.sqrt(self.squares / self.count) if self.count else 0.0
        if self.how == "range":
            return bent(values, "range", self.low, self.high)
        if self.how == "clip":
            return bent(values, "clip", self.mean - scale, self.mean + scale)
        if not scale:
            return [None if v is None else 0.0 for v in values]
        return [None if v is None else (v - self.mean) / (scale + self.eps) for v in values]

    def state(self) -> dict[str, Any]:
        """The running moments."""
        if self.scope != "running":
            return {}
        moments = {"count": self.count, "mean": self.mean, "squares": self.squares}
        return moments | ({"low": self.low, "high": self.high} if self.count else {})

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes the running moments back."""
        self.count, self.mean = int(state["count"]), float(state["mean"])
        self.squares = float(state["squares"])
        self.low = float(state.get("low", math.inf))
        self.high = float(state.get("high", -math.inf))


@REWARDS.register(
    "gdpo",
    paper="GDPO",
    traits={
        "short": "of",
        "children": "of",
        "weighted": True,
        "example": {"gdpo": ["math", {"length": {"max_tokens": 4000, "weight": 0.5}}]},
    },
)
@dataclass(kw_only=True)
class Gdpo(Node):
    """Normalises each child within its group, adds them by weight, then normalises over the batch.

        R = z_batch( sum_k w_k z_group(r_k) )

    A child that is constant in a group says nothing there, where in a plain sum it would shift it.

    Range: unbounded, mostly within [-3, 3].

    Args:
        eps: added to each standard deviation (sample, ddof 1).
    Source: GDPO (group reward-decoupled normalisation).
    """

    whole_batch: ClassVar[bool] = True

    eps: float = 1e-4

    def combine_batch(self, groups: Sequence[Group], values: Sequence[Values]) -> Values:
        """Normalises by child and group, adds, normalises over all."""
        rows: Values = []
        for one in zip(*values, strict=True):
            normal = [standardised(row, self.eps, 1) for row in one]
            rows.append([self._weighted(sample) for sample in zip(*normal, strict=True)])
        flat = iter(standardised([v for row in rows for v in row], self.eps, 1))
        return [[next(flat) for _ in row] for row in rows]

    def _weighted(self, values: Sequence[float | None]) -> float | None:
        if None in values:
            return None
        return sum(c.weight * (v or 0.0) for c, v in zip(self.children, values, strict=True))
