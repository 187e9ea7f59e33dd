"""What tests of rewards have in common."""

from typing import Any

from llmalign.rewards import Group, Problem, Sample, Score, build_reward
from llmalign.rewards.base import Services


def no_verifier(kind: str, pairs: Any, options: Any) -> Any:
    """In place of a pool, for rewards that must not ask one."""
    raise AssertionError("no verifier is needed")


def group(columns: dict[str, Any], *texts: str) -> Group:
    """Answers to a question with these columns."""
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return Group(Problem("p7", "question", columns), samples)


def score(services: Services, spec: Any, group: Group) -> list[Score]:
    """What a reward says of one group."""
    reward = build_reward(spec)
    reward.bind(services)
    return reward.score([group])[0]
