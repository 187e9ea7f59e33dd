"""Rewards responses that the question makes likelier."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmalign.rewards.base import Group, Need, Prompt, Sample, Score
from llmalign.rewards.likelihood import TokenScored
from llmalign.rewards.tree import REWARDS

_EPS = 1e-9
_NO_QUESTION = 5.0  # stands for the perplexity without the question where none is computed
_FLOOR = -1.0


@dataclass(frozen=True)
class Alignment:
    """A self-aligned reward, and the perplexities (or mean surprisals) it compares.

    ``without`` is None where the response is not scored without the question, ``reward`` where no
    token of it has a finite log-probability.
    """

    reward: float | None
    given: float
    without: float | None


def self_aligned_reward(
    logp_given: Sequence[float],
    logp_without: Sequence[float] | None,
    *,
    use_log: bool = False,
    use_denominator: bool = True,
    use_comparison: bool = True,
    min_logprob: float | None = None,
) -> Alignment:
    """How much the question lowers the perplexity of a response, relative to that without it.

        max((ppl_without - ppl_given) / (ppl_without + 1e-9), -1),  ppl = exp(-mean logp)

    Tokens that are not finite on one side are left out on both; a response of such tokens only has
    no reward. One without tokens has perplexity 1 on both sides, and gets 0.

    Args:
        logp_given: log-probability of each token with the question, in nats.
        logp_without: the same with the question emptied; None without ``use_comparison``.
        use_log: compare mean surprisals, the logarithms of the perplexities.
        use_denominator: divide by the side without the question.
        use_comparison: False puts the constant 5 in place of the side without the question.
        min_logprob: what lower log-probabilities are raised to; None leaves them.
    Raises:
        ValueError: the two sides have different lengths, or one is missing.
    Source: Han et al. 2025 (SAR), arXiv:2509.05489; released code for the variants.
    """
    if use_comparison != (logp_without is not None):
        raise ValueError(f"use_comparison is {use_comparison}; it goes with logp_without")
    rows = zip(*([logp_given] if logp_without is None else [logp_given, logp_without]), strict=True)
    kept = [row for row in rows if all(map(math.isfinite, row))]
    sides = [_perplexity(side, use_log, min_logprob) for side in zip(*kept, strict=True)]
    if not sides:
        sides = [0.0 if use_log else 1.0] * (2 if use_comparison else 1)
    given, without = sides[0], sides[1] if use_comparison else None
    other = _NO_QUESTION if without is None else without
    reward = other - given
    if use_denominator:
        reward /= other + _EPS
    known = bool(kept) or not logp_given
    return Alignment(max(reward, _FLOOR) if known else None, given, without)


def _perplexity(logprobs: Sequence[float], use_log: bool, lowest: float | None) -> float:
    raised = logprobs if lowest is None else [max(logp, lowest) for logp in logprobs]
    surprisal = -math.fsum(raised) / len(raised)
    return surprisal if use_log else math.exp(min(surprisal, 700.0))  # above, exp overflows


def without_question(prompt: Prompt) -> Prompt:
    """A prompt with its question emptied: a chat keeps its system messages and ends in one empty
    user turn; a plain prompt becomes empty."""
    if isinstance(prompt, str):
        return ""
    kept = [message for message in prompt if message.get("role") == "system"]
    return (*kept, {"role": "user", "content": ""})


@REWARDS.register(
    "self_aligned",
    paper="SAR, arXiv:2509.05489",
    traits={"example": {"sum": ["math", {"self_aligned": {"weight": 0.2}}]}},
)
@dataclass(kw_only=True)
class SelfAligned(TokenScored):
    """How much less surprising the response is with the question than without it.

    Range: [-1, 1); above 1 without ``use_denominator``. The policy that samples scores the whole
    response after the prompt, and again after the prompt with its question emptied: text that would
    follow any question earns nothing. Paid to right and wrong responses alike; the paper adds it
    to correctness with weight 0.2. A response without tokens gets 0; None where the policy has no
    finite log-probability for any token. Aspects, for the name ``self_aligned``:
    ``self_aligned_ppl_given`` and ``self_aligned_ppl_without`` (with ``use_log`` their logarithms).

    Args:
        use_log: compare mean surprisals, the logarithms of the perplexities.
        use_denominator: divide by the side without the question; needs ``use_comparison``.
        use_comparison: False pays 5 minus the perplexity with the question, in one forward.
        min_logprob: what lower log-probabilities are raised to, < 0; null leaves them. One very
            surprising token dominates a perplexity.

    Source: Han et al. 2025, arXiv:2509.05489; the variants follow the released code. Unlike there,
    a log-probability that is not finite never enters a mean.
    """

    need: ClassVar[Need] = "policy_logprobs"

    use_log: bool = False
    use_denominator: bool = True
    use_comparison: bool = True
    min_logprob: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_denominator and not self.use_comparison:
            raise ValueError(
                "use_denominator is True without use_comparison; there is no side without the "
                "question to divide by, so set use_denominator to false"
            )
        if self.min_logprob is not None and self.min_logprob >= 0:
            raise ValueError(f"min_logprob is {self.min_logprob}, expected < 0 or null")

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Asks the policy about every sample, with and without its question."""
        asked = [(group.problem.prompt, s) for group in groups for s in group.samples]
        emptied: list[tuple[Prompt, Sample]] = []
        if self.use_comparison:
            emptied = [(without_question(prompt), s) for prompt, s in asked]
        logps = [scores.logprobs for scores in self.token_scores([*asked, *emptied])]
        given = logps[: len(asked)]
        without: Sequence[Sequence[float] | None] = logps[len(asked) :] or [None] * len(asked)
        sides = iter(zip(given, without, strict=True))
        return [[self._score(s, *next(sides)) for s in group.samples] for group in groups]

    def _score(
        self, sample: Sample, given: Sequence[float], without: Sequence[float] | None
    ) -> Score:
        found = self_aligned_reward(
            given,
            without,
            use_log=self.use_log,
            use_denominator=self.use_denominator,
            use_comparison=self.use_comparison,
            min_logprob=self.min_logprob,
        )
        parts = {"ppl_given": found.given, "ppl_without": found.without}
        reward = found.reward if given or not sample.token_ids else None
        return self.scored(reward, "no token has a finite log-probability", parts)
