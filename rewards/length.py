"""Rewards that look at nothing but the number of sampled tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmalign.rewards.base import Group, Need, Problem, Sample, Score, Services
from llmalign.rewards.tree import REWARDS


class _Unverified:
    """A reward that needs neither a service nor a gold."""

    need: ClassVar[Need] = "pointwise"

    def bind(self, services: Services) -> None:
        """Needs nothing."""

    def check(self, problem: Problem) -> None:
        """Any problem will do."""


@REWARDS.register("length", paper="", traits={"example": {"length": {"max_tokens": 1024}}})
@dataclass(kw_only=True)
class Length(_Unverified):
    """0 for a length within [min_tokens, max_tokens], -1 outside, plus ``per_token`` per token.

    Range: {-1, 0} with ``per_token`` 0; unbounded otherwise.

    Args:
        min_tokens, max_tokens: bounds, both allowed lengths themselves; null for none.
        per_token: paid for every sampled token; negative to favour short responses.
    """

    name: str
    min_tokens: int | None = None
    max_tokens: int | None = None
    per_token: float = 0.0

    def __post_init__(self) -> None:
        if self.min_tokens is None and self.max_tokens is None and not self.per_token:
            raise ValueError("min_tokens, max_tokens and per_token are unset; give at least one")
        if None not in (self.min_tokens, self.max_tokens) and self._low > self._high:
            raise ValueError(f"min_tokens is {self.min_tokens}, expected <= {self.max_tokens}")

    @property
    def _low(self) -> float:
        return 0 if self.min_tokens is None else self.min_tokens

    @property
    def _high(self) -> float:
        return float("inf") if self.max_tokens is None else self.max_tokens

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Counts tokens."""
        return [[self._score(num_tokens(sample)) for sample in group.samples] for group in groups]

    def _score(self, tokens: int) -> Score:
        inside = self._low <= tokens <= self._high
        value = (0.0 if inside else -1.0) + self.per_token * tokens
        return Score(value, {self.name: value})


@REWARDS.register(
    "soft_overlong",
    paper="DAPO, arXiv:2503.14476, eq. 13",
    traits={"example": {"sum": ["math", {"soft_overlong": {"buffer_tokens": 512}}]}},
)
@dataclass(kw_only=True)
class SoftOverlong(_Unverified):
    """0 up to ``max_tokens - buffer_tokens``, then falling in a line to -factor at ``max_tokens``.

    Range: [-factor, 0].

    Args:
        buffer_tokens: length of the slope, in (0, max_tokens].
        max_tokens: the hard limit; null for the limit the group was sampled under.
        factor: the largest penalty, > 0.
    """

    name: str
    buffer_tokens: int
    max_tokens: int | None = None
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise ValueError(f"factor is {self.factor}, expected > 0")
        if self.max_tokens is not None or self.buffer_tokens <= 0:
            _check_buffer(self.max_tokens, self.buffer_tokens)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Counts tokens; RuntimeError where neither ``max_tokens`` nor the group has a limit."""
        return [self._score(group) for group in groups]

    def _score(self, group: Group) -> list[Score]:
        limit = group.max_new_tokens if self.max_tokens is None else self.max_tokens
        if limit is None:
            raise RuntimeError(
                "max_tokens is null, expected a limit; the group has none, so set it"
            )
        lengths = [num_tokens(sample) for sample in group.samples]
        penalties = [soft_overlong_penalty(n, limit, self.buffer_tokens) for n in lengths]
        return [Score(self.factor * p, {self.name: self.factor * p}) for p in penalties]


def soft_overlong_penalty(num_tokens: int, max_tokens: int, buffer_tokens: int) -> float:
    """DAPO's soft overlong punishment of one length, in [-1, 0].

        0                                            num_tokens <= max_tokens - buffer_tokens
        (max_tokens - buffer_tokens - num_tokens) / buffer_tokens         up to max_tokens
        -1                                                                beyond

    Args:
        num_tokens: length of the response, in tokens.
        max_tokens: the hard limit, in tokens.
        buffer_tokens: length of the slope, in (0, max_tokens].
    Raises:
        ValueError: ``buffer_tokens`` lies outside its range.
    Source: Yu et al. 2025 (DAPO), arXiv:2503.14476, eq. 13.
    """
    _check_buffer(max_tokens, buffer_tokens)
    return max(-1.0, min(0.0, (max_tokens - buffer_tokens - num_tokens) / buffer_tokens))


def num_tokens(sample: Sample) -> int:
    """Sampled tokens of a sample; raises RuntimeError where it has text but no token ids."""
    if sample.text and not sample.token_ids:
        raise RuntimeError("token_ids is empty, expected the sampled tokens; pass completion_ids")
    return len(sample.token_ids)


def _check_buffer(max_tokens: int | None, buffer_tokens: int) -> None:
    if buffer_tokens <= 0 or (max_tokens is not None and buffer_tokens > max_tokens):
        limit = "max_tokens" if max_tokens is None else f"max_tokens ({max_tokens})"
        raise ValueError(f"buffer_tokens is {buffer_tokens}, expected > 0 and <= {limit}")
