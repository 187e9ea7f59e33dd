"""Advantages from comparisons of a group's samples, where nobody can give an absolute score.

Shape letters: B samples, T response tokens, P groups, J judgements of one pair.
"""

import torch
from torch import Tensor

from llmalign.advantages.groups import spread
from llmalign.advantages.registry import ADVANTAGES
from llmalign.advantages.steps import sum_by


def antisymmetric(judged_BB: Tensor) -> Tensor:
    """Both presentation orders averaged: d_ij = (judged_ij - judged_ji) / 2, float64 [B, B].

    ``judged_BB[i, j]`` is how far i beats j when i is shown first. NaN (not judged, or not
    readable) leaves the other order alone, and is a tie where both are.
    """
    judged_BB = judged_BB.detach().double()
    both_BB2 = torch.stack([judged_BB, -judged_BB.T], -1)
    known_BB2 = ~both_BB2.isnan()
    total_BB = torch.where(known_BB2, both_BB2, 0.0).sum(-1)
    return total_BB / known_BB2.sum(-1).clamp(min=1)


def both_orders(p_first_B: Tensor, p_second_B: Tensor, same_B: Tensor | None = None) -> Tensor:
    """How surely a response beats its prompt's anchor answer, over both orders (Pairwise-RL).

        R = (P(response wins | shown first) + P(response wins | shown second)) / 2

    Args: p_first_B, p_second_B: in [0, 1]; NaN where the judge could not be read.
        same_B: bool, the response is the anchor word for word: R is then 1/2 without a judge.
    Returns: float64 [B], in [0, 1]; NaN where either order is missing, as one alone carries the
        judge's preference for a position.
    Raises: ValueError: a probability lies outside [0, 1].
    Source: Pairwise-RL, arXiv:2504.04950; reconstructed from the abstract.
    """
    for name, p_B in (("p_first_B", p_first_B), ("p_second_B", p_second_B)):
        if ((p_B < 0) | (p_B > 1)).any():
            raise ValueError(f"{name} holds {_outside(p_B)}, expected values in [0, 1]")
    reward_B = (p_first_B.detach().double() + p_second_B.detach().double()) / 2
    return reward_B if same_B is None else torch.where(same_B, 0.5, reward_B)


@ADVANTAGES.register(
    "brpo",
    paper="Writing-Zero (BRPO), arXiv:2506.00103",
    max_skew=0.6,
)
def brpo(
    margin_BJ: Tensor,
    reference_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    *,
    max_skew: float,
) -> Tensor:
    """1 for a sample that beats a random sample of its group in every judgement, else -1 (BRPO).

        A_i = 1 if margin_ij > 0 for every judgement j, else -1      A_reference = 0
        a group with |sum of A| / size > max_skew is left out: its A are 0

    A tie and an unreadable judgement count as not preferred. A reference much better or worse than
    the rest would push all one way; the skew filter drops such groups.

    Args:
        margin_BJ: score of the sample minus score of its group's reference in each judgement (vote
            or presentation order), any unit; NaN: not readable. Not read for the reference.
        reference_B: bool, exactly one sample of each group, drawn anew at every step.
        group_B: int64 group index from 0.
        mask_BT: bool, True for tokens the policy itself wrote.
        max_skew: largest |sum of A| / size that is kept, in [0, 1].
    Returns: adv_BT float64.
    Raises: TypeError, ValueError: a shape, dtype or option is off, or a group has no reference or
        several.
    Source: Writing-Zero, arXiv:2506.00103, from digests; what an unreadable judgement counts is
        reconstructed.
    """
    if not 0 <= max_skew <= 1:
        raise ValueError(f"max_skew is {max_skew!r}, expected a number in [0, 1]")
    adv_B = bootstrapped(margin_BJ, reference_B, group_B)
    kept_B = skew(adv_B, group_B) <= max_skew
    return spread(torch.where(kept_B, adv_B, 0.0), mask_BT)


def bootstrapped(margin_BJ: Tensor, reference_B: Tensor, group_B: Tensor) -> Tensor:
    """The advantages of ``brpo`` before its filter: -1, 0 (the reference) or 1, float64 [B]."""
    if margin_BJ.dim() != 2 or len(margin_BJ) != len(group_B):
        raise ValueError(
            f"margin_BJ has shape {tuple(margin_BJ.shape)}, expected ({len(group_B)}, J)"
        )
    if reference_B.dtype != torch.bool or reference_B.shape != group_B.shape:
        raise TypeError(
            f"reference_B is {reference_B.dtype} of shape {tuple(reference_B.shape)}, expected "
            f"torch.bool of shape {tuple(group_B.shape)}"
        )
    references_B = sum_by(reference_B.double(), group_B)
    if (references_B != 1).any():
        wrong = group_B[references_B != 1][0]
        raise ValueError(f"group {int(wrong)} has {int(references_B[group_B == wrong][0])} "
                         "references, expected 1; draw one sample of each group")  # fmt: skip
    wins_B = (margin_BJ.detach() > 0).all(1)
    return torch.where(reference_B, 0.0, torch.where(wins_B, 1.0, -1.0)).double()


def skew(adv_B: Tensor, group_B: Tensor) -> Tensor:
    """|sum of advantages| / size of each sample's group, [B]: 1 where all point one way."""
    return sum_by(adv_B, group_B).abs() / sum_by(torch.ones_like(adv_B), group_B)


@ADVANTAGES.register(
    "pairwise_wins",
    paper="Hong et al. 2025 (Think-RM), arXiv:2505.16265",
    eps=1e-6,
)
def pairwise_wins(margin_BB: Tensor, group_B: Tensor, mask_BT: Tensor, *, eps: float) -> Tensor:
    """Mean margin of a sample over all samples of its group, normalised (Think-RM).

        A_i = (1 / G) sum_j d_ij / sqrt(sum_ij d_ij^2 / (2 G (G - 1)) + eps)

    With d_ij = r_i - r_j this is ``group`` with ddof 1. Comparisons need not be transitive. All
    G (G - 1) / 2 pairs are judged, twice where both orders are.

    Args:
        margin_BB: how far sample i beats j, antisymmetric within a group (see ``antisymmetric``);
            what stands between groups is not read, NaN within a group is a tie.
        group_B: int64 group index from 0.
        mask_BT: bool, True for tokens the policy itself wrote.
        eps: added to the mean square, > 0.
    Returns: adv_BT float64, in standard deviations; 0 for a group of one or without a margin.
    Raises: ValueError: a shape or option is off, or the margins are not antisymmetric.
    Source: Think-RM, arXiv:2505.16265, and its released code, whose margins weigh each judgement
        by the inverse length of its text and judge one order alone; neither is part of this.
    """
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
    if margin_BB.shape != (len(group_B), len(group_B)):
        raise ValueError(
            f"margin_BB has shape {tuple(margin_BB.shape)}, expected "
            f"({len(group_B)}, {len(group_B)})"
        )
    together_BB = (group_B[:, None] == group_B) & ~torch.eye(len(group_B), dtype=torch.bool).to(
        group_B.device
    )
    margin_BB = margin_BB.detach().double()
    margin_BB = torch.where(together_BB & ~margin_BB.isnan(), margin_BB, 0.0)
    off = (margin_BB + margin_BB.T).abs().max().item() if len(group_B) else 0.0
    if off > 1e-9:
        raise ValueError(
            f"margin_BB is not antisymmetric, off by {off:.3g}; average both orders first"
        )
    size_B = together_BB.sum(1).double() + 1
    square_B = sum_by((margin_BB**2).sum(1), group_B)
    scale_B = (square_B / (2 * size_B * (size_B - 1)).clamp(min=1) + eps).sqrt()
    return spread(margin_BB.sum(1) / size_B / scale_B, mask_BT)


def _outside(p_B: Tensor) -> float:
    return float(p_B[(p_B < 0) | (p_B > 1)][0])
