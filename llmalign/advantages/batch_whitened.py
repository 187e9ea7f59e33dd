"""REINFORCE++: discounted returns, whitened over all tokens of the batch."""

from typing import Literal

import torch
from torch import Tensor

from llmalign.advantages.groups import group_statistics
from llmalign.advantages.registry import ADVANTAGES

Baseline = Literal["none", "group"]


@ADVANTAGES.register(
    "batch_whitened",
    paper="Hu et al. 2025 (REINFORCE++), arXiv:2501.03262",
    gamma=1.0,
    eps=1e-8,
    baseline="none",
)
def batch_whitened(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    *,
    gamma: float,
    eps: float,
    baseline: Baseline,
) -> Tensor:
    """Return-to-go of each token, whitened over all tokens of the batch (REINFORCE++).

        r_t = penalty_t, plus the reward on the sample's last token
        G_t = sum_{s >= t} gamma^(s - t) r_s
        A   = (G - mean) / sqrt(var + eps)      over all tokens of scored samples, var unbiased

    Give the whole batch: the mean and variance are its. Tokens outside the mask are skipped, and
    time does not pass there, so that a tool's answer in the middle cuts no return. With
    ``baseline='group'`` (REINFORCE++-baseline) the group's mean reward leaves the reward first; a
    group's only scored sample keeps its raw reward there.

    Args: reward_B, group_B, mask_BT, penalty_BT: as ``group``.
        gamma: discount per token, in [0, 1].
        eps: added to the variance, > 0.
        baseline: ``none`` or ``group``.
    Returns: adv_BT float64, in standard deviations; exactly 0 where all returns are equal.
    Raises: TypeError, ValueError: a shape, dtype or option is off, or fewer than two tokens are
        left to whiten over.
    Source: Hu et al. 2025, arXiv:2501.03262.
    """
    _check_options(gamma, eps, baseline)
    # Without penalties: the group mean is of rewards, while penalties stay on their own tokens.
    stats = group_statistics(reward_B, group_B, mask_BT, torch.zeros_like(penalty_BT))
    outcome_B = stats.centred_B("keep") if baseline == "group" else stats.total_B
    counts_BT = mask_BT & stats.scored_B[:, None]
    token_BT = torch.where(counts_BT, penalty_BT.detach().double(), 0.0)
    token_BT = token_BT + is_last(counts_BT) * outcome_B[:, None]
    return whitened(discounted_returns(token_BT, counts_BT, gamma=gamma), counts_BT, eps)


def discounted_returns(token_BT: Tensor, mask_BT: Tensor, *, gamma: float) -> Tensor:
    """G_t = r_t + gamma * G_{t'} with t' the next token under the mask; [B, T], 0 outside it."""
    return_BT = torch.zeros_like(token_BT)
    running_B = token_BT.new_zeros(len(token_BT))
    for t in reversed(range(token_BT.shape[1])):
        running_B = torch.where(mask_BT[:, t], token_BT[:, t] + gamma * running_B, running_B)
        return_BT[:, t] = running_B
    return torch.where(mask_BT, return_BT, 0.0)


def is_last(mask_BT: Tensor) -> Tensor:
    """bool [B, T]: the last True of each row."""
    after_BT = mask_BT.flip(1).cumsum(1).flip(1)
    return mask_BT & (after_BT == 1)


def whitened(value_BT: Tensor, mask_BT: Tensor, eps: float) -> Tensor:
    value = value_BT[mask_BT]
    if len(value) < 2:
        raise ValueError(
            f"mask_BT leaves {len(value)} tokens of scored samples, expected at least 2 to whiten "
            "over; use a larger batch"
        )
    if (value == value[0]).all():
        return torch.zeros_like(value_BT)
    variance = value.var(correction=1)
    return torch.where(mask_BT, (value_BT - value.mean()) * torch.rsqrt(variance + eps), 0.0)


def _check_options(gamma: float, eps: float, baseline: str) -> None:
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is {gamma!r}, expected a number in [0, 1]")
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
    if baseline not in ("none", "group"):
        raise ValueError(f"baseline is {baseline!r:.80}, expected 'none' or 'group'")
