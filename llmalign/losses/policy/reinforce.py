"""REINFORCE: no ratio, no clipping."""

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.ratio import PolicyStats, log_ratio, policy_stats
from llmalign.losses.registry import LOSSES


@LOSSES.register(
    "reinforce",
    paper="Williams 1992 (REINFORCE)",
    traits={"stage": "policy", "level": "token"},
)
def reinforce(
    logp_BT: Tensor, logp_old_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor
) -> tuple[Tensor, PolicyStats]:
    """Advantage times negative log-probability of each token: loss = -A * logp.

    The gradient is that of the expected reward only while ``logp`` is what sampled the tokens:
    nothing corrects for a policy that has moved on; ``kl_old_nats`` shows how far it has.

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``clipped``; ``logp_old_BT`` is for the
        statistics alone.
    Returns: loss_BT in units of reward times nats, 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off.
    Source: Williams 1992, Simple statistical gradient-following algorithms.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    loss_BT = -adv_BT * torch.where(mask_BT, logp_BT, 0.0)
    return loss_BT, policy_stats(log_ratio(logp_BT, logp_old_BT, mask_BT), mask_BT)
