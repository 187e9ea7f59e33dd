"""Advantages: rewards of grouped samples in, one number per token out. Pure functions on tensors.

A function states what it needs by the names of its positional parameters; ``llmalign.inputs`` knows
where each comes from. Most are called as

    f(reward_B, group_B, mask_BT, penalty_BT, **options) -> adv_BT

where ``reward_B`` is NaN for a sample nobody could score (it leaves the baseline and has advantage
0), ``group_B`` numbers the groups from 0, ``mask_BT`` is True on tokens the policy wrote and
``penalty_BT`` is a reward per token (-beta * KL where KL is placed in the reward, else 0). The
result is float64, detached, and 0 wherever the mask is False.
"""

from llmalign.advantages.anchored import anchored
from llmalign.advantages.batch_whitened import batch_whitened
from llmalign.advantages.conventions import convention
from llmalign.advantages.critic import gae, gae_and_returns, value_loss
from llmalign.advantages.difficulty import grpo_s
from llmalign.advantages.gpg import gpg
from llmalign.advantages.group import group
from llmalign.advantages.groups import degenerate_groups, kept_groups
from llmalign.advantages.leave_one_out import leave_one_out
from llmalign.advantages.opo import opo
from llmalign.advantages.pairwise import antisymmetric, both_orders, brpo, pairwise_wins
from llmalign.advantages.pass_at_k import max_minus_second, pass_at_k, pass_at_k_bootstrap
from llmalign.advantages.plain import plain
from llmalign.advantages.process import process_min, process_sum, pure, soft_min_credit
from llmalign.advantages.registry import ADVANTAGES
from llmalign.advantages.selected import best_of_batch, best_of_group
from llmalign.advantages.stable import stable
from llmalign.advantages.tree import treepo, treepo_segments, treerl
from llmalign.advantages.turning_point import turning_point_rewards, turning_points

__all__ = [
    "ADVANTAGES",
    "anchored",
    "antisymmetric",
    "batch_whitened",
    "best_of_batch",
    "best_of_group",
    "both_orders",
    "brpo",
    "convention",
    "degenerate_groups",
    "gae",
    "gae_and_returns",
    "gpg",
    "group",
    "grpo_s",
    "kept_groups",
    "leave_one_out",
    "max_minus_second",
    "opo",
    "pairwise_wins",
    "pass_at_k",
    "pass_at_k_bootstrap",
    "plain",
    "process_min",
    "process_sum",
    "pure",
    "soft_min_credit",
    "stable",
    "treepo",
    "treepo_segments",
    "treerl",
    "turning_point_rewards",
    "turning_points",
    "value_loss",
]
