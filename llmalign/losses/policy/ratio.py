"""The importance ratio of new to old policy, and the statistics every policy loss reports."""

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0


@dataclass(frozen=True)
class PolicyStats:
    """Detached sums over the tokens under the mask, so that parts add up; scalars.

    Attributes:
        tokens: tokens under the mask.
        kl_old_nats: sum of rho - 1 - log rho, which estimates KL(old || new).
        log_rho_nats: sum of log rho; its negative is k1 of the same KL.
        rho_max: the largest ratio. The one entry that is no sum: take the maximum over parts.
    """

    tokens: Tensor
    kl_old_nats: Tensor
    log_rho_nats: Tensor
    rho_max: Tensor


def log_ratio(logp_BT: Tensor, logp_old_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """logp - logp_old, clamped to +-20 so that exp stays finite; 0 (ratio 1) outside the mask.

    No gradient where the clamp acts. Neither tensor is read outside the mask.
    """
    old_BT = torch.where(mask_BT, logp_old_BT.detach(), 0.0)
    log_rho_BT = torch.where(mask_BT, logp_BT, 0.0) - old_BT
    return log_rho_BT.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def policy_stats(log_rho_BT: Tensor, mask_BT: Tensor) -> PolicyStats:
    """Statistics of log-ratios that are 0 outside the mask."""
    log_rho_BT = log_rho_BT.detach()
    # Outside the mask log rho is 0, which adds nothing to a sum; a maximum must not see it.
    rho_BT = torch.where(mask_BT, log_rho_BT.exp(), 0.0)
    return PolicyStats(
        tokens=mask_BT.sum(),
        kl_old_nats=(torch.expm1(log_rho_BT) - log_rho_BT).sum(),
        log_rho_nats=log_rho_BT.sum(),
        rho_max=rho_BT.max() if rho_BT.numel() else rho_BT.sum(),
    )
