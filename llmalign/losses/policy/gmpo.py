"""GMPO: the geometric mean of clipped token ratios."""

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.bounds import BoundStats, bound_stats
from llmalign.losses.policy.ratio import log_ratio
from llmalign.losses.policy.sequence import SEQUENCE_MEAN, check_rows, row_mean, to_tokens
from llmalign.losses.registry import LOSSES


@LOSSES.register(
    "gmpo",
    paper="Zhao et al. 2025 (GMPO), arXiv:2507.20673",
    traits={"stage": "policy", "level": "sequence", "aggregates": SEQUENCE_MEAN},
    clip_low=0.4,
    clip_high=0.4,
)
def gmpo(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, BoundStats]:
    """Advantage times the geometric mean of the token ratios, clipped in the log (GMPO).

        c_t    = min(log_rho_t, clip_high)      where A_t > 0
        c_t    = max(log_rho_t, -clip_low)      where A_t < 0, else log_rho_t
        loss_i = -mean_t A_t * exp(mean_t c_t)  on each token of the sequence

    PPO's rule, token by token and in the log: a ratio is held only where going on would pay. The
    bounds are nats: 0.4 leaves ratios from 0.67 to 1.49.

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``clipped``, whole rows.
        clip_low, clip_high: bounds on the log-ratio in nats, >= 0.
    Returns: loss_BT in units of reward, the sequence's loss on each of its tokens (its mean over
        sequences needs ``sequence_mean``), 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, or a bound is negative.
    Source: Zhao et al. 2025, arXiv:2507.20673; several advantages in one sequence as verl does.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    check_rows(logp_BT)
    for name, bound in {"clip_low": clip_low, "clip_high": clip_high}.items():
        if not bound >= 0:
            raise ValueError(f"{name} is {bound!r}, expected >= 0 nats")
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    high_BT = (adv_BT > 0) & (log_rho_BT > clip_high)
    low_BT = (adv_BT < 0) & (log_rho_BT < -clip_low)
    held_BT = log_rho_BT.masked_fill(high_BT, clip_high).masked_fill(low_BT, -clip_low)
    loss_B = -row_mean(adv_BT, mask_BT) * row_mean(held_BT, mask_BT).exp()
    return to_tokens(loss_B, mask_BT), bound_stats(log_rho_BT, mask_BT, low_BT, high_BT)
