"""SAPO: a smooth gate on the ratio in place of a clip."""

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.bounds import ANY_AGGREGATE
from llmalign.losses.policy.ratio import PolicyStats, log_ratio, policy_stats
from llmalign.losses.registry import LOSSES


@LOSSES.register(
    "sapo",
    paper="Gao et al. 2025 (SAPO), arXiv:2511.20347",
    traits={"stage": "policy", "level": "token", "aggregates": ANY_AGGREGATE},
    tau_pos=1.0,
    tau_neg=1.05,
)
def sapo(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    tau_pos: float,
    tau_neg: float,
) -> tuple[Tensor, PolicyStats]:
    """Advantage times a sigmoid gate of the ratio (SAPO).

        loss = -A * (4 / tau) * sigmoid(tau * (rho - 1))
        tau  = tau_pos where A > 0, else tau_neg

    At ratio 1 the gradient is that of REINFORCE; away from it, on either side, it fades, faster
    for the larger tau.

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``clipped``.
        tau_pos, tau_neg: steepness of the gate, > 0.
    Returns: loss_BT in units of reward, 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, or a tau is not > 0.
    Source: Gao et al. 2025, arXiv:2511.20347, with ``sequence_mean``.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    for name, tau in {"tau_pos": tau_pos, "tau_neg": tau_neg}.items():
        if not tau > 0:
            raise ValueError(f"{name} is {tau!r}, expected > 0")
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    tau_BT = torch.full_like(adv_BT, tau_neg).masked_fill(adv_BT > 0, tau_pos)
    loss_BT = -adv_BT * (4 / tau_BT) * torch.sigmoid(tau_BT * torch.expm1(log_rho_BT))
    return loss_BT, policy_stats(log_rho_BT, mask_BT)
