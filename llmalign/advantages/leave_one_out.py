"""RLOO: the mean of the other samples is the baseline."""

from torch import Tensor

from llmalign.advantages.groups import Lone, group_statistics, spread
from llmalign.advantages.registry import ADVANTAGES


@ADVANTAGES.register(
    "leave_one_out", paper="Ahmadian et al. 2024 (RLOO), arXiv:2402.14740", lone="zero"
)
def leave_one_out(
    reward_B: Tensor, group_B: Tensor, mask_BT: Tensor, penalty_BT: Tensor, *, lone: Lone
) -> Tensor:
    """Reward minus the mean reward of the group's other samples (RLOO).

        total = R + sum_t penalty_t
        A_i   = total_i - mean_{j != i} total_j = n / (n - 1) * (total_i - mean_group)

    The second form is computed; a group whose totals are all equal has advantage exactly 0.

    Args: as ``group``; ``lone`` is the advantage of a group's only scored sample: 0 or its total.
    Returns: adv_BT float64, in units of reward.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Ahmadian et al. 2024, arXiv:2402.14740; the estimator: Kool et al. 2019.
    """
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    others_B = (stats.count_B - 1).clamp(min=1)
    # count / others is 1 for a lone sample, whose total then stays as it is.
    return spread(stats.centred_B(lone) * stats.count_B / others_B, mask_BT)
