"""What one step of sampling leaves: scored groups, their tensors, their records and figures.

Shape letters in this file
    B  samples of a step    T  response tokens, right-padded
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmalign.rewards import Group, Score
from llmalign.verifiers import Verdict


@dataclass
class ScoredGroup:
    """A group, its scores and its prompt's tokens."""

    group: Group
    scores: list[Score]
    prompt_ids: tuple[int, ...]

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
    """One step's samples as tensors. Rows of samples that nobody could score are masked out."""

    groups: list[ScoredGroup]
    reward_B: Tensor  # float64, NaN where not scorable
    group_B: Tensor
    mask_BT: Tensor
    adv_BT: Tensor = field(init=False)
    logp_old_BT: Tensor | None = None
    logp_ref_BT: Tensor | None = None

    @property
    def rows(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(prompt ids, response ids) of every sample."""
        return [(g.prompt_ids, s.token_ids) for g in self.groups for s in g.group.samples]


def sample_records(
    experience: Experience, discarded: Sequence[ScoredGroup], step: int, tokenizer: Any
) -> Iterator[dict[str, Any]]:
    """One record per sample, as ``samples/*.jsonl`` keeps it; discarded ones say so in ``note``."""
    row = 0
    for number, scored in enumerate([*experience.groups, *discarded]):
        prompt = tokenizer.decode(scored.prompt_ids, skip_special_tokens=False)
        trained = number < len(experience.groups)
        for sample, score in zip(scored.group.samples, scored.scores, strict=True):
            judgement = score.judgement
            adv_T = experience.adv_BT[row][experience.mask_BT[row]] if trained else ()
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
                "advantage": float(sum(adv_T) / len(adv_T)) if len(adv_T) else None,
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
        "reward": float(reward.mean()) if len(reward) else None,
        "reward_std": float(reward.std(correction=0)) if len(reward) else None,
        "accuracy": decided.count(Verdict.RIGHT) / len(decided) if decided else None,
        "tokens_mean": tokens / len(samples),
        "truncated_share": sum(s.truncated for s in samples) / len(samples),
        "undecided": verdicts.count(Verdict.UNDECIDED),
        "not_scorable": sum(s.value is None for s in scores),
        "tokens_generated": tokens,
    } | {f"reward/{name}": _mean_aspect(scores, name) for name in sorted(aspects)}


def _mean_aspect(scores: Sequence[Score], name: str) -> float | None:
    values = [v for s in scores if (v := s.aspects.get(name)) is not None]
    return sum(values) / len(values) if values else None
