"""Ratio normalisation: the drift of the log-ratio is taken out before clipping (GRPO-Guard)."""

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
from llmalign.losses.policy.ratio import MAX_LOG_RATIO, log_ratio
from llmalign.losses.registry import LOSSES


@LOSSES.register(
    "ratio_norm",
    paper="GRPO-Guard 2025, arXiv:2510.22319, transferred to tokens (reconstructed)",
    traits={
        "stage": "policy",
        "level": "token",
        "aggregates": ANY_AGGREGATE,
        "whole_batch": True,
        "every_row": True,
    },
    clip_low=0.2,
    clip_high=0.2,
    bucket_tokens=256,
    min_std=1e-6,
)
def ratio_norm(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    bucket_tokens: int,
    min_std: float,
) -> tuple[Tensor, BoundStats]:
    """Clipped surrogate of a ratio that is normalised by the token's position (GRPO-Guard).

        log_r = normalised_log_ratio(log_rho)       see there
        loss  = -min(r * A, clip(r, 1 - clip_low, 1 + clip_high) * A)

    A log-ratio drifts below 0 by the KL, more where the policy is less certain, so a symmetric
    clip acts on one side; without the drift both bounds act alike. Reconstructed: the paper
    normalises Gaussian steps of a flow model (``gaussian_log_ratio``), buckets of token positions
    are our transfer and their width is ours. The statistics are of the rows given: an optimizer
    step must come whole (trait ``whole_batch``), else they depend on how it is split.

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``clipped``.
        clip_low, clip_high: distances of the bounds from 1, in [0, 1) and >= 0.
        bucket_tokens: width of a bucket of positions, > 0.
        min_std: buckets whose log-ratios vary less are left as they are, in nats, > 0.
    Returns: loss_BT in units of reward, 0 outside the mask; and its statistics, of the ratio before
        normalisation but for the counts of clipped tokens.
    Raises: TypeError, ValueError: a shape or dtype is off, or an option lies outside its range.
    Source: GRPO-Guard 2025, arXiv:2510.22319; transfer to tokens reconstructed.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    check_clip(clip_low, clip_high)
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    log_r_BT = normalised_log_ratio(
        log_rho_BT, mask_BT, bucket_tokens=bucket_tokens, min_std=min_std
    )
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    loss_BT, low_BT, high_BT = surrogate(
        log_r_BT.exp(), adv_BT, clip_low=clip_low, clip_high=clip_high
    )
    return loss_BT, bound_stats(log_rho_BT, mask_BT, low_BT, high_BT)


def normalised_log_ratio(
    log_rho_BT: Tensor, mask_BT: Tensor, *, bucket_tokens: int, min_std: float
) -> Tensor:
    """Log-ratios centred and rescaled within buckets of positions.

        log_r = (log_rho + kl_b) * mean_std / std_b     clamped to +-20

    Bucket b holds the tokens whose number under the mask, from 0, is in [b, b + 1) times
    ``bucket_tokens``; kl_b is the mean of rho - 1 - log rho over it, std_b the standard deviation
    of log rho (over n), mean_std the mean of std_b over the buckets that are normalised, those
    with std_b >= ``min_std``. All statistics are without gradient.

    Returns: log_r_BT in nats, 0 outside the mask.
    Raises: ValueError: an option lies outside its range.
    """
    if bucket_tokens < 1:
        raise ValueError(f"bucket_tokens is {bucket_tokens!r}, expected > 0")
    if not min_std > 0:
        raise ValueError(f"min_std is {min_std!r}, expected > 0; noise would be blown up")
    bucket_N = ((mask_BT.cumsum(1) - 1) // bucket_tokens)[mask_BT]
    value_N = log_rho_BT[mask_BT]
    if not len(value_N):
        return torch.zeros_like(log_rho_BT)
    known_N = value_N.detach()
    count_K = torch.bincount(bucket_N).clamp(min=1).to(known_N)

    def bucket_mean_K(amount_N: Tensor) -> Tensor:
        return torch.zeros_like(count_K).index_add(0, bucket_N, amount_N) / count_K

    kl_K = bucket_mean_K(torch.expm1(known_N) - known_N)
    std_K = bucket_mean_K((known_N - bucket_mean_K(known_N)[bucket_N]) ** 2).sqrt()
    varies_K = std_K >= min_std
    if not varies_K.any():
        return torch.where(mask_BT, log_rho_BT, 0.0)
    mean_std = std_K[varies_K].mean()
    scale_K = torch.where(varies_K, mean_std / std_K.clamp(min=min_std), 1.0)
    shift_K = torch.where(varies_K, kl_K, 0.0)
    log_r_N = (value_N + shift_K[bucket_N]) * scale_K[bucket_N]
    log_r_N = log_r_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.zeros_like(log_rho_BT).masked_scatter(mask_BT, log_r_N)


def gaussian_log_ratio(log_rho: Tensor, shift_square: Tensor, *, sigma: float, dt: float) -> Tensor:
    """GRPO-Guard's own normalisation, of the ratio of two Gaussian steps.

        log_r = sigma * sqrt(dt) * (log_rho + shift_square / (2 * sigma^2 * dt))

    With means that differ by delta and ``shift_square`` the mean of delta^2, it equals the mean of
    delta times the sampled noise: zero in expectation, the same scale at every time step.

    Raises: ValueError: ``sigma`` or ``dt`` is not > 0.
    Source: GRPO-Guard 2025, arXiv:2510.22319, eq. 8, as restated in a third party's code.
    """
    for name, value in {"sigma": sigma, "dt": dt}.items():
        if not value > 0:
            raise ValueError(f"{name} is {value!r}, expected > 0")
    return sigma * math.sqrt(dt) * (log_rho + shift_square / (2 * sigma**2 * dt))
