"""The clipped surrogate of PPO, GRPO and DAPO."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.ratio import PolicyStats, log_ratio, policy_stats
from llmalign.losses.registry import LOSSES


@dataclass(frozen=True)
class ClippedStats(PolicyStats):
    """What ``PolicyStats`` holds, and counts of tokens without gradient.

    Attributes:
        clipped_low: A < 0 and rho < 1 - clip_low.
        clipped_high: A > 0 and rho > 1 + clip_high.
        clipped_dual: A < 0 and rho > dual_clip.
    """

    clipped_low: Tensor
    clipped_high: Tensor
    clipped_dual: Tensor


@LOSSES.register(
    "clipped",
    paper="Schulman et al. 2017 (PPO), arXiv:1707.06347; two bounds: Yu et al. 2025 (DAPO), "
    "arXiv:2503.14476",
    traits={"stage": "policy", "level": "token"},
    clip_low=0.2,
    clip_high=0.2,
    dual_clip=None,
)
def clipped(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> tuple[Tensor, ClippedStats]:
    """Negative clipped surrogate of each token (PPO, GRPO, DAPO).

        rho  = exp(clamp(logp - logp_old, -20, 20))
        loss = -min(rho * A, clip(rho, 1 - clip_low, 1 + clip_high) * A)
        loss = min(loss, -dual_clip * A)        where A < 0, if dual_clip is given

    Nothing is summed: the caller owns the weights, because it alone knows the whole batch.

    Args:
        logp_BT: log-probability of each sampled token under the policy being trained, in nats;
            carries the gradient.
        logp_old_BT: the same under the policy that sampled it; no gradient.
        adv_BT: advantage of each token, in units of reward; no gradient. None of the three is read
            where ``mask_BT`` is False, all may be NaN there.
        mask_BT: bool, True for tokens the policy itself wrote.
        clip_low: distance of the lower bound from 1, in [0, 1).
        clip_high: distance of the upper bound from 1, >= 0.
        dual_clip: cap on the ratio where A < 0, > 1 + clip_high; None: no cap.
    Returns: loss_BT in units of reward, 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, or a bound lies outside its range.
    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7; two bounds: Yu et al. 2025 (DAPO),
        arXiv:2503.14476; dual clip: Ye et al. 2019, arXiv:1912.09729. The clamp is verl's.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    _check_bounds(clip_low, clip_high, dual_clip)
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    rho_BT = log_rho_BT.exp()
    low, high = 1 - clip_low, 1 + clip_high
    loss_BT = torch.maximum(-rho_BT * adv_BT, -rho_BT.clamp(low, high) * adv_BT)
    cap = float("inf") if dual_clip is None else dual_clip
    capped_BT = (adv_BT < 0) & (rho_BT > cap)
    if dual_clip is not None:
        loss_BT = torch.where(capped_BT, -dual_clip * adv_BT, loss_BT)
    stats = ClippedStats(
        **vars(policy_stats(log_rho_BT, mask_BT)),
        clipped_low=((adv_BT < 0) & (rho_BT < low)).sum(),
        clipped_high=((adv_BT > 0) & (rho_BT > high)).sum(),
        clipped_dual=capped_BT.sum(),
    )
    return loss_BT, stats


def _check_bounds(clip_low: float, clip_high: float, dual_clip: float | None) -> None:
    if not 0 <= clip_low < 1:
        raise ValueError(f"clip_low is {clip_low!r}, expected a number in [0, 1)")
    if not clip_high >= 0:
        raise ValueError(f"clip_high is {clip_high!r}, expected >= 0")
    if dual_clip is not None and not dual_clip > 1 + clip_high:
        raise ValueError(
            f"dual_clip is {dual_clip!r}, expected > 1 + clip_high = {1 + clip_high:g}, or None"
        )
