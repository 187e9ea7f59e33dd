"""Pays what fine-tuning on demonstrations made likelier: a ratio of two frozen models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmalign.rewards.base import Group, Need, Score, Scorer, Services
from llmalign.rewards.likelihood import Over, TokenScored, demonstration_ratio, total
from llmalign.rewards.tree import REWARDS


@REWARDS.register(
    "demonstration",
    paper="SR-PPO, arXiv:2510.21090",
    traits={"short": "base", "example": {"demonstration": {"base": "Qwen/Qwen2.5-0.5B"}}},
)
@dataclass(kw_only=True)
class Demonstration(TokenScored):
    """How much likelier fine-tuning on demonstrations made the response (SR-PPO).

        R(x, y) = sum_t [log pi_sft(y_t | x, y_<t) - log pi_base(y_t | x, y_<t)]

    Range: unbounded, in nats. The policy as the run started is pi_sft: start from a fine-tuned
    model. ``base`` is that model before fine-tuning; it reads the same tokens, so the two
    tokenizers must be one. Both stay frozen. A truncated response is scored like any other; None
    for one without tokens, or with a log-probability that is not finite. Aspects, for the name
    ``demonstration``: ``demonstration_mean`` per token, ``demonstration_sft`` and
    ``demonstration_base``, the two log-likelihoods. Where the mean per token is above 0, the sum
    grows with length, and what the demonstrations did to style is paid like the rest.

    Args:
        base: folder or hub name of the model before fine-tuning.
        over: ``sum`` over the tokens, or their ``mean``, which does not grow with length.

    Source: "Self-Rewarding PPO: Aligning Large Language Models with Demonstrations Only",
    arXiv:2510.21090, the ratio from its abstract. How it is normalised was not found; the mean is
    ours.
    """

    need: ClassVar[Need] = "frozen_logprobs"

    base: str
    over: Over = "sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.base.strip():
            raise ValueError("base is '', expected the model before fine-tuning; name its folder")
        self._base: Scorer | None = None

    def bind(self, services: Services) -> None:
        """Takes the host's services and opens the base model.

        Raises:
            RuntimeError: the host opens no models, or this one cannot be loaded.
            ValueError: its tokenizer is not the policy's.
        """
        super().bind(services)
        if services.open_model is None:
            raise RuntimeError(
                f"reward {self.name!r} needs the model {self.base!r} and the host opens none; "
                "score through a training run"
            )
        self._base = services.open_model(self.base)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Asks both models about every sample."""
        pairs = [(group.problem.prompt, s) for group in groups for s in group.samples]
        fine_tuned = self.token_scores(pairs)
        base = self._base(pairs) if self._base is not None and pairs else []
        both = zip(fine_tuned, base, strict=True)
        found = iter([self._score(sft.logprobs, before.logprobs) for sft, before in both])
        return [[next(found) for _ in group.samples] for group in groups]

    def _score(self, logp_sft: Sequence[float], logp_base: Sequence[float]) -> Score:
        gains = demonstration_ratio(logp_sft, logp_base)
        parts = {"mean": total(gains, "mean"), "sft": total(logp_sft), "base": total(logp_base)}
        why = "no tokens, or a log-probability that is not finite"
        return self.scored(total(gains, self.over), why, parts)
