"""How long a run is, how it is judged, watched and saved."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from llmalign.schema.algorithm import Optimizer
from llmalign.schema.base import Strict
from llmalign.schema.inputs import Data


class Schedule(Strict):
    """How long, in what portions, and how often state is saved.

    ``share_prompts``: whether each prompt is computed once for all responses to it; ``packing``:
    whether rows go through the model end to end, without padding; ``auto``: where that is clearly
    less work. The other switches save work and change no number, and are there so that what they
    save can be measured: ``drop_idle`` leaves rows without a gradient out of the forward pass,
    ``fuse_head`` takes losses per token inside the head, so that logits are computed once, and
    ``skip_old_pass`` takes no old log-probs where the policy is still the one that sampled.
    """

    steps: int = Field(100, gt=0)
    batch_size: int = Field(64, gt=0)  # offline only: rows (or pairs) of one optimizer step
    updates_per_batch: int = Field(1, gt=0)
    epochs_per_batch: int = Field(1, gt=0)
    tokens_per_microbatch: int = Field(16384, gt=0)
    share_prompts: Literal["auto", "always", "never"] = "auto"
    packing: Literal["auto", "always", "never"] = "auto"
    drop_idle: bool = True
    fuse_head: bool = True
    skip_old_pass: bool = True
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


class ImitationControl(Strict):
    """Moves the share of imitation every ``every`` steps, within [``low``, ``high``] (AMFT).

    By ``entropy_lr`` for each nat that the entropy, its mean over those steps, lies below
    ``target_entropy`` (null: the first such mean), and by ``meta_lr`` times the gradient of a look
    ahead at the demonstrations of ``validation`` prompts, which are held out for it; under
    ``meta_lr: 0`` there is no such look, and none is held out.
    """

    every: int = Field(20, gt=0)
    entropy_lr: float = Field(5e-4, ge=0)
    meta_lr: float = Field(1e-4, ge=0)
    target_entropy: float | None = Field(None, ge=0)
    low: float = Field(0.05, gt=0, lt=1)
    high: float = Field(0.95, gt=0, lt=1)
    validation: int = Field(32, gt=0)


class ImitationOptions(Strict):
    """Demonstrations learnt from beside the samples: (1 - share) * policy loss + share * SFT loss.

    ``data``: as in a recipe with ``algorithm: sft``. ``batch_size``: demonstrations of one
    optimizer step. ``adapt``: what moves the share; null: nothing.
    """

    data: Data
    share: float = Field(0.8, ge=0, le=1)
    batch_size: int = Field(64, gt=0)
    adapt: ImitationControl | None = None

    @model_validator(mode="after")
    def _fits(self) -> "ImitationOptions":
        if self.data.eval is not None or self.data.holdout:
            raise ValueError(
                "data has eval or holdout, expected neither: demonstrations are not judged; hold "
                "problems out in the recipe's own data, demonstrations with adapt.validation"
            )
        if self.adapt and not self.adapt.low <= self.share <= self.adapt.high:
            raise ValueError(
                f"share is {self.share}, expected a number from adapt.low, {self.adapt.low}, to "
                f"adapt.high, {self.adapt.high}"
            )
        return self
