"""What a recipe may say: one frozen block per subject, and an unknown key is an error."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Policy = Literal["error", "drop"]
Aggregate = Literal["token_mean", "sequence_mean", "sequence_sum", "constant"]


class Strict(BaseModel):
    """Base of every block: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(Strict):
    """Low-rank adapters (peft); the base model stays frozen and serves as the reference."""

    rank: int = Field(16, gt=0)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | list[str] = "all-linear"


class Model(Strict):
    """Where the policy comes from: ``path`` (hub name or folder) or ``build: tiny``."""

    path: str | None = None
    build: Literal["tiny"] | None = None
    build_options: dict[str, int | float | bool] = {}
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] | None = None
    lora: Lora | None = None
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        if (self.path is None) == (self.build is None):
            raise ValueError(
                f"path is {self.path!r} and build is {self.build!r}, expected exactly one of them"
            )
        return self


class Source(Strict):
    """Rows: ``path`` (local JSONL/CSV/parquet or hub name) or ``generate`` (a seeded generator)."""

    path: str | None = None
    subset: str | None = None
    split: str = "train"
    generate: str | None = None
    count: int = Field(1000, gt=0)
    options: dict[str, Any] = {}
    seed: int = 0
    limit: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_source(self) -> "Source":
        if (self.path is None) == (self.generate is None):
            raise ValueError(
                f"path is {self.path!r} and generate is {self.generate!r}, "
                "expected exactly one of them"
            )
        return self


class Data(Strict):
    """What is trained on and what is held out."""

    train: Source
    eval: Source | None = None
    holdout: int = Field(0, ge=0)
    columns: dict[str, str] = {}
    template: str | None = None
    system: str | None = None
    chat: Literal["auto", "always", "never"] = "auto"
    on_bad_gold: Policy = "error"
    on_bad_row: Policy = "error"
    on_long_prompt: Policy = "error"
    max_prompt_tokens: int = Field(1024, gt=0)
    shuffle: bool = True

    @model_validator(mode="after")
    def _one_eval(self) -> "Data":
        if self.eval is not None and self.holdout:
            raise ValueError(
                f"holdout is {self.holdout} and eval is set, expected only one; set holdout to 0"
            )
        return self


class Rollout(Strict):
    """How completions are sampled.

    Under ``top_k``, ``top_p`` and ``min_p`` the tokens that could have been drawn are recorded, at
    most ``max_kept`` at a position, and old, new and reference policy are renormalised on them.
    """

    engine: Literal["hf"] = "hf"
    samples_per_problem: int = Field(8, gt=0)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    max_kept: int = Field(1024, gt=0)
    max_new_tokens: int = Field(512, gt=0)
    stop: list[str] = []
    batch_size: int = Field(128, gt=0)


class Dynamic(Strict):
    """DAPO's dynamic sampling: replace groups whose ``metric`` does not differ, within a budget.

    ``metric`` is the name of a reward node; null is the recipe's reward before the overlong
    penalty. ``max_batches`` bounds the problems generated in one step, in units of
    ``problems_per_step``.
    """

    max_batches: int = Field(10, gt=0)
    metric: str | None = None


class Sampling(Strict):
    """Which problems make a step, and how many of the scored samples of each are trained on.

    ``train_samples`` below ``rollout.samples_per_problem`` lets many samples vote and the first few
    learn, as in TTRL; null: all.
    """

    problems_per_step: int = Field(8, gt=0)
    train_samples: int | None = Field(None, gt=0)
    dynamic: Dynamic | None = None


class Kl(Strict):
    """KL divergence to the frozen start policy, nats per token; ``coef: 0``: no reference."""

    coef: float = Field(0.0, ge=0)
    estimator: Literal["k1", "k2", "k3", "abs", "k1+", "k3+"] = "k3"
    place: Literal["loss", "reward"] = "loss"


class Mismatch(Strict):
    """Weights for the gap between the engine that sampled and the trainer; ``kind`` null: none.

    ``kind``, ``level``, ``low`` and ``high`` as ``llmalign.losses.mismatch.mismatch_weights`` has
    them. ``mean_one`` divides the weights of a step by their mean. ``off_policy_delta`` drops
    sequences with negative advantage whose mean log-ratio exceeds it, nats per token.
    """

    kind: Literal["truncated", "masked", "rejected"] | None = None
    level: Literal["token", "sequence", "geometric"] = "token"
    low: float = Field(0.0, ge=0)
    high: float = Field(2.0, gt=0)
    mean_one: bool = False
    off_policy_delta: float | None = Field(None, ge=0)


class Overlong(Strict):
    """Completions near or at the limit: DAPO's soft penalty and its filter.

    ``buffer_share`` of ``max_new_tokens`` is the zone in which the penalty falls from 0 to
    -``factor``; 0 switches it off. ``filter`` takes truncated samples out of the loss.
    """

    buffer_share: float = Field(0.0, ge=0, le=1)
    factor: float = Field(1.0, ge=0)
    filter: bool = False


class Entropy(Strict):
    """Entropy bonus in units of reward per nat; 0 is none."""

    bonus: float = Field(0.0, ge=0)


class Choice(BaseModel):
    """A registered thing by ``kind`` and its options, checked against its signature."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str

    @property
    def options(self) -> dict[str, Any]:
        """All keys but ``kind``."""
        return dict(self.model_extra or {})


class Optimizer(Strict):
    """AdamW."""

    lr: float = Field(1e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    warmup_steps: int = Field(0, ge=0)
    decay: Literal["constant", "linear", "cosine"] = "constant"


class Schedule(Strict):
    """How long, in what portions, and how often state is saved.

    ``share_prompts``: whether each prompt is computed once for all responses to it; ``auto``: where
    that is clearly less work.
    """

    steps: int = Field(100, gt=0)
    batch_size: int = Field(64, gt=0)  # offline only: rows (or pairs) of one optimizer step
    updates_per_batch: int = Field(1, gt=0)
    epochs_per_batch: int = Field(1, gt=0)
    tokens_per_microbatch: int = Field(16384, gt=0)
    share_prompts: Literal["auto", "always", "never"] = "auto"
    checkpoint_every: int = Field(50, gt=0)
    keep_checkpoints: int = Field(2, gt=0)
    max_bad_updates: int = Field(3, gt=0)


class Evaluate(Strict):
    """Held-out evaluation: before, after, and every ``every`` steps (0: only before and after)."""

    every: int = Field(0, ge=0)
    problems: int | None = Field(None, gt=0)
    samples: int = Field(4, gt=0)
    k: list[int] = [1, 4]
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)

    @field_validator("k")
    @classmethod
    def _positive(cls, value: list[int]) -> list[int]:
        if any(k < 1 for k in value):
            raise ValueError(f"k is {value}, expected integers >= 1")
        return value


class Observe(Strict):
    """What is written and shown besides metrics.jsonl."""

    trackers: list[str] = []
    samples_every: int = Field(1, gt=0)
    samples_per_step: int | None = Field(None, gt=0)


class Limit(Strict):
    """Above ``warn`` there is a note, above ``stop`` the run saves its state and ends."""

    warn: float | None = None
    stop: float | None = None


class Monitors(Strict):
    """What warns or stops a run whose reward may be gamed.

    ``reward_length``: correlation of reward and length within groups, in [-1, 1]. ``truncated``:
    share of samples at the limit. ``disagreement``: share of sample pairs that the members of an
    ``ensemble`` order differently. Each must be over its limit ``patience`` steps in a row.
    ``jump``: how far reward, length, entropy, KL, loss or gradient norm of one step lies from the
    median of the last ``jump_window`` steps, in robust standard deviations.
    """

    reward_length: Limit = Limit(warn=0.8)
    truncated: Limit = Limit(warn=0.5)
    disagreement: Limit = Limit(warn=0.4)
    jump: Limit = Limit(warn=20.0)
    patience: int = Field(5, gt=0)
    jump_window: int = Field(50, gt=2)


class RewardHostOptions(Strict):
    """The processes that verify and that call functions of your own: how many, how long one
    judgement or call may take, their address space in MiB, and which share of the samples of a
    step may stay undecided before the run stops."""

    workers: int = Field(2, gt=0)
    timeout_s: float = Field(5.0, gt=0)
    memory_mb: int = Field(2048, gt=0)
    max_undecided: float = Field(0.5, ge=0, le=1)


class WarmStart(Strict):
    """A supervised stage before the run, on its own data; its model is the start policy."""

    data: Data
    optimizer: Optimizer = Optimizer(lr=1e-3)
    schedule: Schedule = Schedule()


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
    advantage: Choice = Choice(kind="group")
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
