"""Learning from the best samples alone: the best of a group, or of a batch.

Shape letters: B samples, T response tokens.
"""

import torch
from torch import Tensor

from llmalign.advantages.groups import group_statistics, spread
from llmalign.advantages.registry import ADVANTAGES


@ADVANTAGES.register("best_of_group", paper="Dong et al. 2023 (RAFT), arXiv:2304.06767")
def best_of_group(reward_B: Tensor, group_B: Tensor, mask_BT: Tensor, penalty_BT: Tensor) -> Tensor:
    """1 on the tokens of each group's best sample, 0 on all others (RAFT).

    Args: reward_B, group_B, mask_BT, penalty_BT: as ``group``; the penalties count.
    Returns: adv_BT float64, 0 or 1; see ``is_best_of_group``.
    Raises: TypeError, ValueError: a shape or dtype is off.
    Source: Dong et al. 2023, arXiv:2304.06767, reconstructed.
    """
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    total_B = torch.where(stats.scored_B, stats.total_B, torch.nan)
    return spread(is_best_of_group(total_B, group_B).double(), mask_BT)


@ADVANTAGES.register(
    "best_of_batch", paper="Mukobi et al. 2023 (SuperHF), arXiv:2310.16763", share=0.25
)
def best_of_batch(
    reward_B: Tensor, group_B: Tensor, mask_BT: Tensor, penalty_BT: Tensor, *, share: float
) -> Tensor:
    """1 on the tokens of the best samples of the whole step, 0 on all others (SuperHF).

    Args: reward_B, group_B, mask_BT, penalty_BT: as ``group``; the penalties count.
        share: of the scored samples, in (0, 1]; at least one is kept.
    Returns: adv_BT float64, 0 or 1; see ``is_best_of_batch``.
    Raises: TypeError, ValueError: a shape, dtype or the share is off.
    Source: Mukobi et al. 2023, arXiv:2310.16763; they keep a number, a share is ours.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share!r}, expected a number in (0, 1]")
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    total_B = torch.where(stats.scored_B, stats.total_B, torch.nan)
    count = max(1, round(share * int(stats.scored_B.sum())))
    return spread(is_best_of_batch(total_B, num_kept=count).double(), mask_BT)


def is_best_of_group(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """bool [B]: the best sample of each group, the first of equals (RAFT).

    A group whose scored rewards are all equal keeps none: which it kept would be chance. NaN is
    not scored; a group with one scored sample keeps none either.

    Raises: ValueError, TypeError: shapes or the dtype of ``group_B``.
    Source: Dong et al. 2023 (RAFT), arXiv:2304.06767; ties and equal groups reconstructed.
    """
    _check(reward_B)
    if group_B.shape != reward_B.shape:
        raise ValueError(
            f"group_B has shape {tuple(group_B.shape)}, expected {tuple(reward_B.shape)}"
        )
    if group_B.dtype != torch.int64:
        raise TypeError(f"group_B has dtype {group_B.dtype}, expected torch.int64")
    kept_B = torch.zeros_like(reward_B, dtype=torch.bool)
    for group in group_B.unique():
        index = ((group_B == group) & ~reward_B.isnan()).nonzero()[:, 0]
        value = reward_B[index]
        if len(index) and value.min() < value.max():
            kept_B[index[(value == value.max()).nonzero()[0, 0]]] = True
    return kept_B


def is_best_of_batch(reward_B: Tensor, *, num_kept: int) -> Tensor:
    """bool [B]: the best samples of all, the first of equals (SuperHF); NaN is never kept.

    Raises: ValueError: the shape, or ``num_kept`` is below 1.
    Source: Mukobi et al. 2023 (SuperHF), arXiv:2310.16763.
    """
    _check(reward_B)
    if num_kept < 1:
        raise ValueError(f"num_kept is {num_kept!r}, expected > 0")
    value_B = torch.where(reward_B.isnan(), -torch.inf, reward_B)
    order_B = value_B.argsort(descending=True, stable=True)[:num_kept]
    kept_B = torch.zeros_like(reward_B, dtype=torch.bool)
    kept_B[order_B] = True
    return kept_B & ~reward_B.isnan()


def _check(reward_B: Tensor) -> None:
    if reward_B.dim() != 1 or not reward_B.is_floating_point():
        raise ValueError(
            f"reward_B is {reward_B.dtype} of shape {tuple(reward_B.shape)}, expected floats of "
            "shape (B,)"
        )
