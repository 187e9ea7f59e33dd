"""What all group advantages share: checks, group statistics, and which groups teach nothing.

Shape letters in this package
    B  samples    T  response tokens    P  groups (prompts)
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Lone = Literal["zero", "keep"]


@dataclass(frozen=True)
class GroupStatistics:
    """Totals of the samples, and statistics of each sample's group, all [B].

    Attributes:
        total_B: reward plus the sum of the penalties; 0 where not scored. float64.
        scored_B: bool, the reward is a number.
        count_B: scored samples in the sample's group. float64.
        mean_B: mean total of them. float64.
        same_B: bool, all their totals are equal.
        group_B: the group index.
    """

    total_B: Tensor
    scored_B: Tensor
    count_B: Tensor
    mean_B: Tensor
    same_B: Tensor
    group_B: Tensor

    @property
    def lone_B(self) -> Tensor:
        """bool [B]: the only scored sample of its group."""
        return self.scored_B & (self.count_B == 1)

    def group_sum_B(self, value_B: Tensor) -> Tensor:
        """The sum of ``value_B`` over each sample's group."""
        return _group_sum(value_B, self.group_B)[self.group_B]

    def centred_B(self, lone: Lone, baseline_B: Tensor | None = None) -> Tensor:
        """Total minus baseline (default: the group mean); exactly 0 where all are equal.

        Equal totals are found by comparing them: their float mean need not equal them, and the
        residue must not be divided by a std of the same size. ``lone``: what a sample without a
        companion gets, 0 or its raw total.
        """
        if lone not in ("zero", "keep"):
            raise ValueError(f"lone is {lone!r:.80}, expected 'zero' or 'keep'")
        baseline_B = self.mean_B if baseline_B is None else baseline_B
        centred_B = torch.where(self.same_B, 0.0, self.total_B - baseline_B)
        centred_B = torch.where(self.scored_B, centred_B, 0.0)
        return torch.where(self.lone_B, self.total_B, centred_B) if lone == "keep" else centred_B


def group_statistics(
    reward_B: Tensor, group_B: Tensor, mask_BT: Tensor, penalty_BT: Tensor
) -> GroupStatistics:
    """Checked inputs -> statistics in float64; ``penalty_BT`` is never read outside the mask."""
    _check(reward_B, group_B)
    check_tokens(reward_B, mask_BT, penalty_BT)
    scored_B = ~reward_B.isnan()
    penalty_B = torch.where(mask_BT, penalty_BT.detach().double(), 0.0).sum(1)
    total_B = torch.where(scored_B, reward_B.detach().double() + penalty_B, 0.0)
    count_B = _group_sum(scored_B.double(), group_B)[group_B]
    mean_B = _group_sum(total_B, group_B)[group_B] / count_B.clamp(min=1)
    low_P, high_P = _group_bounds(total_B, scored_B, group_B)
    same_B = (low_P == high_P)[group_B] & scored_B
    return GroupStatistics(total_B, scored_B, count_B, mean_B, same_B, group_B)


def spread(adv_B: Tensor, mask_BT: Tensor) -> Tensor:
    """One advantage per sample -> one per token [B, T], 0 outside the mask."""
    return torch.where(mask_BT, adv_B[:, None], 0.0)


def degenerate_groups(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """bool [P], P = largest index + 1: all scored rewards are equal, or fewer than two are scored.

    Rewards are compared as values, never through a float std. NaN means not scored.
    Raises: TypeError, ValueError: shapes, the dtype of ``group_B``, a negative index, an inf.
    """
    _check(reward_B, group_B)
    scored_B = ~reward_B.isnan()
    low_P, high_P = _group_bounds(reward_B.detach().double(), scored_B, group_B)
    return ~(high_P > low_P)


def kept_groups(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """bool [P]: groups that dynamic sampling trains on.

    Kept are groups whose scored rewards differ, and groups that were sampled as one scored sample,
    because those are never compared with each other. A larger group of which only one sample could
    be scored is not kept.

    Source: Yu et al. 2025 (DAPO), arXiv:2503.14476; the group of one as in its released code.
    """
    size_P = _group_sum(torch.ones_like(group_B, dtype=torch.float64), group_B)
    scored_P = _group_sum((~reward_B.isnan()).double(), group_B)
    return ~degenerate_groups(reward_B, group_B) | ((size_P == 1) & (scored_P == 1))


def check_tokens(reward_B: Tensor, mask_BT: Tensor, penalty_BT: Tensor) -> None:
    """Raises TypeError or ValueError unless mask and penalty are [B, T] and the mask is bool."""
    if mask_BT.dtype != torch.bool:
        raise TypeError(
            f"mask_BT has dtype {mask_BT.dtype}, expected torch.bool; compare it with 0"
        )
    if mask_BT.dim() != 2 or len(mask_BT) != len(reward_B):
        raise ValueError(
            f"mask_BT has shape {tuple(mask_BT.shape)}, expected ({len(reward_B)}, T); "
            "give one row per reward"
        )
    if penalty_BT.shape != mask_BT.shape:
        raise ValueError(
            f"penalty_BT has shape {tuple(penalty_BT.shape)}, expected {tuple(mask_BT.shape)} "
            "like mask_BT"
        )


def _check(reward_B: Tensor, group_B: Tensor) -> None:
    if reward_B.dim() != 1 or not reward_B.is_floating_point():
        raise ValueError(
            f"reward_B is {reward_B.dtype} of shape {tuple(reward_B.shape)}, expected floats of "
            "shape (B,); NaN marks a sample that nobody could score"
        )
    if group_B.shape != reward_B.shape:
        raise ValueError(
            f"group_B has shape {tuple(group_B.shape)}, expected {tuple(reward_B.shape)} "
            "like reward_B"
        )
    if group_B.dtype != torch.int64:
        raise TypeError(
            f"group_B has dtype {group_B.dtype}, expected torch.int64; number the groups"
        )
    if len(group_B) and int(group_B.min()) < 0:
        raise ValueError(f"group_B holds {int(group_B.min())}, expected >= 0; number groups from 0")
    if reward_B.isinf().any():
        raise ValueError("reward_B holds inf, expected finite numbers or NaN; bound the reward")


def _num_groups(group_B: Tensor) -> int:
    return int(group_B.max()) + 1 if len(group_B) else 0


def _group_sum(value_B: Tensor, group_B: Tensor) -> Tensor:
    return value_B.new_zeros(_num_groups(group_B)).index_add(0, group_B, value_B)


def _group_bounds(value_B: Tensor, scored_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest scored value per group; (inf, -inf) where none is scored."""
    inf_P = value_B.new_full((_num_groups(group_B),), float("inf"))
    low_B = torch.where(scored_B, value_B, float("inf"))
    high_B = torch.where(scored_B, value_B, float("-inf"))
    low_P = inf_P.scatter_reduce(0, group_B, low_B, "amin")
    return low_P, (-inf_P).scatter_reduce(0, group_B, high_B, "amax")
