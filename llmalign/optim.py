"""One optimizer step: micro-batch losses in, clipped AdamW update out, non-finite ones refused."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from llmalign.schema import Optimizer


@dataclass(frozen=True)
class UpdateResult:
    """What one optimizer step did; ``applied`` is False where loss or gradient was not finite."""

    loss: float
    grad_norm: float
    lr: float
    applied: bool


class Trained(Protocol):
    """What learns: a policy, or its critic."""

    model: Any
    version: int

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that learn, by name."""
        ...


class Updater:
    """AdamW over the trainable parameters. The learning rate is a function of the step."""

    def __init__(self, policy: Trained, config: Optimizer, *, total_steps: int) -> None:
        self._policy, self._config, self._total_steps = policy, config, total_steps
        self._parameters = list(policy.trainable.values())
        decayed = [p for p in self._parameters if p.ndim >= 2]
        rest = [p for p in self._parameters if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": rest, "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )
        self.bad_in_a_row = 0

    def update(self, losses: Iterable[Tensor], *, step: int) -> UpdateResult:
        """One optimizer step from micro-batch losses that add up to the batch's loss.

        Args:
            losses: scalars; consumed one by one, so that only one graph lives at a time.
            step: the loop's step, counted from 0: it alone sets the learning rate.
        """
        self._policy.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for loss in losses:
            loss.backward()
            total += loss.item()
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._config.max_grad_norm))
        lr = learning_rate(self._config, step=step, total_steps=self._total_steps)
        applied = math.isfinite(total) and math.isfinite(norm)
        if applied:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            self._policy.version += 1
            self.bad_in_a_row = 0
        else:
            self.bad_in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)
        return UpdateResult(total, norm, lr, applied)

    def state_dict(self) -> dict[str, Any]:
        """Trainable weights and optimizer state, for a checkpoint."""
        weights = {name: p.detach() for name, p in self._policy.trainable.items()}
        return {"model": weights, "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what ``state_dict`` returned.

        Raises:
            ValueError: the checkpoint's parameters are not those of this model.
        """
        trainable = self._policy.trainable
        if state["model"].keys() != trainable.keys():
            odd = sorted(state["model"].keys() ^ trainable.keys())[:3]
            raise ValueError(f"checkpoint and model have different parameters, for example {odd}")
        for name, value in state["model"].items():
            trainable[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])


def learning_rate(config: Optimizer, *, step: int, total_steps: int) -> float:
    """Linear warm-up over ``warmup_steps``, then constant, or linear or cosine decay to zero.

    ``step`` counts from 0; the first step has a rate above zero, the last one too.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.decay == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    if config.decay == "linear":
        return config.lr * (1.0 - done)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * done))
