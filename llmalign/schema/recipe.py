"""A whole recipe."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import Field, field_validator

from llmalign.schema.algorithm import (
    AdvantageChoice,
    Aggregate,
    CriticOptions,
    Entropy,
    Kl,
    Mismatch,
    Optimizer,
    Overlong,
)
from llmalign.schema.base import Choice, Strict
from llmalign.schema.inputs import Data, Model
from llmalign.schema.run import (
    Evaluate,
    ImitationOptions,
    Monitors,
    Observe,
    RewardHostOptions,
    Schedule,
    WarmStart,
)
from llmalign.schema.sampling import Rollout, Sampling


@dataclass(frozen=True, kw_only=True)
class PolicyJudgeOptions:
    """A judge that is the policy as the run started: the ``judge`` block with this ``model``.

    Args:
        model: ``frozen_policy``; any other name is that of a model behind an API.
        max_new_tokens: the longest answer, thinking included, > 0; a longer one is none.
        temperature: 0 takes the most likely token, >= 0.
        seed: of its random streams, which temperature 0 does not use.
        batch_size: chats answered at once, > 0.
    """

    model: Literal["frozen_policy"] = "frozen_policy"
    max_new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("batch_size", 1), ("temperature", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected >= {least}")


class Recipe(Strict):
    """One run."""

    name: str = Field(pattern=r"^[\w.+-]+$")
    algorithm: str
    seed: int = 0
    output: str = "runs"
    model: Model
    warm_start: WarmStart | None = None
    data: Data
    reward: Any = None
    judge: dict[str, Any] | None = None  # PolicyJudgeOptions, or rewards.judge.JudgeOptions
    reward_host: RewardHostOptions = RewardHostOptions()
    rollout: Rollout = Rollout()
    sampling: Sampling = Sampling()
    advantage: AdvantageChoice = AdvantageChoice(kind="group")
    critic: CriticOptions | None = None
    imitation: ImitationOptions | None = None
    token_weights: Choice | None = None
    loss: Choice
    aggregate: Aggregate = "token_mean"
    kl: Kl = Kl()
    mismatch: Mismatch = Mismatch()
    entropy: Entropy = Entropy()
    overlong: Overlong = Overlong()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    evaluate: Evaluate = Evaluate()
    observe: Observe = Observe()
    monitors: Monitors = Monitors()

    @field_validator("judge")
    @classmethod
    def _judge_is_complete(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        from llmalign.verifiers.registry import coerce, unknown

        if given is None:
            return None
        options = judge_options(given)
        known = get_type_hints(options)
        for name, value in given.items():
            if name not in known:
                raise ValueError(unknown("option", name, known))
            coerce(value, known[name], name)
        if "model" not in given:
            raise ValueError(
                "model is missing, expected the judge's name as its server knows it, or "
                "'frozen_policy' for the policy itself"
            )
        return asdict(options(**given))

    @property
    def stage(self) -> str:
        """``policy``, ``preference`` or ``supervised``: what the loss learns from."""
        from llmalign.losses import LOSSES

        return str(LOSSES.get(self.loss.kind, "loss.kind").traits["stage"])

    @property
    def hash(self) -> str:
        """Of everything in the recipe."""
        return _digest(self.model_dump(mode="json"))

    @property
    def identity(self) -> str:
        """Hash of what a resumed run may not change: all but length, saving, showing and place."""
        plain = self.model_dump(mode="json", exclude={"output", "observe", "monitors", "name"})
        for key in ("steps", "checkpoint_every", "keep_checkpoints"):
            del plain["schedule"][key]
        return _digest(plain)

    def to_yaml(self) -> str:
        """The fully resolved recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def judge_options(given: Mapping[str, Any]) -> type:
    """Which options a ``judge`` block has: those of the policy as its own judge, or of an API."""
    from llmalign.rewards.judge import JudgeOptions

    return PolicyJudgeOptions if given.get("model") == "frozen_policy" else JudgeOptions


def _digest(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
