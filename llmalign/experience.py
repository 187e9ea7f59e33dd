"""What one step of sampling leaves: scored groups, their tensors, their records and figures.

Shape letters in this file
    B  samples of a step    T  response tokens, right-padded
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmalign.critic import ValueSums
from llmalign.rewards import Group, Score
from llmalign.rollout.tree import TreeGroup
from llmalign.truncation import pad_kept
from llmalign.verifiers import Verdict


@dataclass
class ScoredGroup:
    """A group, its scores and its prompt's tokens.

    Attributes:
        age: optimizer steps since its samples were drawn, where it is used again; 0: fresh.
        tree: where the samples branch; None where they do not.
        chosen: which samples are trained on, where the advantage compares all; None: all of them.
    """

    group: Group
    scores: list[Score]
    prompt_ids: tuple[int, ...]
    age: int = 0
    tree: TreeGroup | None = None
    chosen: tuple[int, ...] | None = None

    def metric(self, name: str | None) -> list[float | None]:
        """The value of reward node ``name`` per sample; None: the reward itself."""
        if name is None:
            return [s.value for s in self.scores]
        return [s.aspects[name] for s in self.scores]

    def differs(self, name: str | None) -> bool:
        """Whether the samples' values differ, so that the group teaches something."""
        return len({v for v in self.metric(name) if v is not None}) > 1


@dataclass
class Experience:
    """One step's samples as tensors. Rows of samples that nobody could score are masked out.

    Attributes:
        reward_B: float64, NaN where not scorable.
        group_B: number of each sample's group.
        mask_BT: tokens the policy wrote.
        adv_BT: advantage of each token.
        loss_mask_BT: tokens that are in the loss; token weights of 0 take some out.
        logp_old_BT: of the policy that sampled; None: the policy itself, still.
        entropy_BT: of the policy before the first update; made together with ``logp_old_BT``.
        logp_ref_BT: of the reference.
        value_BT, return_BT: what the critic expected before each token, and what it is to learn.
        value_sums: what its updates on this batch add up.
        weight_BT: for what the engine that sampled is off the trainer.
        mismatch: statistics of those weights.
    """

    groups: list[ScoredGroup]
    reward_B: Tensor
    group_B: Tensor
    mask_BT: Tensor
    adv_BT: Tensor = field(init=False)
    loss_mask_BT: Tensor = field(init=False)
    logp_old_BT: Tensor | None = None
    entropy_BT: Tensor | None = None
    value_BT: Tensor | None = None
    return_BT: Tensor | None = None
    value_sums: ValueSums = field(default_factory=ValueSums)
    logp_ref_BT: Tensor | None = None
    weight_BT: Tensor | None = None
    mismatch: dict[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(prompt ids, response ids) of every sample."""
        return [(g.prompt_ids, s.token_ids) for g in self.groups for s in g.group.samples]

    @property
    def logp_sampled_BT(self) -> Tensor:
        """Log-probability of each token as the engine reported it; NaN where it did not."""
        samples = [s for g in self.groups for s in g.group.samples]
        logp_BT = torch.full(self.mask_BT.shape, float("nan"))
        for b, sample in enumerate(samples):
            logp_BT[b, : len(sample.logprobs)] = torch.tensor(sample.logprobs)
        return logp_BT

    def kept(self, portion: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor] | None:
        """ids_NK and counts_N of the tokens of some rows, as ``Policy.logprobs`` takes them."""
        samples = [s for g in self.groups for s in g.group.samples]
        chosen = [samples[b] for b in portion]
        if not any(s.kept_counts for s in chosen):
            return None
        recorded = (b"".join(s.kept_ids for s in chosen), b"".join(s.kept_counts for s in chosen))
        id_N, counts_N = (torch.frombuffer(bytearray(each), dtype=torch.int32) for each in recorded)
        return pad_kept(id_N.to(device), counts_N.to(device)), counts_N.to(device)

    @property
    def adv_B(self) -> Tensor:
        """Mean advantage of each sample's tokens; 0 where no token counts."""
        count_B = self.mask_BT.sum(1)
        sum_B = torch.where(self.mask_BT, self.adv_BT, 0.0).sum(1)
        return sum_B / count_B.clamp(min=1)

    def scores_and_advantages(self) -> tuple[list[list[Score]], list[list[float]]]:
        """Scores and mean advantages, by group and sample."""
        left = iter(self.adv_B.tolist())
        return [g.scores for g in self.groups], [
            [next(left) for _ in g.scores] for g in self.groups
        ]


def sample_records(
    experience: Experience, discarded: Sequence[ScoredGroup], step: int, tokenizer: Any
) -> Iterator[dict[str, Any]]:
    """One record per sample, as ``samples/*.jsonl`` keeps it; discarded ones say so in ``note``."""
    row, adv_B = 0, experience.adv_B.tolist()
    has_token_B = experience.mask_BT.any(1).tolist()
    for number, scored in enumerate([*experience.groups, *discarded]):
        prompt = tokenizer.decode(scored.prompt_ids, skip_special_tokens=False)
        trained = number < len(experience.groups)
        for sample, score in zip(scored.group.samples, scored.scores, strict=True):
            judgement = score.judgement
            yield {
                "step": step,
                "problem_id": scored.group.problem.id,
                "prompt": prompt,
                "answer": scored.group.problem.columns.get("answer"),
                "completion": sample.text,
                "finish_reason": sample.finish_reason,
                "tokens": len(sample.token_ids),
                "reward": score.value,
                "aspects": dict(score.aspects),
                "verdict": judgement.verdict.value if judgement else None,
                "extracted": judgement.answer if judgement else None,
                "why": judgement.why if judgement else "",
                "advantage": adv_B[row] if trained and has_token_B[row] else None,
                "note": score.note if trained else f"{score.note} left out by dynamic sampling",
            }
            row += 1


def sample_metrics(groups: Sequence[ScoredGroup]) -> dict[str, Any]:
    """What the samples of a step say: rewards by node, verdicts, lengths."""
    samples = [s for g in groups for s in g.group.samples]
    scores = [s for g in groups for s in g.scores]
    reward = torch.tensor([s.value for s in scores if s.value is not None], dtype=torch.float64)
    verdicts = [s.judgement.verdict for s in scores if s.judgement is not None]
    decided = [v for v in verdicts if v is not Verdict.UNDECIDED]
    tokens = sum(len(s.token_ids) for s in samples)
    aspects = {name for s in scores for name in s.aspects}
    return {
        "reward_length": reward_length(groups),
        "reward": float(reward.mean()) if len(reward) else None,
        "reward_std": float(reward.std(correction=0)) if len(reward) else None,
        "accuracy": decided.count(Verdict.RIGHT) / len(decided) if decided else None,
        "tokens_mean": tokens / len(samples),
        "truncated_share": sum(s.truncated for s in samples) / len(samples),
        "undecided": verdicts.count(Verdict.UNDECIDED),
        "not_scorable": sum(s.value is None for s in scores),
        "tokens_generated": tokens,
    } | {f"reward/{name}": _mean_aspect(scores, name) for name in sorted(aspects)}


def reward_length(groups: Sequence[ScoredGroup]) -> float | None:
    """Correlation of reward and length in tokens, both centred within groups; in [-1, 1]. None
    where one of them does not differ within any group."""
    rewards, lengths = [], []
    for group in groups:
        pairs = [
            (score.value, float(len(sample.token_ids)))
            for sample, score in zip(group.group.samples, group.scores, strict=True)
            if score.value is not None
        ]
        if len({r for r, _ in pairs}) > 1 and len({n for _, n in pairs}) > 1:
            mean_r, mean_n = (statistics.fmean(column) for column in zip(*pairs, strict=True))
            rewards += [r - mean_r for r, _ in pairs]
            lengths += [n - mean_n for _, n in pairs]
    return statistics.correlation(rewards, lengths) if rewards else None


def _mean_aspect(scores: Sequence[Score], name: str) -> float | None:
    values = [v for s in scores if (v := s.aspects.get(name)) is not None]
    return sum(values) / len(values) if values else None
