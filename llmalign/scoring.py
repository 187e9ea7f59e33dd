"""The services that rewards need of language models: the policy, its start, others, embeddings.

Shape letters in this file
    B  completions    T  tokens of a completion    N  tokens of all    D  hidden size
    V  vocabulary
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from llmalign.batch import TokenBatch
from llmalign.data import encode_prompt
from llmalign.policy import Policy, load_policy
from llmalign.reference import Reference
from llmalign.rewards import RewardHost, Sample, build_reward
from llmalign.rewards.base import Judge, Prompt, TokenScores
from llmalign.rewards.node import walk
from llmalign.schema import PolicyJudgeOptions, Recipe, judge_options

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


class TokenTable:
    """The input embeddings the policy started with, kept on the CPU whatever it learns later."""

    def __init__(self, policy: Policy) -> None:
        self._tokenizer = policy.tokenizer
        table_VD = policy.model.get_input_embeddings().weight.detach()
        self._table_VD = table_VD.to("cpu", copy=True)

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One array [tokens, dimensions] in float32 per text, without special tokens."""
        ids = [self._tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
        return [self._table_VD[torch.tensor(i, dtype=torch.long)].float().numpy() for i in ids]


class FrozenModels:
    """Opens further frozen models for rewards, each once.

    Args:
        policy: its tokenizer, device and dtype are theirs too.
        recipe: how they are loaded.
    """

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        self._policy, self._recipe = policy, recipe
        self._opened: dict[str, ModelScorer] = {}

    def __call__(self, path: str) -> ModelScorer:
        """A scorer at temperature 1 of the model at ``path``, a folder or a hub name.

        Raises:
            RuntimeError: it cannot be loaded.
            ValueError: its vocabulary is not the policy's.
        """
        if path not in self._opened:
            self._opened[path] = ModelScorer(self._load(path), temperature=1.0)
        return self._opened[path]

    def _load(self, path: str) -> Policy:
        policy = self._policy
        dtype = str(next(policy.model.parameters()).dtype).removeprefix("torch.")
        plain: dict[str, Any] = {"path": path, "build": None, "revision": None, "lora": None}
        changes = {**plain, "dtype": dtype, "gradient_checkpointing": False}
        config = self._recipe.model.model_copy(update=changes)
        try:
            found = load_policy(config, seed=self._recipe.seed, path=path)
        except (FileNotFoundError, RuntimeError) as error:
            raise RuntimeError(f"a reward's model {path!r} cannot be opened: {error}") from error
        _refuse_other_tokens(path, found, policy.tokenizer)
        found.model.requires_grad_(False).eval()
        return Policy(found.model, policy.tokenizer, policy.device)


def _refuse_other_tokens(path: str, found: Policy, tokenizer: Any) -> None:
    """A model scores another's tokens only where each id means the same to both."""
    theirs, ours = found.tokenizer.get_vocab(), tokenizer.get_vocab()
    rows = found.model.get_input_embeddings().weight.shape[0]
    if theirs == ours and rows > max(ours.values()):
        return
    name = getattr(tokenizer, "name_or_path", "") or "built in"
    differ = sorted({*theirs.items()} ^ {*ours.items()}, key=lambda item: (item[1], item[0]))
    shown = ", ".join(f"{token!r:.20} = {number}" for token, number in differ[:2])
    raise ValueError(
        f"model {path!r} has a vocabulary of {len(theirs)} tokens and {rows} embeddings, expected "
        f"the {len(ours)} tokens of the policy's tokenizer ({name})"
        + (f"; they differ in {len(differ)}, first in {shown}" if differ else "")
        + "; give the model that the policy was fine-tuned from, saved with the policy's tokenizer "
        "and its embeddings resized where fine-tuning added tokens"
    )


def open_host(
    recipe: Recipe, spec: Any, policy: Policy, start: Reference | None = None
) -> RewardHost:
    """A reward host that lends the tree ``spec`` what it needs of ``policy`` and its start; to be
    opened before the first update. ``start`` is the frozen start policy where there is one already.
    """
    reward = build_reward(spec)
    needs = {node.need for node in walk(reward)}
    temperature = recipe.rollout.temperature
    own = ModelScorer(policy, temperature=temperature) if "policy_logprobs" in needs else None
    by_itself = "judge" in needs and _judges_itself(recipe)
    if start is None and (by_itself or "frozen_logprobs" in needs):
        start = Reference(policy)
    frozen = ModelScorer(start, temperature=1.0) if start and "frozen_logprobs" in needs else None
    return RewardHost(
        reward,
        policy=own,
        frozen=frozen,
        judge=_open_judge(recipe, start) if "judge" in needs else None,
        open_model=FrozenModels(policy, recipe) if frozen else None,
        embed_tokens=TokenTable(policy) if "frozen_embeddings" in needs else None,
        **recipe.reward_host.model_dump(),
    )


def _judges_itself(recipe: Recipe) -> bool:
    return recipe.judge is not None and judge_options(recipe.judge) is PolicyJudgeOptions


def _open_judge(recipe: Recipe, start: Reference | None) -> Judge | None:
    if recipe.judge is None:
        return None
    if start and _judges_itself(recipe):
        from llmalign.self_judge import PolicyJudge

        return PolicyJudge(start, PolicyJudgeOptions(**recipe.judge))
    from llmalign.rewards.judge import OpenAIJudge

    return OpenAIJudge(**recipe.judge)
