"""OPO: the length-weighted mean of the group is the baseline."""

from torch import Tensor

from llmalign.advantages.groups import Lone, group_statistics, spread
from llmalign.advantages.registry import ADVANTAGES


@ADVANTAGES.register("opo", paper="Hao et al. 2025 (OPO), arXiv:2505.23585", lone="zero")
def opo(
    reward_B: Tensor, group_B: Tensor, mask_BT: Tensor, penalty_BT: Tensor, *, lone: Lone
) -> Tensor:
    """Reward minus the group's length-weighted mean reward (OPO).

        A_i = total_i - sum_j len_j * total_j / sum_j len_j     total = R + sum_t penalty_t

    ``len`` counts the tokens under the mask, so a sample without any has no say in the baseline.

    Args: as ``group``; ``lone`` is the advantage of a group's only scored sample: 0 or its total.
    Returns: adv_BT float64, in units of reward.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Hao et al. 2025, arXiv:2505.23585.
    """
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    length_B = mask_BT.sum(1).double() * stats.scored_B
    weighted_B = stats.group_sum_B(length_B * stats.total_B)
    baseline_B = weighted_B / stats.group_sum_B(length_B).clamp(min=1)
    return spread(stats.centred_B(lone, baseline_B), mask_BT)
