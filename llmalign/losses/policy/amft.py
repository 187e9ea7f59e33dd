"""AMFT: the balance of imitation and reinforcement, moved by entropy and a look-ahead gradient."""

import math
from collections.abc import Iterable

from torch import Tensor


def mixed(rl_loss: Tensor, sft_loss: Tensor, *, mu: float) -> Tensor:
    """(1 - mu) * rl_loss + mu * sft_loss, ``mu`` in [0, 1].

    Raises: ValueError: ``mu`` lies outside its range.
    Source: AMFT 2025, arXiv:2508.06944.
    """
    if not 0 <= mu <= 1:
        raise ValueError(f"mu is {mu!r}, expected a number in [0, 1]")
    return (1 - mu) * rl_loss + mu * sft_loss


def next_mu(
    mu: float,
    *,
    entropy: float,
    meta_gradient: float,
    target_entropy: float,
    meta_lr: float,
    entropy_lr: float,
    mu_min: float,
    mu_max: float,
) -> float:
    """The share of imitation after one update of the controller.

        mu' = clip(mu + meta_lr * g + entropy_lr * (target_entropy - entropy), mu_min, mu_max)

    Entropy below its target raises mu: more imitation. A gradient that is NaN is left out. The
    released numbers, mu 0.8, meta_lr 1e-4, entropy_lr 5e-4 every 20 steps within [0.05, 0.95] and
    a target measured after the supervised warm-up, move mu by at most some 1e-3 each time.

    Args:
        mu: the share so far.
        entropy, target_entropy: mean entropy per token, in nats.
        meta_gradient: how much a higher mu would lower the validation loss (minus
            ``look_ahead_gradient``).
    Raises: ValueError: the bounds do not lie in order in [0, 1].
    Source: AMFT 2025, arXiv:2508.06944, as in a public implementation.
    """
    if not 0 <= mu_min <= mu_max <= 1:
        raise ValueError(f"mu_min is {mu_min!r} and mu_max is {mu_max!r}, expected 0 <= both <= 1")
    pull = 0.0 if math.isnan(meta_gradient) else meta_lr * meta_gradient
    return min(max(mu + pull + entropy_lr * (target_entropy - entropy), mu_min), mu_max)


def look_ahead_gradient(
    validation: Iterable[Tensor], sft: Iterable[Tensor], rl: Iterable[Tensor], *, lr: float
) -> float:
    """How the validation loss changes with mu, looking one step of SGD ahead.

        g = -lr * <grad L_val, grad L_SFT - grad L_RL>

    The released code adds this to mu and so climbs that loss; give ``next_mu`` its negative.

    Args: validation, sft, rl: gradients of the three losses, parameter by parameter in one order.
        lr: of the step looked ahead, > 0.
    Raises: ValueError: the three differ in number, or ``lr`` is not > 0.
    Source: AMFT 2025, arXiv:2508.06944, one-step look-ahead.
    """
    if not lr > 0:
        raise ValueError(f"lr is {lr!r}, expected > 0")
    rows = zip(validation, sft, rl, strict=True)
    return -lr * sum(float((v.double() * (s.double() - r.double())).sum()) for v, s, r in rows)
