"""Reference vectors of rewards that compare the policy with a second frozen model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmalign.rewards import build_reward
from llmalign.rewards.base import Group, Problem, Sample, Scorer, Services, TokenScores
from llmalign.rewards.demonstration import Demonstration
from llmalign.rewards.likelihood import demonstration_ratio

Case = Mapping[str, Any]


def _given(rows: Sequence[Sequence[float]]) -> Scorer:
    """A scorer that says ``rows``, one per pair."""
    return lambda pairs, hidden=False: [TokenScores(tuple(row), (), ()) for row in rows]


def _demonstrations(case: Case) -> Any:
    sft, base = case["inputs"]["logp_sft"], case["inputs"]["logp_base"]
    leaf = build_reward({"demonstration": {"base": "before"}})
    assert isinstance(leaf, Demonstration)
    leaf.bind(
        Services(verify=lambda *_: [], frozen=_given(sft), open_model=lambda path: _given(base))
    )
    samples = tuple(Sample("y", (1,) * len(row), (), "eos") for row in sft)
    values = [score.value for score in leaf.score([Group(Problem("p", "x"), samples)])[0]]
    tokens = [demonstration_ratio(*rows) for rows in zip(sft, base, strict=True)]
    return {"token": tokens, "sequence": values[0] if len(values) == 1 else values}


METHODS: dict[str, Callable[[Case], Any]] = {"SR-PPO": _demonstrations}
