"""What a recipe may say: one frozen block per subject, and an unknown key is an error."""

from llmalign.schema.algorithm import (
    AdvantageChoice,
    Aggregate,
    CriticOptions,
    Entropy,
    EntropyBand,
    EntropyTarget,
    Kl,
    Mismatch,
    Optimizer,
    Overlong,
)
from llmalign.schema.base import Choice, Strict
from llmalign.schema.inputs import Data, Lora, Model, Source
from llmalign.schema.recipe import PolicyJudgeOptions, Recipe, judge_options
from llmalign.schema.run import (
    Evaluate,
    Limit,
    Monitors,
    Observe,
    RewardHostOptions,
    Schedule,
    WarmStart,
)
from llmalign.schema.sampling import (
    CurriculumOptions,
    Dynamic,
    Replay,
    Rollout,
    Sampling,
    TreePo,
    TreeRl,
)

__all__ = [
    "AdvantageChoice",
    "Aggregate",
    "Choice",
    "CriticOptions",
    "CurriculumOptions",
    "Data",
    "Dynamic",
    "Entropy",
    "EntropyBand",
    "EntropyTarget",
    "Evaluate",
    "Kl",
    "Limit",
    "Lora",
    "Mismatch",
    "Model",
    "Monitors",
    "Observe",
    "Optimizer",
    "Overlong",
    "PolicyJudgeOptions",
    "Recipe",
    "Replay",
    "RewardHostOptions",
    "Rollout",
    "Sampling",
    "Schedule",
    "Source",
    "Strict",
    "TreePo",
    "TreeRl",
    "WarmStart",
    "judge_options",
]
