"""Rewards: groups of samples in, scores out. They know verifiers, never a tensor or a tokenizer."""

from llmalign.rewards import (
    code,
    combine,
    countdown,
    format,
    gate,
    length,
    math,
    normalize,
    schedule,
    shape,
)
from llmalign.rewards.base import Group, Problem, Reward, Sample, Score, Services, StepScore
from llmalign.rewards.callable import as_trl
from llmalign.rewards.host import RewardHost
from llmalign.rewards.tree import REWARDS, build_reward

__all__ = [
    "REWARDS",
    "Group",
    "Problem",
    "Reward",
    "RewardHost",
    "Sample",
    "Score",
    "Services",
    "StepScore",
    "as_trl",
    "build_reward",
    "code",
    "combine",
    "countdown",
    "format",
    "gate",
    "length",
    "math",
    "normalize",
    "schedule",
    "shape",
]
