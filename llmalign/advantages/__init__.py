"""Advantages: rewards of grouped samples in, one number per token out. Pure functions on tensors.

Every registered function is called as

    f(reward_B, group_B, mask_BT, penalty_BT, **options) -> adv_BT

where ``reward_B`` is NaN for a sample nobody could score (it leaves the baseline and has advantage
0), ``group_B`` numbers the groups from 0, ``mask_BT`` is True on tokens the policy wrote and
``penalty_BT`` is a reward per token (-beta * KL where KL is placed in the reward, else 0). The
result is float64, detached, and 0 wherever the mask is False.
"""

from llmalign.advantages.batch_whitened import batch_whitened
from llmalign.advantages.gpg import gpg
from llmalign.advantages.group import group
from llmalign.advantages.groups import degenerate_groups, kept_groups
from llmalign.advantages.leave_one_out import leave_one_out
from llmalign.advantages.opo import opo
from llmalign.advantages.plain import plain
from llmalign.advantages.registry import ADVANTAGES

__all__ = [
    "ADVANTAGES",
    "batch_whitened",
    "degenerate_groups",
    "gpg",
    "group",
    "kept_groups",
    "leave_one_out",
    "opo",
    "plain",
]
