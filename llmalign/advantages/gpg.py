"""GPG: group-centred reward, scaled up for the samples without reward."""

from torch import Tensor

from llmalign.advantages.groups import Lone, group_statistics, spread
from llmalign.advantages.registry import ADVANTAGES


@ADVANTAGES.register("gpg", paper="Chu et al. 2025 (GPG), arXiv:2504.02546", lone="zero")
def gpg(
    reward_B: Tensor, group_B: Tensor, mask_BT: Tensor, penalty_BT: Tensor, *, lone: Lone
) -> Tensor:
    """Group-centred reward times B / (number of samples whose reward is not 0) (GPG).

        A = alpha * (total - mean_group)    alpha = scored samples / scored samples with total != 0

    The count is over the whole batch given. It is of rewards, not of advantages, as in verl, whose
    numbers this reproduces: with rewards -1 and 1 alpha is always 1.

    Args: as ``group``; ``lone`` is the advantage of a group's only scored sample: 0, or alpha * R.
    Returns: adv_BT float64, in units of reward.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Chu et al. 2025, arXiv:2504.02546.
    """
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    # A sample that is not scored has total 0.
    alpha = stats.scored_B.sum() / (stats.total_B != 0).sum().clamp(min=1)
    return spread(alpha * stats.centred_B(lone), mask_BT)
