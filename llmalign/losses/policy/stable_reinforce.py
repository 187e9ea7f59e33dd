"""StableReinforce: the ratio is bounded before it is computed."""

import math

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.bounds import (
    ANY_AGGREGATE,
    BoundStats,
    bound_stats,
    check_clip,
    surrogate,
)
from llmalign.losses.policy.ratio import log_ratio
from llmalign.losses.registry import LOSSES


@LOSSES.register(
    "stable_reinforce",
    paper="Zhang et al. 2025 (R1-Reward), arXiv:2505.02835",
    traits={"stage": "policy", "level": "token", "aggregates": ANY_AGGREGATE},
    clip_low=0.2,
    clip_high=0.2,
    ratio_min=1e-3,
    ratio_max=1e3,
)
def stable_reinforce(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    ratio_min: float,
    ratio_max: float,
) -> tuple[Tensor, BoundStats]:
    """Clipped surrogate of a ratio whose logarithm is bounded first (StableReinforce's pre-clip).

        rho  = exp(clip(logp - logp_old, ln ratio_min, ln ratio_max))
        loss = -min(rho * A, clip(rho, 1 - clip_low, 1 + clip_high) * A)

    It differs from ``clipped`` only where A < 0 and rho > ratio_max: there the loss is held and
    the gradient is gone. The method's other half filters advantages, no part of a loss.

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``clipped``.
        clip_low, clip_high: distances of the bounds from 1, in [0, 1) and >= 0.
        ratio_min, ratio_max: bounds on the ratio itself, around 1 - clip_low and 1 + clip_high.
    Returns: loss_BT in units of reward, 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, or a bound lies outside its range.
    Source: Zhang et al. 2025, arXiv:2505.02835.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    check_clip(clip_low, clip_high)
    if not 0 < ratio_min <= 1 - clip_low:
        raise ValueError(
            f"ratio_min is {ratio_min!r}, expected a number in (0, 1 - clip_low = {1 - clip_low:g}]"
        )
    if not ratio_max >= 1 + clip_high:
        raise ValueError(
            f"ratio_max is {ratio_max!r}, expected >= 1 + clip_high = {1 + clip_high:g}"
        )
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    rho_BT = bounded_ratio(log_rho_BT, ratio_min=ratio_min, ratio_max=ratio_max)
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    loss_BT, low_BT, high_BT = surrogate(rho_BT, adv_BT, clip_low=clip_low, clip_high=clip_high)
    return loss_BT, bound_stats(log_rho_BT, mask_BT, low_BT, high_BT)


def bounded_ratio(log_rho: Tensor, *, ratio_min: float, ratio_max: float) -> Tensor:
    """exp of the log-ratio held within [ln ratio_min, ln ratio_max]; no gradient where held."""
    return log_rho.clamp(math.log(ratio_min), math.log(ratio_max)).exp()
