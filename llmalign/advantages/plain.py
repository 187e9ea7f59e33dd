"""REINFORCE without a baseline."""

from torch import Tensor

from llmalign.advantages.groups import group_statistics, spread
from llmalign.advantages.registry import ADVANTAGES


@ADVANTAGES.register("none", paper="Williams 1992 (REINFORCE)")
def plain(reward_B: Tensor, group_B: Tensor, mask_BT: Tensor, penalty_BT: Tensor) -> Tensor:
    """The reward itself, without a baseline: A = R + sum_t penalty_t on every token.

    Args: as ``group``; the groups play no part.
    Returns: adv_BT float64, in units of reward.
    Raises: TypeError, ValueError: a shape or dtype is off.
    Source: Williams 1992, Simple statistical gradient-following algorithms.
    """
    return spread(group_statistics(reward_B, group_B, mask_BT, penalty_BT).total_B, mask_BT)
