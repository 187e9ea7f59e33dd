"""Rewards how sure the policy is of what it says; no label is needed."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmalign.rewards.base import Group, Need, Sample, Score, TokenScores
from llmalign.rewards.likelihood import TokenScored, state_value, total
from llmalign.rewards.tree import REWARDS
from llmalign.verifiers.extract import DEFAULT_MARKERS, Marker, extract

_NO_TOKENS = "no tokens, or a token score that is not finite"


def token_certainty(logits: Sequence[float]) -> float:
    """Self-certainty at one token, in nats: logsumexp of the logits minus their mean.

    It equals KL(uniform || p) + log(size of the vocabulary). Logits of -inf, which pad a
    vocabulary, take no part. The reference for ``TokenScores.certainties``.

    Source: Zhao et al. 2025 (INTUITOR), arXiv:2505.19590.
    """
    real = [logit for logit in logits if logit != -math.inf]
    return state_value(real) - math.fsum(real) / len(real)


def token_entropy(logits: Sequence[float]) -> float:
    """Entropy of softmax(logits), in nats; the reference for ``TokenScores.entropies``."""
    log_z = state_value(logits)
    return -math.fsum(
        math.exp(logit - log_z) * (logit - log_z) for logit in logits if logit != -math.inf
    )


def self_certainty(certainties: Sequence[float]) -> float | None:
    """Mean self-certainty of the tokens of a response; None without tokens.

    Source: Zhao et al. 2025 (INTUITOR), arXiv:2505.19590.
    """
    return total(certainties, "mean")


def negative_entropy(entropies: Sequence[float], *, last_tokens: int | None = None) -> float | None:
    """Minus the mean entropy of the tokens, or of the last ones; None without tokens.

    Source: Prabhudesai et al. 2025 (RENT), arXiv:2505.22660.
    """
    kept = entropies if last_tokens is None else entropies[-last_tokens:]
    mean = total(kept, "mean")
    return None if mean is None else -mean


class _OfSample(TokenScored, ABC):
    """A number that follows from one sample and its token scores under the policy."""

    need: ClassVar[Need] = "policy_logprobs"

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Asks the policy about every sample."""
        pairs = [(group.problem.prompt, s) for group in groups for s in group.samples]
        found = iter(self.token_scores(pairs))
        return [
            [self.scored(self._value(s, next(found)), _NO_TOKENS, {}) for s in group.samples]
            for group in groups
        ]

    @abstractmethod
    def _value(self, sample: Sample, scores: TokenScores) -> float | None: ...


@REWARDS.register(
    "self_certainty", paper="INTUITOR, arXiv:2505.19590", traits={"example": "self_certainty"}
)
@dataclass(kw_only=True)
class SelfCertainty(_OfSample):
    """Mean over the tokens of how far the policy's distribution is from uniform.

    Range: [log V, inf) in nats, V the size of the vocabulary. The constant log V of a uniform
    distribution is not taken off, as in the released code; a group baseline removes it. The policy
    scores itself at its sampling temperature. None for a response without tokens.

    Source: Zhao et al. 2025, arXiv:2505.19590.
    """

    def _value(self, sample: Sample, scores: TokenScores) -> float | None:
        return self_certainty(scores.certainties)


@REWARDS.register(
    "entropy", paper="RENT, arXiv:2505.22660", traits={"example": {"entropy": {"no_answer": -7.0}}}
)
@dataclass(kw_only=True)
class Entropy(_OfSample):
    """Minus the mean entropy of the policy's distribution over the tokens of the response.

    Range: [-log V, 0] in nats, V the size of the vocabulary, or ``no_answer``. None for a response
    without tokens.

    Args:
        last_tokens: look at the last tokens only; null for all.
        no_answer: value of a response in which ``markers`` find no answer, -7 in the released
            format variant; null scores it like any other.
        markers: how the answer is found in the response, as for ``math``.

    Source: Prabhudesai et al. 2025, arXiv:2505.22660.
    """

    last_tokens: int | None = None
    no_answer: float | None = None
    markers: tuple[Marker, ...] = DEFAULT_MARKERS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last_tokens is not None and self.last_tokens <= 0:
            raise ValueError(f"last_tokens is {self.last_tokens}, expected > 0 or null")
        if not self.markers:
            raise ValueError("markers is empty, expected at least one marker such as 'boxed'")

    def _value(self, sample: Sample, scores: TokenScores) -> float | None:
        if self.no_answer is not None and not extract(sample.text, self.markers):
            return self.no_answer
        return negative_entropy(scores.entropies, last_tokens=self.last_tokens)
