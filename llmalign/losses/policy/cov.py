"""Clip-Cov and KL-Cov: the few tokens that cost the most entropy are spared or held back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.entropy import clip_cov_tokens, kl_cov_tokens, token_covariance
from llmalign.losses.policy.bounds import ANY_AGGREGATE, BoundStats, bound_stats, surrogate
from llmalign.losses.policy.ratio import PolicyStats, log_ratio, policy_stats
from llmalign.losses.registry import LOSSES

_TRAITS = {
    "stage": "policy",
    "level": "token",
    "aggregates": ANY_AGGREGATE,
    "whole_batch": True,
    "every_row": True,
}


@dataclass(frozen=True)
class ClipCovStats(BoundStats):
    """What ``BoundStats`` holds, and the number of tokens left out.

    Attributes:
        spared: tokens whose loss was set to 0.
    """

    spared: Tensor


@dataclass(frozen=True)
class KlCovStats(PolicyStats):
    """What ``PolicyStats`` holds, and what the penalty saw.

    Attributes:
        penalised: tokens with the penalty.
        abs_log_rho_nats: sum over all tokens of |log rho|.
    """

    penalised: Tensor
    abs_log_rho_nats: Tensor


@LOSSES.register(
    "clip_cov",
    paper="Cui et al. 2025 (Clip-Cov), arXiv:2505.22617",
    traits=_TRAITS,
    clip_low=1.0,
    clip_high=1.0,
    share=2e-4,
    cov_low=1.0,
    cov_high=5.0,
)
def clip_cov(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    seed: int,
    *,
    clip_low: float,
    clip_high: float,
    share: float,
    cov_low: float,
    cov_high: float,
) -> tuple[Tensor, ClipCovStats]:
    """Clipped surrogate without some tokens of high covariance, drawn at random (Clip-Cov).

        loss = -min(rho * A, clip(rho, 1 - clip_low, 1 + clip_high) * A), 0 for tokens drawn by
               ``entropy.clip_cov_tokens`` among those that the clip does not hold

    The draw is among the rows given: an optimizer step must come whole (trait ``whole_batch``),
    else each part draws at least one token of its own.

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``clipped``.
        clip_low, clip_high: distances of the bounds from 1, in [0, 1] and >= 0.
        seed: another at every optimizer step, the same on all ranks.
        share, cov_low, cov_high: as ``clip_cov_tokens``.
    Returns: loss_BT in units of reward, 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, or an option lies outside its range.
    Source: Cui et al. 2025, arXiv:2505.22617; defaults are the authors'.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    if not 0 <= clip_low <= 1:
        raise ValueError(f"clip_low is {clip_low!r}, expected a number in [0, 1]")
    if not clip_high >= 0:
        raise ValueError(f"clip_high is {clip_high!r}, expected >= 0")
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    loss_BT, low_BT, high_BT = surrogate(
        log_rho_BT.exp(), adv_BT, clip_low=clip_low, clip_high=clip_high
    )
    spared_BT = clip_cov_tokens(
        token_covariance(logp_BT, adv_BT, mask_BT),
        mask_BT & ~low_BT & ~high_BT,
        num_tokens=int(mask_BT.sum()),
        share=share,
        cov_low=cov_low,
        cov_high=cov_high,
        seed=seed,
    )
    stats = bound_stats(log_rho_BT, mask_BT, low_BT, high_BT)
    return loss_BT.masked_fill(spared_BT, 0.0), ClipCovStats(**vars(stats), spared=spared_BT.sum())


@LOSSES.register(
    "kl_cov",
    paper="Cui et al. 2025 (KL-Cov), arXiv:2505.22617",
    traits=_TRAITS,
    share=2e-3,
    coef=1.0,
)
def kl_cov(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    share: float,
    coef: float,
) -> tuple[Tensor, KlCovStats]:
    """Unclipped surrogate with a penalty on the tokens of highest covariance (KL-Cov).

        loss = -rho * A + coef * |log rho| for the tokens of ``entropy.kl_cov_tokens``, without the
               penalty for the rest

    While the policy is what sampled, |log rho| has no gradient: the penalty acts from the second
    update of a batch on. The choice is among the rows given: an optimizer step must come whole
    (trait ``whole_batch``).

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``clipped``.
        share: of the tokens, in (0, 1].
        coef: in units of reward per nat, >= 0.
    Returns: loss_BT in units of reward, 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, or an option lies outside its range.
    Source: Cui et al. 2025, arXiv:2505.22617; defaults are the authors' for 7B.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    if not coef >= 0:
        raise ValueError(f"coef is {coef!r}, expected >= 0")
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    cov_BT = token_covariance(logp_BT, adv_BT, mask_BT)
    chosen_BT = kl_cov_tokens(cov_BT, mask_BT, share=share)
    penalty_BT = torch.where(chosen_BT, log_rho_BT.abs(), 0.0)
    stats = KlCovStats(
        **vars(policy_stats(log_rho_BT, mask_BT)),
        penalised=chosen_BT.sum(),
        abs_log_rho_nats=log_rho_BT.detach().abs().sum(),
    )
    return -log_rho_BT.exp() * adv_BT + coef * penalty_BT, stats
