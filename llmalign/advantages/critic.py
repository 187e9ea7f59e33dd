"""PPO with a critic: generalised advantages from token values, and the critic's loss.

Shape letters: B samples, T response tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmalign.advantages.batch_whitened import is_last, whitened
from llmalign.advantages.groups import group_statistics
from llmalign.advantages.registry import ADVANTAGES


@ADVANTAGES.register(
    "gae",
    paper="Schulman et al. 2015 (GAE), arXiv:1506.02438; PPO: arXiv:1707.06347",
    gamma=1.0,
    lam=1.0,
    whiten=True,
    eps=1e-8,
)
def gae(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    value_BT: Tensor,
    *,
    gamma: float,
    lam: float,
    whiten: bool,
    eps: float,
) -> Tensor:
    """Generalised advantage of each token (PPO), whitened over all tokens of the batch.

        r_t = penalty_t, plus the reward on the sample's last token
        A   = ``gae_and_returns`` of r
        A   = (A - mean) / sqrt(var + eps) if ``whiten``, var unbiased

    The groups play no part. With long responses lam < 1 lets an early token see little of the
    reward; the critic may be trained with another lam than the policy.

    Args: reward_B, group_B, mask_BT, penalty_BT: as ``group``.
        value_BT, gamma, lam: as ``gae_and_returns``.
        whiten: see above. eps: added to the variance, > 0.
    Returns: adv_BT float64, in standard deviations, or in units of reward where not ``whiten``.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Schulman et al. 2015, arXiv:1506.02438, eq. 16; Schulman et al. 2017, arXiv:1707.06347.
    """
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
    stats = group_statistics(reward_B, group_B, mask_BT, torch.zeros_like(penalty_BT))
    counts_BT = mask_BT & stats.scored_B[:, None]
    token_BT = torch.where(counts_BT, penalty_BT.detach().double(), 0.0)
    token_BT = token_BT + is_last(counts_BT) * stats.total_B[:, None]
    adv_BT, _ = gae_and_returns(token_BT, value_BT, counts_BT, gamma=gamma, lam=lam)
    return whitened(adv_BT, counts_BT, eps) if whiten else adv_BT


def gae_and_returns(
    token_BT: Tensor, value_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantages, and the returns that the critic learns, both before whitening.

        delta_t  = r_t + gamma * V_{t'} - V_t        A_t = delta_t + gamma * lam * A_{t'}
        return_t = A_t + V_t                         t' the next token under the mask

    Time does not pass outside the mask: a tool's answer in the middle cuts nothing. V is 0 behind
    the last token, for a response cut off by the length limit too.

    Args:
        token_BT: reward of each token.
        value_BT: the critic's value before each token, in units of reward; no gradient. Neither is
            read where ``mask_BT`` is False.
        mask_BT: bool, True for tokens the policy itself wrote.
        gamma: discount per token, in [0, 1]. lam: weight of later deltas, in [0, 1].
    Returns: adv_BT and return_BT, float64, in units of reward, 0 outside the mask.
    Raises: ValueError: a shape or option is off.
    Source: Schulman et al. 2015, arXiv:1506.02438, eq. 16.
    """
    for name, number in (("gamma", gamma), ("lam", lam)):
        if not 0 <= number <= 1:
            raise ValueError(f"{name} is {number!r}, expected a number in [0, 1]")
    _check_shapes(mask_BT, token_BT=token_BT, value_BT=value_BT)
    token_BT = torch.where(mask_BT, token_BT.detach().double(), 0.0)
    value_BT = torch.where(mask_BT, value_BT.detach().double(), 0.0)
    adv_BT = torch.zeros_like(value_BT)
    next_B, running_B = value_BT.new_zeros(len(value_BT)), value_BT.new_zeros(len(value_BT))
    for t in reversed(range(value_BT.shape[1])):
        here_B = mask_BT[:, t]
        adv_B = token_BT[:, t] + gamma * next_B - value_BT[:, t] + gamma * lam * running_B
        running_B = torch.where(here_B, adv_B, running_B)
        next_B = torch.where(here_B, value_BT[:, t], next_B)
        adv_BT[:, t] = running_B
    adv_BT = torch.where(mask_BT, adv_BT, 0.0)
    return adv_BT, adv_BT + value_BT


@dataclass(frozen=True)
class ValueStats:
    """Detached sums over the tokens under the mask, so that parts add up; scalars.

    Attributes:
        tokens: tokens under the mask.
        clipped: tokens whose loss is the clipped value's, which has no gradient.
        square_error: sum of (V - return)^2, unclipped.
    """

    tokens: Tensor
    clipped: Tensor
    square_error: Tensor


def value_loss(
    value_BT: Tensor,
    value_old_BT: Tensor,
    return_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: float | None,
) -> tuple[Tensor, ValueStats]:
    """Half the squared error of each token's value, kept near the value it had (PPO).

        near = V_old + clamp(V - V_old, -clip, clip)
        loss = max((V - return)^2, (near - return)^2) / 2

    Nothing is summed: the caller owns the weights.

    Args:
        value_BT: the critic's value before each token, in units of reward; carries the gradient.
        value_old_BT: the same when the advantages were made; no gradient.
        return_BT: what ``gae_and_returns`` returned; no gradient. None of the three is read where
            ``mask_BT`` is False.
        mask_BT: bool, True for tokens the policy itself wrote.
        clip: how far the value may move, in units of reward, > 0; None: no clipping. It depends on
            the scale of the reward, unlike the clip of a ratio.
    Returns: loss_BT in squared units of reward, 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 9; the clipping is that of their code.
    """
    if clip is not None and not clip > 0:
        raise ValueError(f"clip is {clip!r}, expected > 0 or None")
    _check_shapes(mask_BT, value_BT=value_BT, value_old_BT=value_old_BT, return_BT=return_BT)
    value_BT = torch.where(mask_BT, value_BT, 0.0)
    old_BT = torch.where(mask_BT, value_old_BT.detach(), 0.0)
    return_BT = torch.where(mask_BT, return_BT.detach(), 0.0).to(value_BT.dtype)
    square_BT = (value_BT - return_BT) ** 2
    near_BT = value_BT if clip is None else old_BT + (value_BT - old_BT).clamp(-clip, clip)
    clipped_BT = (near_BT - return_BT) ** 2
    stats = ValueStats(
        tokens=mask_BT.sum(),
        clipped=(clipped_BT > square_BT).sum(),
        square_error=square_BT.detach().sum(),
    )
    return torch.maximum(square_BT, clipped_BT) / 2, stats


def _check_shapes(mask_BT: Tensor, **others_BT: Tensor) -> None:
    if mask_BT.dtype != torch.bool:
        raise TypeError(
            f"mask_BT has dtype {mask_BT.dtype}, expected torch.bool; compare it with 0"
        )
    for name, tensor in others_BT.items():
        if tensor.shape != mask_BT.shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected {tuple(mask_BT.shape)} "
                "like mask_BT"
            )
