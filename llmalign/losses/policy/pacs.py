"""PACS: the verifier's label is predicted from the policy's own log-ratios."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

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
    "pacs",
    paper="Li et al. 2025 (PACS), arXiv:2509.02522",
    traits={
        "stage": "policy",
        "level": "sequence",
        "aggregates": SEQUENCE_MEAN,
        "whole_groups": True,
        "every_row": True,
    },
    beta=1.0,
)
def pacs(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    group_B: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, PolicyStats]:
    """Class-balanced cross-entropy of the label against a leave-one-out implicit reward (PACS).

        implicit_i = beta * sum_t log_rho_t
        psi_i  = implicit_i - mean of implicit_j over the others of its group
        loss_i = w_i * (softplus(psi_i) - y_i * psi_i)      on each token of the sequence
        w_i    = n / (2 * n_y)      n in the group, n_y of them with its label; 1 if all are alike

    ``adv_BT`` is the label, 1 right and 0 wrong: advantage ``none`` of a reward of 0 and 1. A row
    of label 0 has a gradient too, so none may be left out, and every group must come whole. A
    lone row has psi 0 and teaches nothing. Rows without tokens belong to no group.

    Args: logp_BT, logp_old_BT, mask_BT: as ``clipped``, whole rows; the released code forgets the
        mask, here padding counts for nothing.
        adv_BT: label of each token's sequence, 0 or 1.
        group_B: int64, which rows answer the same prompt.
        beta: nats of log-ratio to units of logit, > 0.
    Returns: loss_BT in nats, the sequence's loss on each of its tokens (``sequence_mean``), 0
        outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, a label is neither 0 nor 1, or beta is
        not > 0.
    Source: Li et al. 2025, arXiv:2509.02522, as released but for the mask.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    check_rows(logp_BT)
    check_group(group_B, mask_BT)
    if not beta > 0:
        raise ValueError(f"beta is {beta!r}, expected > 0")
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    label_B = _labels(adv_BT, mask_BT)
    psi_B = leave_one_out_score(beta * row_sum(log_rho_BT, mask_BT), mask_BT.any(1), group_B)
    weight_B = class_weight(label_B, mask_BT.any(1), group_B)
    loss_B = weight_B * binary_cross_entropy_with_logits(psi_B, label_B, reduction="none")
    return to_tokens(loss_B, mask_BT), policy_stats(log_rho_BT, mask_BT)


def leave_one_out_score(value_B: Tensor, counts_B: Tensor, group_B: Tensor) -> Tensor:
    """Each value less the mean of its group's others; 0 for a lone or uncounted one."""
    value_B = torch.where(counts_B, value_B, 0.0)
    others_B = group_sum(counts_B.to(value_B), group_B) - 1
    mean_B = (group_sum(value_B, group_B) - value_B) / others_B.clamp(min=1)
    return torch.where(counts_B & (others_B > 0), value_B - mean_B, 0.0)


def class_weight(label_B: Tensor, counts_B: Tensor, group_B: Tensor) -> Tensor:
    """n / (2 * n_y) within a group that has both labels, else 1; 0 and 1 are the labels."""
    counted_B = counts_B.to(label_B)
    size_B = group_sum(counted_B, group_B)
    right_B = group_sum(label_B * counted_B, group_B)
    alike_B = torch.where(label_B > 0, right_B, size_B - right_B)
    mixed_B = (right_B > 0) & (right_B < size_B)
    return torch.where(mixed_B, size_B / (2 * alike_B.clamp(min=1)), 1.0)


def _labels(adv_BT: Tensor, mask_BT: Tensor) -> Tensor:
    value_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    odd = value_BT[(value_BT != 0) & (value_BT != 1)]
    if len(odd):
        raise ValueError(
            f"adv_BT holds {odd[0].item():g}, expected labels 0 and 1; choose advantage "
            "'none' and a reward of 0 and 1"
        )
    return row_mean(value_BT, mask_BT).round()
