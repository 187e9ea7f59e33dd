"""VESPO: REINFORCE under a soft weight of the whole sequence's ratio."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.ratio import MAX_LOG_RATIO, PolicyStats, log_ratio, policy_stats
from llmalign.losses.policy.sequence import check_rows, row_sum
from llmalign.losses.registry import LOSSES

MIN_LOG_WEIGHT = math.log(1e-8)


@dataclass(frozen=True)
class VespoStats(PolicyStats):
    """What ``PolicyStats`` holds, and the sum over tokens of the weight.

    Attributes:
        weight: sum of phi; over ``tokens`` it is the share of the gradient that is left.
    """

    weight: Tensor


@LOSSES.register(
    "vespo",
    paper="Shen et al. 2026 (VESPO), arXiv:2602.10693",
    traits={
        "stage": "policy",
        "level": "sequence",
        "aggregates": ("token_mean", "sequence_sum", "constant", "sum_norm"),
    },
    k_pos=2.0,
    lambda_pos=3.0,
    k_neg=3.0,
    lambda_neg=2.0,
)
def vespo(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    k_pos: float,
    lambda_pos: float,
    k_neg: float,
    lambda_neg: float,
) -> tuple[Tensor, VespoStats]:
    """Advantage times log-probability, weighted by a gamma-shaped function of the ratio (VESPO).

        w    = exp(sum_t log_rho_t)             the sequence's ratio, log w within [ln 1e-8, 20]
        phi  = exp(lambda) * w^k * exp(-lambda * w)         k, lambda by the sign of A; no gradient
        loss = -phi * A * logp

    phi is 1 at w = 1 and falls to 0 on both sides, so that a stale sequence fades out whole. The
    gradient is that of a whole sequence's log-probability: an aggregate must weigh its tokens
    alike whatever its length, which ``sequence_mean`` does not.

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``clipped``, whole rows.
        k_pos, k_neg: power of w where A >= 0 and where A < 0, >= 0.
        lambda_pos, lambda_neg: decay in w, > 0.
    Returns: loss_BT in units of reward times nats, 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, or an option lies outside its range.
    Source: Shen et al. 2026, arXiv:2602.10693; bounds on log w as in TRL.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    check_rows(logp_BT)
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    log_w_BT = row_sum(log_rho_BT.detach(), mask_BT)[:, None].expand_as(adv_BT)
    good_BT = gamma_weight(log_w_BT, k=k_pos, decay=lambda_pos)
    bad_BT = gamma_weight(log_w_BT, k=k_neg, decay=lambda_neg)
    phi_BT = torch.where(mask_BT, torch.where(adv_BT >= 0, good_BT, bad_BT), 0.0)
    loss_BT = -phi_BT * adv_BT * torch.where(mask_BT, logp_BT, 0.0)
    return loss_BT, VespoStats(**vars(policy_stats(log_rho_BT, mask_BT)), weight=phi_BT.sum())


def gamma_weight(log_w: Tensor, *, k: float, decay: float) -> Tensor:
    """phi(w) = exp(decay) * w^k * exp(-decay * w), with log w held within [ln 1e-8, 20].

    Raises: ValueError: ``k`` is negative or ``decay`` is not > 0.
    """
    if not k >= 0:
        raise ValueError(f"k is {k!r}, expected >= 0")
    if not decay > 0:
        raise ValueError(f"lambda is {decay!r}, expected > 0; else the weight is unbounded")
    log_w = log_w.clamp(MIN_LOG_WEIGHT, MAX_LOG_RATIO)
    return (k * log_w - decay * torch.expm1(log_w)).exp()
