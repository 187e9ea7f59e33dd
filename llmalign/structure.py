"""What scores and trees say about parts of responses, as tensors: steps, spans, comparisons, paths.

Shape letters in this file
    B  samples of a step    K  steps of a response    S  spans    J  judgements of one pair
    D  branchings of a tree
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmalign.experience import Experience
from llmalign.rewards import Sample, StepScore
from llmalign.rewards.pairwise import against_reference, margins
from llmalign.rollout.tree import tree_tensors


def steps(experience: Experience, tokenizer: Any, asked_by: str) -> dict[str, Tensor]:
    """``step_reward_BK``, NaN where there is no step, and ``step_end_BK``, -1 there.

    A step ends with the token that its last character lies in; where several end in one token the
    last of them counts. The last step takes the tokens behind it along, as the end of the text.

    Raises: ValueError: no sample has step scores.
    """
    rows: list[list[tuple[int, float]]] = []
    for sample, found in _scored_steps(experience, asked_by):
        ends = token_counts(tokenizer, sample.token_ids, [step.end for step in found])
        by_end = {max(end, 1) - 1: step.value for end, step in zip(ends, found, strict=True)}
        if by_end:
            by_end[len(sample.token_ids) - 1] = by_end.pop(max(by_end))
        rows.append(sorted(by_end.items()))
    width = max(1, *map(len, rows))
    end_BK = torch.full((len(rows), width), -1, dtype=torch.int64)
    reward_BK = torch.full((len(rows), width), float("nan"), dtype=torch.float64)
    for b, row in enumerate(rows):
        for k, (end, value) in enumerate(row):
            end_BK[b, k], reward_BK[b, k] = end, value
    return {"step_reward_BK": reward_BK, "step_end_BK": end_BK}


def spans(experience: Experience, tokenizer: Any, asked_by: str) -> dict[str, Tensor]:
    """``span_BS2``, first token and the one behind the last, and ``value_BS``, of step scores; an
    empty span where there is none.

    Raises: ValueError: no sample has step scores.
    """
    rows = _scored_steps(experience, asked_by)
    width = max(1, *(len(found) for _, found in rows))
    span_BS2 = torch.zeros(len(rows), width, 2, dtype=torch.int64)
    value_BS = torch.zeros(len(rows), width, dtype=torch.float64)
    for b, (sample, found) in enumerate(rows):
        places = [place for step in found for place in (step.start + 1, step.end)]
        counts = token_counts(tokenizer, sample.token_ids, places)
        for s, step in enumerate(found):
            first, behind = counts[2 * s] - 1, counts[2 * s + 1]
            span_BS2[b, s] = torch.tensor([first, max(first, behind)])
            value_BS[b, s] = step.value
    return {"span_BS2": span_BS2, "value_BS": value_BS}


def _scored_steps(
    experience: Experience, asked_by: str
) -> list[tuple[Sample, Sequence[StepScore]]]:
    rows: list[tuple[Sample, Sequence[StepScore]]] = [
        (sample, score.steps)
        for g in experience.groups
        for sample, score in zip(g.group.samples, g.scores, strict=True)
    ]
    if not any(found for _, found in rows):
        raise ValueError(
            f"no sample has step scores, which {asked_by!r} needs; use a reward that scores steps, "
            "such as prm, or a function of your own that returns {value, steps} for each sample"
        )
    return rows


def token_counts(tokenizer: Any, token_ids: Sequence[int], places: Sequence[int]) -> list[int]:
    """How many tokens it takes for the text to have so many characters, at most all; by bisection,
    because a tokenizer need not be able to say where its tokens lie."""

    def length(count: int) -> int:
        return len(tokenizer.decode(token_ids[:count], skip_special_tokens=True))

    found = []
    for place in places:
        low, high = 0, len(token_ids)
        while low < high:
            middle = (low + high) // 2
            if length(middle) >= place:
                high = middle
            else:
                low = middle + 1
        found.append(low)
    return found


def margins_of_all(experience: Experience, asked_by: str) -> dict[str, Tensor]:
    """``margin_BB``, how far each sample beats each other of its group; 0 between groups.

    Raises: ValueError: no sample was compared with another of its group.
    """
    _check_compared(experience, asked_by, "all")
    blocks = [torch.tensor(margins(g.scores), dtype=torch.float64) for g in experience.groups]
    return {"margin_BB": torch.block_diag(*blocks)}


def margins_over_reference(experience: Experience, asked_by: str) -> dict[str, Tensor]:
    """``margin_BJ`` over each group's reference, and ``reference_B``.

    A group without one reference (its judge was down, a gate was closed) is taken out of the loss;
    its first sample then stands as the reference, as every group must have one.

    Raises: ValueError: no sample was compared with another of its group.
    """
    _check_compared(experience, asked_by, "reference")
    judged: list[list[float]] = []
    reference: list[bool] = []
    for number, g in enumerate(experience.groups):
        found, is_reference = against_reference(g.scores)
        if not any(is_reference):
            is_reference = [True] + is_reference[1:]
            experience.mask_BT[experience.group_B == number] = False
        judged, reference = judged + found, reference + is_reference
    width = max(1, *map(len, judged))
    padded = [row + [float("nan")] * (width - len(row)) for row in judged]
    return {
        "margin_BJ": torch.tensor(padded, dtype=torch.float64),
        "reference_B": torch.tensor(reference, dtype=torch.bool),
    }


def _check_compared(experience: Experience, asked_by: str, against: str) -> None:
    if not any(score.versus for g in experience.groups for score in g.scores):
        raise ValueError(
            f"no sample was compared with another, which {asked_by!r} needs; use the reward "
            f"`pairwise: {against}`"
        )


def tree_paths(experience: Experience) -> dict[str, Tensor]:
    """``path_BD`` and ``step_end_BD`` of samples that branched."""
    trees = [g.tree for g in experience.groups if g.tree is not None]
    path_BD, step_end_BD = tree_tensors(trees)
    return {"path_BD": path_BD, "step_end_BD": step_end_BD}


def node_values(experience: Experience, node: str) -> Tensor:
    """The value of reward node ``node`` per sample, NaN where it has none; float64 [B].

    Raises: ValueError: no such node was scored.
    """
    scores = [score for g in experience.groups for score in g.scores]
    if not any(node in score.aspects for score in scores):
        known = sorted({name for score in scores for name in score.aspects})
        raise ValueError(
            f"advantage.inputs names reward node {node!r}, expected one of {', '.join(known)}"
        )
    values = [score.aspects.get(node) for score in scores]
    return torch.tensor([float("nan") if v is None else v for v in values], dtype=torch.float64)
