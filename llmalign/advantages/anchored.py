"""VGPO: the group-normalised reward, with a share of the reward itself on top."""

from typing import Literal

import torch
from torch import Tensor

from llmalign.advantages.groups import Lone, group_statistics, spread
from llmalign.advantages.registry import ADVANTAGES

Form = Literal["sum", "quotient"]


@ADVANTAGES.register(
    "anchored",
    paper="VGPO, absolute-value advantage (withdrawn ICLR submission); reconstructed",
    weight=0.1,
    form="sum",
    eps=1e-6,
    ddof=0,
    lone="zero",
)
def anchored(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    *,
    weight: float,
    form: Form,
    eps: float,
    ddof: int,
    lone: Lone,
) -> Tensor:
    """Group-normalised reward plus a share of the reward itself (VGPO).

        z = (total - mean_group) / (s + eps)                            total = R + sum_t penalty_t
        A = z + weight * total                                          form 'sum'
        A = (total - mean_group + weight * s * total) / (s + eps)       form 'quotient'

    The reward itself keeps a signal where the group's rewards are all equal: z is 0 there, and
    ``sum`` leaves weight * total. ``quotient`` is the printed form, and gives 0 there, because s is
    0. A is not centred: with rewards >= 0 every sample of a solved group is pushed up. The paper
    mixes the reward in during the first steps only; the weight is the caller's to change.

    Args: reward_B, group_B, mask_BT, penalty_BT, eps, ddof: as ``group``.
        weight: of the reward itself, per unit of reward, >= 0.
        form: see above.
        lone: z of a group's only scored sample: 0, or its raw total over 1 + eps.
    Returns: adv_BT float64, in standard deviations.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: VGPO, reconstructed from its reviews and abstract; the weight is not stated there.
    """
    _check_options(weight, form, eps, ddof)
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    square_B = stats.centred_B("zero") ** 2
    std_B = (stats.group_sum_B(square_B) / (stats.count_B - ddof).clamp(min=1)).sqrt()
    std_B = torch.where(stats.lone_B, 1.0, std_B)
    z_B = stats.centred_B(lone) / (std_B + eps)
    share_B = torch.ones_like(std_B)
    if form == "quotient":
        share_B = torch.where(stats.same_B & ~stats.lone_B, 0.0, std_B / (std_B + eps))
    return spread(z_B + weight * share_B * stats.total_B, mask_BT)


def _check_options(weight: float, form: str, eps: float, ddof: int) -> None:
    if not weight >= 0:
        raise ValueError(f"weight is {weight!r}, expected >= 0")
    if form not in ("sum", "quotient"):
        raise ValueError(f"form is {form!r:.80}, expected 'sum' or 'quotient'")
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
    if ddof not in (0, 1):
        raise ValueError(f"ddof is {ddof!r:.80}, expected 0 or 1")
