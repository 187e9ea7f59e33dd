"""Tokens picked by the policy's entropy: the 80/20 mask, and forks with their entropy band.

Shape letters: B samples, T response tokens, N values.
"""

import math

import torch
from torch import Tensor

from llmalign.token_weights.check import check_mask, check_share
from llmalign.token_weights.registry import TOKEN_WEIGHTS


@TOKEN_WEIGHTS.register(
    "high_entropy",
    paper="Wang et al. 2025 (Beyond the 80/20 rule), arXiv:2506.01939",
    share=0.2,
)
def high_entropy(entropy_BT: Tensor, mask_BT: Tensor, *, share: float) -> Tensor:
    """1 on the tokens of highest entropy in the whole batch, 0 on the rest (the 80/20 mask).

        tau    = quantile of order 1 - share of the entropies of all tokens under the mask
        weight = 1 where entropy >= tau

    Give the whole batch, over all ranks: a share of each row instead would keep the same number of
    tokens in a sure answer as in a wavering one. So a response may lose all its tokens. Tokens that
    tie with tau stay, hence all do where all entropies are equal. The mean of the loss is over the
    tokens that stay: count ``weight > 0``, not the mask.

    Args:
        entropy_BT: entropy of the policy at each token, over the whole vocabulary, in nats; no
            gradient. Never read outside the mask.
        mask_BT: bool, True for tokens the policy itself wrote.
        share: of the tokens, in (0, 1].
    Returns: weight_BT float64, 0 or 1, 0 outside the mask.
    Raises: TypeError, ValueError: a shape, dtype or the share is off.
    Source: Wang et al. 2025, arXiv:2506.01939.
    """
    check_share("share", share)
    check_mask(mask_BT, entropy_BT=entropy_BT)
    entropy_BT = entropy_BT.detach().double()
    threshold = entropy_threshold(entropy_BT[mask_BT], share=share)
    return torch.where(mask_BT, (entropy_BT >= threshold).double(), 0.0)


def entropy_threshold(entropy_N: Tensor, *, share: float) -> Tensor:
    """The entropy above which the top ``share`` of the values lie, interpolated linearly.

    For ranks that hold parts of a batch: gather the values under the mask, then ask once. Without
    a value it is infinite.
    """
    check_share("share", share)
    return _quantile(entropy_N.detach().double(), 1 - share)


@TOKEN_WEIGHTS.register(
    "fork",
    paper="SPINE, entropy-band regularisation; reconstructed in part",
    share=0.2,
)
def fork(entropy_BT: Tensor, mask_BT: Tensor, *, share: float) -> Tensor:
    """1 on the tokens of highest entropy of each response, its forks, 0 on the rest (SPINE).

        forks of a response = its ceil(share * tokens) tokens of highest entropy, and ties with them

    Other than ``high_entropy`` every response keeps some tokens.

    Args: entropy_BT, mask_BT, share: as ``high_entropy``; the share is of each response.
    Returns: weight_BT float64, 0 or 1, 0 outside the mask.
    Raises: TypeError, ValueError: a shape, dtype or the share is off.
    Source: SPINE, from a third-party digest; the rounding is reconstructed.
    """
    check_share("share", share)
    check_mask(mask_BT, entropy_BT=entropy_BT)
    entropy_BT = torch.where(mask_BT, entropy_BT.detach().double(), -math.inf)
    if not entropy_BT.numel():
        return torch.zeros_like(entropy_BT)
    # 0.1 * 30 is above 3 in floats.
    num_B = torch.ceil(share * mask_BT.sum(1).double() - 1e-9).long().clamp(min=1)
    sorted_BT = entropy_BT.sort(1, descending=True).values
    least_B1 = sorted_BT.gather(1, num_B[:, None] - 1)
    return torch.where(mask_BT, (entropy_BT >= least_B1).double(), 0.0)


def entropy_band(
    entropy_BT: Tensor, fork_BT: Tensor, *, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """How far the entropy of each fork lies outside the band of its response's forks (SPINE).

        q_low, q_high = quantiles of a response's fork entropies, without gradient
        outside       = max(H - q_high, 0) + max(q_low - H, 0)
        penalty_B     = mean of outside over the response's forks

    A gradient through the quantiles would cancel part of the pull towards the band. A fork on the
    band's edge has none.

    Args:
        entropy_BT: entropy of the policy at each token, in nats; carries the gradient. Never read
            where ``fork_BT`` is False.
        fork_BT: bool, the forks.
        low, high: orders of the quantiles, 0 <= low <= high <= 1; SPINE has 0.1 and 0.5.
    Returns: penalty_B, in nats, 0 for a response with no fork or one; and outside_BT.
    Raises: TypeError, ValueError: a shape, dtype or order is off.
    Source: SPINE, from a third-party digest; the averaging is reconstructed, its weight in the loss
        is not stated there.
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"low is {low!r} and high {high!r}, expected 0 <= low <= high <= 1")
    check_mask(fork_BT, entropy_BT=entropy_BT)
    bounds = [_band(entropy_BT[b][fork_BT[b]].detach(), low, high) for b in range(len(fork_BT))]
    low_B1, high_B1 = entropy_BT.new_tensor(bounds).reshape(-1, 2).split(1, dim=1)
    inside_BT = torch.where(fork_BT, entropy_BT, high_B1)
    outside_BT = (inside_BT - high_B1).relu() + (low_B1 - inside_BT).relu()
    outside_BT = torch.where(fork_BT, outside_BT, 0.0)
    return outside_BT.sum(1) / fork_BT.sum(1).clamp(min=1), outside_BT


def _band(entropy_N: Tensor, low: float, high: float) -> tuple[float, float]:
    if not len(entropy_N):
        return 0.0, 0.0
    return float(_quantile(entropy_N, low)), float(_quantile(entropy_N, high))


def _quantile(value_N: Tensor, order: float) -> Tensor:
    """Linear interpolation between order statistics; torch's own refuses 16 million values."""
    if not len(value_N):
        return value_N.new_tensor(math.inf)
    sorted_N = value_N.sort().values
    place = order * (len(sorted_N) - 1)
    below = min(int(place + 1e-9), len(sorted_N) - 1)
    above = min(below + 1, len(sorted_N) - 1)
    part = place - below if place - below > 1e-9 else 0.0
    return sorted_N[below] + part * (sorted_N[above] - sorted_N[below])
