"""Rewards shaped by the length of a response among those of its group, or by its share of a limit.

Lengths are numbers of sampled tokens. What is right is what a child reward pays more than
``right_above``, so the answer is verified once: the value is the child's plus the length term.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmalign.rewards.base import Group, Need, Score
from llmalign.rewards.length import num_tokens
from llmalign.rewards.node import Node
from llmalign.rewards.references import TextOnly
from llmalign.rewards.tree import REWARDS


@dataclass(kw_only=True)
class LengthShaped(Node):
    """Base: the child's value plus ``factor`` times a length term; None where the child is None."""

    single: ClassVar[bool] = True

    right_above: float = 0.0
    factor: float = 1.0

    @property
    def need(self) -> Need:
        """The child's need, and the whole group."""
        below = super().need
        return "groupwise" if below == "pointwise" else below

    def terms(self, lengths: Sequence[int], right: Sequence[bool]) -> list[float]:
        """The length term of each scorable sample of one group."""
        raise NotImplementedError

    def combine_group(
        self, group: Group, values: Sequence[Sequence[float | None]]
    ) -> list[float | None]:
        """Adds the terms; samples that are not scorable count for nobody."""
        known = [(i, v) for i, v in enumerate(values[0]) if v is not None]
        lengths = [num_tokens(group.samples[i]) for i, _ in known]
        terms = self.terms(lengths, [value > self.right_above for _, value in known])
        shaped: list[float | None] = [None] * len(values[0])
        for (i, value), term in zip(known, terms, strict=True):
            shaped[i] = value + self.factor * term
        return shaped


@REWARDS.register(
    "harmo_length",
    paper="Beyond Monolithic Rewards: Hybrid and Multi-Aspect Reward Optimization",
    traits={"short": "of", "children": "of", "example": {"harmo_length": "math"}},
)
@dataclass(kw_only=True)
class HarmoLength(LengthShaped):
    """The child's value, less a penalty for lengths far from those of the group's right responses.

        term = -min(max_penalty, max(0, |length - mean right| / mean right - tolerance))

    Range: the child's, down to ``factor * max_penalty`` lower. No penalty where none is right.

    Args:
        of: the reward that says what is right, such as ``math``.
        tolerance: relative distance that costs nothing, >= 0.
        max_penalty: the largest penalty, >= 0.
        factor: weight of the term.
        right_above: a response is right where the child's value exceeds this.
    Source: Beyond Monolithic Rewards; its ingredients are known, this form is reconstructed.
    """

    tolerance: float = 0.5
    max_penalty: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("tolerance", "max_penalty"):
            if getattr(self, option) < 0:
                raise ValueError(f"{option} is {getattr(self, option)}, expected >= 0")

    def terms(self, lengths: Sequence[int], right: Sequence[bool]) -> list[float]:
        """See ``harmo_terms``."""
        return harmo_terms(lengths, right, self.tolerance, self.max_penalty)


def harmo_terms(
    lengths: Sequence[int], right: Sequence[bool], tolerance: float, max_penalty: float
) -> list[float]:
    """See ``HarmoLength``; 0 for all where none is right, or the right ones have no tokens."""
    lengths_right = [n for n, ok in zip(lengths, right, strict=True) if ok]
    mean = statistics.fmean(lengths_right) if lengths_right else 0.0
    if not mean:
        return [0.0] * len(lengths)
    return [-min(max_penalty, max(abs(n - mean) / mean - tolerance, 0.0)) for n in lengths]


@REWARDS.register(
    "er_length",
    paper="efficient-reasoning baseline of Self-Aligned Reward",
    traits={
        "short": "of",
        "children": "of",
        "example": {"er_length": {"of": "math", "factor": 0.2}},
    },
)
@dataclass(kw_only=True)
class ErLength(LengthShaped):
    """The child's value, plus a bonus for right responses shorter than the right ones on average.

        term = -(2 sigmoid((length - mean) / (std + 1e-5)) - 1)   over right responses, std ddof 0

    Range: the child's, up to ``factor`` to either side. Wrong responses get no term, nor does a
    right one alone: it cannot be shorter than itself.

    Args:
        of: the reward that says what is right, such as ``math``.
        factor: weight of the term.
        right_above: a response is right where the child's value exceeds this.
    Source: the efficient-reasoning (ER) baseline of Self-Aligned Reward, authors' code.
    """

    def terms(self, lengths: Sequence[int], right: Sequence[bool]) -> list[float]:
        """See ``er_term``; 0 where the response is wrong."""
        lengths_right = [n for n, ok in zip(lengths, right, strict=True) if ok]
        pairs = zip(lengths, right, strict=True)
        return [er_term(n, lengths_right) if ok else 0.0 for n, ok in pairs]


def er_term(length: int, lengths_right: Sequence[int]) -> float:
    """See ``ErLength``; 0 where fewer than two responses are right."""
    if len(lengths_right) < 2:
        return 0.0
    mean, std = statistics.fmean(lengths_right), statistics.pstdev(lengths_right)
    return -math.tanh((length - mean) / (std + 1e-5) / 2)  # 2 sigmoid(z) - 1 = tanh(z / 2)


@REWARDS.register(
    "o1_pruner_length",
    paper="O1-Pruner baseline of Self-Aligned Reward",
    traits={"example": {"sum": ["math", {"o1_pruner_length": {"weight": 0.2}}]}},
)
@dataclass(kw_only=True)
class O1PrunerLength(TextOnly):
    """Pays responses shorter than the mean of their group, right or wrong: add it to a verifier.

        -clip((length - mean) / length, -1, 1)

    Range: [-1, 1]. A response without tokens earns 1, the limit for ever shorter ones.

    Source: the O1-Pruner baseline of Self-Aligned Reward, authors' code. Different from there: no
    division by zero for an empty response.
    """

    need: ClassVar[Need] = "groupwise"

    name: str

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Compares each length with the mean of its group."""
        return [self._score([num_tokens(sample) for sample in g.samples]) for g in groups]

    def _score(self, lengths: Sequence[int]) -> list[Score]:
        terms = [o1_pruner_term(length, lengths) for length in lengths]
        return [Score(term, {self.name: term}) for term in terms]


def o1_pruner_term(length: int, lengths: Sequence[int]) -> float:
    """See ``O1PrunerLength``; ``lengths`` are those of the whole group, not empty."""
    mean = statistics.fmean(lengths)
    if not length:
        return 1.0 if mean else 0.0
    return -max(-1.0, min(1.0, (length - mean) / length))


@REWARDS.register(
    "cosine_length",
    paper="Demystifying Long Chain-of-Thought Reasoning in LLMs, arXiv:2502.03373",
    traits={
        "short": "of",
        "children": "of",
        "example": {"cosine_length": {"of": "math", "max_tokens": 4096}},
    },
)
@dataclass(kw_only=True)
class CosineLength(Node):
    """Pays right responses less, and wrong ones more, the longer they are, along half a cosine.

        value = at_limit + (at_zero - at_limit) / 2 * (1 + cos(pi * length / limit))

    ``at_zero`` and ``at_limit`` are two of the four options for right and for wrong responses. A
    response that was cut, or is as long as the limit, earns ``exceeded``, right or wrong.
    Range: between the least and the largest of the five. The value replaces the child's.

    Args:
        of: the reward that says what is right, such as ``math``.
        right_short, right_long: of a right response of length 0, and of one at the limit.
        wrong_short, wrong_long: likewise of a wrong one.
        exceeded: of one that reaches the limit.
        max_tokens: the limit; null for the one the group was sampled under.
        right_above: a response is right where the child's value exceeds this.
    Source: Demystifying Long Chain-of-Thought Reasoning in LLMs, arXiv:2502.03373; defaults are
    those of its launch script for active length scaling.
    """

    single: ClassVar[bool] = True

    right_short: float = 2.0
    right_long: float = 1.0
    wrong_short: float = -10.0
    wrong_long: float = 0.0
    exceeded: float = -10.0
    max_tokens: int | None = None
    right_above: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected >= 1")
        if min(self.right_short, self.right_long) <= max(self.wrong_short, self.wrong_long):
            raise ValueError(
                "a wrong response can earn as much as a right one; raise right_short and "
                "right_long above wrong_short and wrong_long"
            )

    def combine_group(
        self, group: Group, values: Sequence[Sequence[float | None]]
    ) -> list[float | None]:
        """Along the cosine; ValueError where neither ``max_tokens`` nor the group has a limit."""
        limit = group.max_new_tokens if self.max_tokens is None else self.max_tokens
        if limit is None:
            raise RuntimeError(
                "max_tokens is null, expected a limit; the group has none, so set it"
            )
        shaped: list[float | None] = []
        for sample, value in zip(group.samples, values[0], strict=True):
            length = num_tokens(sample)
            if value is None:
                shaped.append(None)
            elif sample.truncated or length >= limit:
                shaped.append(self.exceeded)
            elif value > self.right_above:
                shaped.append(cosine_value(length, limit, self.right_short, self.right_long))
            else:
                shaped.append(cosine_value(length, limit, self.wrong_short, self.wrong_long))
        return shaped


def cosine_value(length: int, limit: int, at_zero: float, at_limit: float) -> float:
    """From ``at_zero`` at length 0 to ``at_limit`` at ``limit``, along half a cosine."""
    return at_limit + (at_zero - at_limit) / 2 * (1 + math.cos(math.pi * length / limit))
