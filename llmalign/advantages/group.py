"""GRPO: the other samples of the prompt are the baseline."""

from typing import Literal

import torch
from torch import Tensor

from llmalign.advantages.groups import GroupStatistics, Lone, group_statistics, spread
from llmalign.advantages.registry import ADVANTAGES

Scale = Literal["std", "batch_std", "none"]


@ADVANTAGES.register(
    "group",
    paper="Shao et al. 2024 (GRPO), arXiv:2402.03300; scale 'none': Liu et al. 2025, "
    "arXiv:2503.20783",
    scale="std",
    eps=1e-4,
    ddof=1,
    lone="zero",
)
def group(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    *,
    scale: Scale,
    eps: float,
    ddof: int,
    lone: Lone,
) -> Tensor:
    """Group-normalised reward (GRPO), the same for every token of a sample.

        total = R + sum_t penalty_t
        A     = (total - mean_group) / (s + eps)    s = std of the group or of the whole batch
        A     = total - mean_group                  scale 'none' (Dr. GRPO)

    A group whose totals are all equal has advantage exactly 0, found by comparing values: the
    float mean of equal numbers need not equal them, and a std of the same residue would blow it up.
    ``eps=1e-4, lone='zero'`` is TRL's convention, ``eps=1e-6, lone='keep'`` is verl's; both have
    ddof 1.

    Args:
        reward_B: reward per sample, any unit; NaN where not scorable.
        group_B: int64 group index from 0.
        mask_BT: bool, True for tokens the policy itself wrote.
        penalty_BT: reward per token, in units of reward; never read outside the mask.
        scale: what divides; ``batch_std`` is over all scored samples of all groups.
        eps: added to the std, > 0.
        ddof: 1 divides squared deviations by n - 1, 0 by n.
        lone: advantage of a group's only scored sample: 0, or its raw total with std counted as 1.
    Returns: adv_BT float64, in standard deviations (``none``: in units of reward).
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Shao et al. 2024, arXiv:2402.03300; without std: Liu et al. 2025, arXiv:2503.20783.
    """
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
    if ddof not in (0, 1):
        raise ValueError(f"ddof is {ddof!r:.80}, expected 0 or 1")
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    adv_B = stats.centred_B(lone)
    if scale != "none":
        std_B = torch.where(stats.lone_B, 1.0, _std_B(stats, scale, ddof))
        adv_B = adv_B / (std_B + eps)
    return spread(adv_B, mask_BT)


def _std_B(stats: GroupStatistics, scale: Scale, ddof: int) -> Tensor:
    if scale == "std":
        square_B = stats.centred_B("zero") ** 2
        return (stats.group_sum_B(square_B) / (stats.count_B - ddof).clamp(min=1)).sqrt()
    if scale == "batch_std":
        scored = stats.total_B[stats.scored_B]
        square = ((scored - scored.mean()) ** 2).sum() / max(len(scored) - ddof, 1)
        return square.sqrt().expand_as(stats.total_B)
    raise ValueError(f"scale is {scale!r:.80}, expected 'std', 'batch_std' or 'none'")
