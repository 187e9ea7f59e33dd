"""StableReinforce: whitened returns without their outliers."""

import torch
from torch import Tensor

from llmalign.advantages.batch_whitened import Baseline, batch_whitened
from llmalign.advantages.registry import ADVANTAGES


@ADVANTAGES.register(
    "stable",
    paper="Zhang et al. 2025 (R1-Reward, StableReinforce), arXiv:2505.02835",
    gamma=1.0,
    eps=1e-8,
    baseline="none",
    bound=3.0,
)
def stable(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    *,
    gamma: float,
    eps: float,
    baseline: Baseline,
    bound: float,
) -> Tensor:
    """``batch_whitened``, with tokens beyond ``bound`` standard deviations at 0 (StableReinforce).

    An outlier is dropped, not clipped. Among n values none lies beyond (n - 1) / sqrt(n)
    deviations, so that a batch of ten tokens or fewer is left as it is.

    Args: reward_B, group_B, mask_BT, penalty_BT, gamma, eps, baseline: as ``batch_whitened``.
        bound: in standard deviations, > 0.
    Returns: adv_BT float64, in standard deviations.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Zhang et al. 2025, arXiv:2505.02835. Its code compares with the raw mean +- 3 and drops
        everything beyond 10; here the bound is on the normalised value, as in the paper.
    """
    adv_BT = batch_whitened(
        reward_B, group_B, mask_BT, penalty_BT, gamma=gamma, eps=eps, baseline=baseline
    )
    return without_outliers(adv_BT, bound=bound)


def without_outliers(z_BT: Tensor, *, bound: float) -> Tensor:
    """Normalised values, with 0 for those beyond +-``bound``; any shape.

    Raises: ValueError: the bound is not positive.
    """
    if not bound > 0:
        raise ValueError(f"bound is {bound!r}, expected > 0")
    return torch.where(z_BT.abs() > bound, 0.0, z_BT)


def standardised(value_N: Tensor, *, eps: float) -> Tensor:
    """(x - mean) / (std + eps) over all values given, ddof 0; exactly 0 where all are equal.

    Raises: ValueError: eps is not positive.
    """
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
    value_N = value_N.detach().double()
    if not value_N.numel() or (value_N == value_N.flatten()[0]).all():
        return torch.zeros_like(value_N)
    return (value_N - value_N.mean()) / (value_N.std(correction=0) + eps)
