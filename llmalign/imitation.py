"""Imitation beside reinforcement: demonstrations in every optimizer step of an online run (AMFT).

Shape letters in this file
    C  response tokens of a chunk
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from llmalign.data import ProblemSampler
from llmalign.demonstrations import Row, fitting, read_demonstrations
from llmalign.forward import Forward
from llmalign.losses.policy.amft import look_ahead_gradient, next_mu
from llmalign.losses.supervised import sft
from llmalign.optim import learning_rate
from llmalign.policy import Policy
from llmalign.rollout import sample_seed
from llmalign.schema import ImitationControl, ImitationOptions, Recipe


class Imitation:
    """Demonstrations, their losses, and the share that these have in each optimizer step.

        loss = (1 - mu) * policy loss + mu * mean over demonstrated tokens of -logp

    A secondary source says that the paper was withdrawn, and at the released rates mu moves by at
    most some 1e-3 every 20 steps: what is used here is the mixture, not the paper's figures.

    Args:
        recipe: of the run.
        config: its ``imitation``.
        policy: what imitates; its log-probs are those at temperature 1, as in a supervised run.
        forward: lays its rows out.
    Raises: ValueError: the demonstrations cannot be used, or are too few to hold some out.
    Source: AMFT 2025, arXiv:2508.06944, reconstructed. Two things differ from a public
        implementation: the entropy and its target are means over the samples of ``every`` steps
        (there the entropy of each step moves mu, and the target is of the demonstrations), and mu
        descends the held-out loss (there it climbs).

    Attributes:
        mu: the share of imitation in the next step.
        target_entropy: in nats per token; None until it is measured.
        rows: demonstrations that are learnt from, as prompt and response ids.
        held_out: those that the look-ahead asks; none where it is off.
        left_out: id and reason of demonstrations that are not learnt from.
    """

    def __init__(
        self, recipe: Recipe, config: ImitationOptions, policy: Policy, forward: Forward
    ) -> None:
        self._recipe, self._config = recipe, config
        self._policy, self._forward = policy, forward
        data, adapt = config.data, config.adapt
        limit = min(policy.context_length, data.max_prompt_tokens + recipe.rollout.max_new_tokens)
        kept, self.left_out = fitting(
            read_demonstrations(data, policy.tokenizer),
            limit=limit,
            data=data,
            place="imitation.data",
        )
        self.rows, self.held_out = [row for (row,) in kept], list[Row]()
        if adapt is not None and adapt.meta_lr:
            self.rows, self.held_out = _split(self.rows, adapt.validation, seed=recipe.seed)
        self._sampler = ProblemSampler(
            len(self.rows), seed=sample_seed(recipe.seed, "imitation"), shuffle=data.shuffle
        )
        self.mu = config.share
        self.target_entropy = adapt.target_entropy if adapt is not None else None
        self._steps = 0
        self._entropies: list[float] = []  # of the steps since mu last moved
        self._meta_gradient = math.nan
        self._losses: list[float] = []  # of the optimizer steps since ``after_step``
        self._tokens = 0

    # -- one optimizer step -------------------------------------------------------------------

    def mixed(self, rl_losses: Iterable[Tensor], step: int) -> Iterator[Tensor]:
        """Micro-batch losses of one optimizer step on samples and demonstrations together.

        The last step before mu moves looks ahead: one forward and backward pass more, over the
        held-out demonstrations, and two gradients more in memory; the gradients of the two losses
        are those of the step itself, read off as they add up.

        Args:
            rl_losses: micro-batch losses that add up to the policy loss; none where nothing can be
                learnt from the samples, which then leaves mu times the loss of the demonstrations.
            step: the loop's step, counted from 0.
        Returns: losses to go back through one by one, each before the next is asked for, in
            parameters whose gradients were cleared before the first, as ``Updater.update`` does.
        """
        adapt = self._config.adapt
        moves = adapt is not None and (self._steps + 1) % adapt.every == 0
        if moves and self.held_out and math.isnan(self._meta_gradient):
            return self._looking_ahead(rl_losses, step)
        return mix(rl_losses, self.losses(), mu=self.mu)

    def losses(self) -> Iterator[Tensor]:
        """Micro-batch losses that add up to the mean over the tokens of the next demonstrations."""
        chosen = [index for index, _ in self._sampler.next(self._config.batch_size)]
        self._tokens += sum(len(self.rows[i][1]) for i in chosen)
        total = 0.0
        for loss in self._token_mean([self.rows[i] for i in chosen]):
            total += loss.item()
            yield loss
        self._losses.append(total)

    def _token_mean(self, rows: Sequence[Row]) -> Iterator[Tensor]:
        num_tokens = sum(len(response) for _, response in rows)

        def token_loss(logp_C: Tensor, entropy_C: Tensor, chunk: slice) -> Tensor:
            all_1C = torch.ones_like(logp_C, dtype=torch.bool)[None]
            return sft(logp_C[None], all_1C).sum() / num_tokens

        for _, batch in self._forward.batches(rows, range(len(rows))):
            yield self._policy.loss_over_tokens(batch, token_loss, temperature=1.0)[0]

    def _looking_ahead(self, rl_losses: Iterable[Tensor], step: int) -> Iterator[Tensor]:
        """``mix``, which leaves behind how much a higher mu lowers the held-out loss in one step of
        plain descent."""
        parameters = list(self._policy.trainable.values())
        validation = _gradient(self._token_mean(self.held_out), parameters)
        yield from mix(rl_losses, (), mu=self.mu)
        rl = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        yield from mix((), self.losses(), mu=self.mu)
        both = (r if p.grad is None else p.grad for p, r in zip(parameters, rl, strict=True))
        slope = look_ahead_gradient(
            validation,
            ((whole - r) / self.mu for whole, r in zip(both, rl, strict=True)),
            (r / (1 - self.mu) for r in rl),
            lr=learning_rate(
                self._recipe.optimizer, step=step, total_steps=self._recipe.schedule.steps
            ),
        )
        # What a higher mu does to the held-out loss. The released code adds it to mu as it is, and
        # so climbs the loss; less of it is what the share must grow by.
        self._meta_gradient = -slope

    # -- the share ----------------------------------------------------------------------------

    def after_step(self, entropy: float | None) -> dict[str, float | None]:
        """Takes in the mean entropy per token of a step, in nats; None: not measured.

        Returns: share, loss and tokens of imitation in that step, by metric.
        """
        metrics = {
            "imitation/share": self.mu,
            "imitation/loss": fmean(self._losses) if self._losses else None,
            "imitation/tokens": self._tokens,
        }
        self._losses, self._tokens = [], 0
        self._steps += 1
        if entropy is not None and math.isfinite(entropy):
            self._entropies.append(entropy)
        if self._config.adapt is not None and self._steps % self._config.adapt.every == 0:
            self._move(self._config.adapt)
        return metrics

    def _move(self, adapt: ImitationControl) -> None:
        measured = fmean(self._entropies) if self._entropies else self.target_entropy
        if self.target_entropy is None:
            self.target_entropy = measured
        pull = self._meta_gradient if math.isfinite(self._meta_gradient) else math.nan
        self.mu = next_mu(
            self.mu,
            entropy=measured or 0.0,  # where none was ever measured there is no target either
            meta_gradient=pull,
            target_entropy=self.target_entropy or 0.0,
            meta_lr=adapt.meta_lr,
            entropy_lr=adapt.entropy_lr,
            mu_min=adapt.low,
            mu_max=adapt.high,
        )
        self._entropies, self._meta_gradient = [], math.nan

    def state_dict(self) -> dict[str, Any]:
        """JSON values, after ``after_step``."""
        return {
            "sampler": self._sampler.state_dict(),
            "mu": self.mu,
            "target_entropy": self.target_entropy,
            "steps": self._steps,
            "entropies": list(self._entropies),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        self._sampler.load_state_dict(state["sampler"])
        self.mu, self.target_entropy = state["mu"], state["target_entropy"]
        self._steps, self._entropies = state["steps"], list(state["entropies"])


def mix(
    rl_losses: Iterable[Tensor], sft_losses: Iterable[Tensor], *, mu: float
) -> Iterator[Tensor]:
    """Micro-batch losses of (1 - mu) * RL + mu * SFT, one graph alive at a time.

    Args: rl_losses, sft_losses: micro-batch losses that add up to each; consumed in this order.
        mu: in [0, 1].
    """
    for loss in rl_losses:
        yield (1 - mu) * loss
    for loss in sft_losses:
        yield mu * loss


def _gradient(losses: Iterable[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Of the sum of ``losses``, without touching what the parameters hold."""
    total = [torch.zeros_like(p) for p in parameters]
    for loss in losses:
        parts = torch.autograd.grad(loss, parameters, materialize_grads=True)
        for sum_, part in zip(total, parts, strict=True):
            sum_ += part
    return total


def _split(rows: Sequence[Row], count: int, *, seed: int) -> tuple[list[Row], list[Row]]:
    """(learnt from, held out): the rows of ``count`` prompts, chosen by their hash, stay out."""

    def rank(row: Row) -> bytes:
        return hashlib.sha256(f"{seed}\x1f{row[0]!r}".encode()).digest()

    ordered = sorted({rank(row) for row in rows})
    if count >= len(ordered):
        raise ValueError(
            f"imitation.adapt.validation is {count}, expected fewer than the {len(ordered)} "
            "distinct prompts of the demonstrations; lower it, or set imitation.adapt.meta_lr to 0"
        )
    held = set(ordered[:count])
    return [r for r in rows if rank(r) not in held], [r for r in rows if rank(r) in held]
