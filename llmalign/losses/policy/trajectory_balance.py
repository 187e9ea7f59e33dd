"""GFlowNet balance: the policy learns to sample in proportion to exp(reward / temperature)."""

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.ratio import PolicyStats, log_ratio, policy_stats
from llmalign.losses.policy.sequence import (
    SEQUENCE_MEAN,
    check_group,
    check_rows,
    group_sum,
    row_mean,
    row_sum,
    to_tokens,
)
from llmalign.losses.registry import LOSSES


@LOSSES.register(
    "trajectory_balance",
    paper="Malkin et al. 2022, arXiv:2201.13259; for reasoning: Accurate and Diverse LLM "
    "Mathematical Reasoning via Automated PRM-Guided GFlowNets (reconstructed)",
    traits={
        "stage": "policy",
        "level": "sequence",
        "aggregates": SEQUENCE_MEAN,
        "whole_groups": True,
        "every_row": True,
    },
    temperature=1.0,
    log_z=None,
)
def trajectory_balance(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    group_B: Tensor,
    *,
    temperature: float,
    log_z: float | None,
) -> tuple[Tensor, PolicyStats]:
    """Squared trajectory-balance residual of each sequence.

        residual_i = log Z + sum_t logp_t - R_i / temperature       R_i = mean_t A_t
        loss_i     = residual_i^2       on each token of the sequence
        log Z      = mean over the group of R / temperature - sum_t logp    where log_z is None

    The backward policy is 1, as text grows in one way only; hence steps of reasoning, whose
    log-probabilities are sums over tokens, need no term of their own. The reward is
    exp(R / temperature), positive whatever R is. Without ``log_z`` this is VarGrad: log Z is the
    group's own estimate, no network, no gradient. A sum over tokens grows with length, so long and
    short answers balance only if R does too, or if its temperature is large.

    Args: logp_BT, mask_BT: as ``clipped``, whole rows. logp_old_BT is for the statistics alone.
        adv_BT: log-reward times temperature: advantage ``none`` gives the reward.
        group_B: int64, which rows answer the same prompt.
        temperature: of the reward, > 0.
        log_z: a log-partition for all prompts; None: each group's estimate, and a lone row has
            loss 0.
    Returns: loss_BT in nats squared, the sequence's loss on each of its tokens
        (``sequence_mean``), 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, or temperature is not > 0.
    Source: Malkin et al. 2022, arXiv:2201.13259; its use for reasoning is reconstructed.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    check_rows(logp_BT)
    check_group(group_B, mask_BT)
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature!r}, expected > 0")
    log_reward_B = row_mean(adv_BT.detach(), mask_BT) / temperature
    flow_B = row_sum(logp_BT, mask_BT) - log_reward_B
    if log_z is None:
        counts_B = mask_BT.any(1).to(flow_B)
        size_B = group_sum(counts_B, group_B).clamp(min=1)
        residual_B = flow_B - group_sum(counts_B * flow_B.detach(), group_B) / size_B
    else:
        residual_B = flow_B + log_z
    loss_BT = to_tokens(residual_B**2, mask_BT)
    return loss_BT, policy_stats(log_ratio(logp_BT, logp_old_BT, mask_BT), mask_BT)


@LOSSES.register(
    "subtrajectory_balance",
    paper="Accurate and Diverse LLM Mathematical Reasoning via Automated PRM-Guided GFlowNets",
    traits={
        "stage": "policy",
        "level": "sequence",
        "aggregates": SEQUENCE_MEAN,
        "every_row": True,
    },
    decay=1.0,
)
def subtrajectory_balance(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    logp_end_BT: Tensor,
    *,
    decay: float,
) -> tuple[Tensor, PolicyStats]:
    """Weighted mean of the squared balance residuals of all stretches of a sequence.

        F_t = sum_{s <= t} logp_s       C_t = sum_{s <= t} A_s      e_t = logp_end_t
        loss_i = sum_{a < b} decay^(b - a) * ((F - C + e)_a - (F - C + e)_b)^2
                 / sum_{a < b} decay^(b - a)            on each token of the sequence

    A_t is the log of the reward of the token's step, finite: a step of reward 0 needs a floor.
    Repeated on each token it makes long steps weigh more, as in the paper. Time and memory grow
    with the square of the length.

    Args: logp_BT, mask_BT: as ``clipped``, whole rows; logp_old_BT is for the statistics alone.
        adv_BT: log-reward of each token's step, no gradient.
        logp_end_BT: log-probability of ending the answer behind each token, 0 at the end itself; no
            gradient. The released code reads it one token earlier, which balances nothing.
        decay: weight of a stretch per token of its length, in (0, 1].
    Returns: loss_BT in nats squared, the sequence's loss on each of its tokens
        (``sequence_mean``), 0 outside the mask and for a row of fewer than two tokens; and its
        statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, or decay lies outside its range.
    Source: as registered, its released form, as a formula.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT, logp_end_BT=logp_end_BT)
    check_rows(logp_BT)
    if not 0 < decay <= 1:
        raise ValueError(f"decay is {decay!r}, expected a number in (0, 1]")
    step_BT = torch.where(mask_BT, logp_BT, 0.0) - torch.where(mask_BT, adv_BT.detach(), 0.0)
    balance_BT = step_BT.cumsum(1) + torch.where(mask_BT, logp_end_BT.detach(), 0.0)
    loss_B = [
        _mean_square_gap(balance_T[mask_T], decay)
        for balance_T, mask_T in zip(balance_BT, mask_BT, strict=True)
    ]
    loss_BT = to_tokens(torch.stack(loss_B) if loss_B else logp_BT.sum(1), mask_BT)
    return loss_BT, policy_stats(log_ratio(logp_BT, logp_old_BT, mask_BT), mask_BT)


def _mean_square_gap(balance_T: Tensor, decay: float) -> Tensor:
    place_T = torch.arange(len(balance_T), device=balance_T.device)
    apart_TT = place_T[None, :] - place_T[:, None]
    weight_TT = torch.where(apart_TT > 0, decay ** apart_TT.to(balance_T), 0.0)
    total = weight_TT.sum()
    gap_TT = balance_T[:, None] - balance_T[None, :]
    return (weight_TT * gap_TT**2).sum() / torch.where(total > 0, total, 1.0)
