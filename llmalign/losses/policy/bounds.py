"""Bounds on a ratio: their check, the clipped surrogate, and how many tokens lie beyond them."""

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from llmalign.losses.aggregate import Aggregate
from llmalign.losses.policy.ratio import PolicyStats, policy_stats

ANY_AGGREGATE: tuple[str, ...] = get_args(Aggregate)


@dataclass(frozen=True)
class BoundStats(PolicyStats):
    """What ``PolicyStats`` holds, and counts of tokens on which a bound acts.

    Attributes:
        clipped_low: tokens on which the lower bound acts.
        clipped_high: tokens on which the upper bound acts.
    """

    clipped_low: Tensor
    clipped_high: Tensor


def check_clip(clip_low: float, clip_high: float) -> None:
    """Raises ValueError unless the bounds 1 - clip_low and 1 + clip_high lie around 1."""
    if not 0 <= clip_low < 1:
        raise ValueError(f"clip_low is {clip_low!r}, expected a number in [0, 1)")
    if not clip_high >= 0:
        raise ValueError(f"clip_high is {clip_high!r}, expected >= 0")


def surrogate(
    rho_BT: Tensor, adv_BT: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The pessimistic surrogate of any ratio, and where a bound takes the gradient away.

    Returns: loss_BT = max(-rho * A, -clip(rho, 1 - clip_low, 1 + clip_high) * A); bool masks of
        the tokens held at the lower bound (A < 0) and at the upper one (A > 0).
    """
    low, high = 1 - clip_low, 1 + clip_high
    loss_BT = torch.maximum(-rho_BT * adv_BT, -rho_BT.clamp(low, high) * adv_BT)
    return loss_BT, (adv_BT < 0) & (rho_BT < low), (adv_BT > 0) & (rho_BT > high)


def bound_stats(log_rho_BT: Tensor, mask_BT: Tensor, low_BT: Tensor, high_BT: Tensor) -> BoundStats:
    """Statistics of log-ratios that are 0 outside the mask; ``low_BT``, ``high_BT``: bool."""
    return BoundStats(
        **vars(policy_stats(log_rho_BT, mask_BT)),
        clipped_low=(low_BT & mask_BT).sum(),
        clipped_high=(high_BT & mask_BT).sum(),
    )
