"""The services that rewards need of a language model: the policy as a scorer, or a frozen one.

Shape letters in this file
    B  completions    T  tokens of a completion    N  tokens of all    D  hidden size
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from llmalign.data import encode_prompt
from llmalign.policy import Policy, Reference, TokenBatch
from llmalign.rewards import RewardHost, Sample, build_reward
from llmalign.rewards.base import Prompt, TokenScores
from llmalign.rewards.node import walk
from llmalign.schema import Recipe

BATCH_TOKENS = 8_192  # prompt and completion tokens in one forward pass, padding included


class ModelScorer:
    """Scores completions token by token under a model, without gradient.

    Args:
        model: the policy itself (its weights of the moment), or a frozen reference.
        temperature: what logits are divided by, as in sampling; > 0.
    """

    def __init__(self, model: Policy | Reference, *, temperature: float) -> None:
        self.model, self.temperature = model, temperature

    @torch.no_grad()
    def __call__(
        self, pairs: Sequence[tuple[Prompt, Sample]], *, hidden: bool = False
    ) -> list[TokenScores]:
        """One result per pair, in order; an empty completion has no tokens and no hidden state.

        A sample without token ids, as a reward may make one, is tokenised from its text.
        """
        policy = self.model.policy if isinstance(self.model, Reference) else self.model
        rows = [(encode_prompt(p, policy.tokenizer), self._tokens(s, policy)) for p, s in pairs]
        found: list[TokenScores] = [TokenScores((), (), ())] * len(rows)
        was_training = policy.model.training
        policy.model.eval()
        try:
            for portion in _portions(rows):
                batch = TokenBatch.from_rows(
                    [rows[b] for b in portion], pad_id=policy.pad_id, device=policy.device
                )
                scored = self.model.token_scores(batch, temperature=self.temperature)
                for b, one in zip(portion, _split(batch, *scored), strict=True):
                    found[b] = one if hidden else replace(one, hidden=())
        finally:
            policy.model.train(was_training)
        return found

    @staticmethod
    def _tokens(sample: Sample, policy: Policy) -> list[int]:
        if sample.token_ids or not sample.text:
            return list(sample.token_ids)
        return list(policy.tokenizer(sample.text, add_special_tokens=False)["input_ids"])


def _portions(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[list[int]]:
    """Indices of rows with a completion, of about equal length together."""
    order = sorted((len(p) + len(c), b) for b, (p, c) in enumerate(rows) if c)
    portion: list[int] = []
    for width, b in order:
        if portion and width * (len(portion) + 1) > BATCH_TOKENS:
            yield portion
            portion = []
        portion.append(b)
    if portion:
        yield portion


def _split(
    batch: TokenBatch,
    logp_N: torch.Tensor,
    entropy_N: torch.Tensor,
    certainty_N: torch.Tensor,
    hidden_ND: torch.Tensor,
) -> Iterator[TokenScores]:
    start = 0
    for count in batch.response_BL.sum(1).tolist():
        end = start + count
        logp, entropy, certainty = (t[start:end].tolist() for t in (logp_N, entropy_N, certainty_N))
        hidden = hidden_ND[start:end].mean(0).tolist()
        yield TokenScores(tuple(logp), tuple(entropy), tuple(certainty), tuple(hidden))
        start = end


def open_host(recipe: Recipe, spec: Any, policy: Policy) -> RewardHost:
    """A reward host that lends the tree ``spec`` what it needs of ``policy`` and its start."""
    reward = build_reward(spec)
    needs = {node.need for node in walk(reward)}
    temperature = recipe.rollout.temperature
    own = ModelScorer(policy, temperature=temperature) if "policy_logprobs" in needs else None
    frozen = None
    if "frozen_logprobs" in needs:
        frozen = ModelScorer(Reference(policy), temperature=1.0)
    judge = None
    if "judge" in needs and recipe.judge is not None:
        from llmalign.rewards.judge import OpenAIJudge

        judge = OpenAIJudge(**recipe.judge)
    return RewardHost(
        reward, policy=own, frozen=frozen, judge=judge, **recipe.reward_host.model_dump()
    )
