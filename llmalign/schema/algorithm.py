"""What is learnt from samples: penalties, weights, critic, optimizer."""

from typing import Literal

from pydantic import Field, model_validator

from llmalign.schema.base import Choice, Strict

Aggregate = Literal["token_mean", "sequence_mean", "sequence_sum", "constant"]


class Kl(Strict):
    """KL divergence to a reference policy, nats per token; ``coef: 0``: no reference.

    ``reference``: ``start``, the policy as the run started; ``ema``, after every ``every``
    optimizer steps rate * policy + (1 - rate) * reference; ``copy``, the policy itself then. With
    a ``target`` the coefficient follows the measured KL, by at most a fifth in ``horizon`` samples.
    """

    coef: float = Field(0.0, ge=0)
    estimator: Literal["k1", "k2", "k3", "abs", "k1+", "k3+"] = "k3"
    place: Literal["loss", "reward"] = "loss"
    reference: Literal["start", "ema", "copy"] = "start"
    rate: float = Field(0.6, gt=0, le=1)
    every: int = Field(512, gt=0)
    target: float | None = Field(None, gt=0)
    horizon: int = Field(10_000, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> "Kl":
        if self.target is not None and not self.coef:
            raise ValueError(
                f"target is {self.target} and coef is 0, expected a coefficient to start from; "
                "set coef"
            )
        return self


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


class EntropyTarget(Strict):
    """A bonus that grows by ``step`` while the entropy is at most ``target`` nats, shrinks while it
    is above, within [``low``, ``high``], and acts only in the first case (Skywork-OR1)."""

    target: float = Field(0.2, gt=0)
    step: float = Field(0.005, gt=0)
    low: float = Field(0.0, ge=0)
    high: float = Field(1.0, gt=0)


class EntropyBand(Strict):
    """A penalty of ``coef`` per nat that the entropy of a response's forks lies outside their own
    quantiles ``low`` to ``high``; forks are its ``share`` of tokens of highest entropy (SPINE)."""

    coef: float = Field(1.0, gt=0)
    share: float = Field(0.2, gt=0, le=1)
    low: float = Field(0.1, ge=0, le=1)
    high: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _in_order(self) -> "EntropyBand":
        if self.low > self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}, expected low <= high")
        return self


class Entropy(Strict):
    """Entropy bonus in units of reward per nat, 0 is none; with ``adaptive`` it is where the
    bonus starts."""

    bonus: float = Field(0.0, ge=0)
    adaptive: EntropyTarget | None = None
    band: EntropyBand | None = None


class AdvantageChoice(Choice):
    """An advantage; ``inputs`` gives each per-sample tensor it asks for the reward node whose value
    it is, as in ``{delta_B: distance}``; ``like`` takes eps, ddof and edge cases as that trainer
    has them, where the recipe does not say otherwise."""

    inputs: dict[str, str] = {}
    like: Literal["trl", "verl"] | None = None


class Optimizer(Strict):
    """AdamW."""

    lr: float = Field(1e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    warmup_steps: int = Field(0, ge=0)
    decay: Literal["constant", "linear", "cosine"] = "constant"


class CriticOptions(Strict):
    """What values come from, and how they are learnt; ``advantage`` ``gae`` has gamma and lam.

    ``kind``: ``model``, a decoder of its own, a copy of the start policy's or that of ``path`` (a
    saved critic, a causal language model, or a classifier with one label, whose head then gives
    the first values); ``head``, a value head on the policy (``path``: a saved one). ``clip``: how
    far a value may move from where it was when the advantages were made, in units of reward; null:
    anywhere. ``returns_lam``: the lam of the returns the critic learns; null: the advantage's.
    ``warmup_steps``: first steps in which only the critic learns. ``coef``: weight of the value
    loss in the loss of the policy, kind ``head`` only.
    """

    kind: Literal["model", "head"] = "model"
    path: str | None = None
    optimizer: Optimizer = Optimizer(lr=1e-5)
    clip: float | None = Field(None, gt=0)
    returns_lam: float | None = Field(None, ge=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    coef: float = Field(0.1, gt=0)

    @model_validator(mode="after")
    def _coef_is_used(self) -> "CriticOptions":
        if self.kind == "model" and self.coef != type(self).model_fields["coef"].default:
            raise ValueError(
                f"coef is {self.coef} and kind is 'model', whose loss is not added to the "
                "policy's; leave coef out, or set kind: head"
            )
        return self
