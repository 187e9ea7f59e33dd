"""A coefficient of the KL that keeps the KL near a target."""


def adaptive_kl_coef(
    coef: float, *, kl: float, target: float, horizon: float, num_samples: int
) -> float:
    """The coefficient after ``num_samples`` more samples whose KL was ``kl``.

        coef' = coef * (1 + clip(kl / target - 1, -0.2, 0.2) * num_samples / horizon)

    Args:
        coef: so far, >= 0.
        kl, target: nats per sample or per token, but both alike; target > 0.
        horizon: samples over which the coefficient may change by a fifth, > num_samples / 5.
        num_samples: sampled since the last call, >= 0.
    Raises: ValueError: an argument lies outside its range.
    Source: Ziegler et al. 2019, arXiv:1909.08593, section 2.2, with the step of its released code.
    """
    if not coef >= 0:
        raise ValueError(f"coef is {coef!r}, expected >= 0")
    if not target > 0:
        raise ValueError(f"target is {target!r}, expected > 0 nats")
    if num_samples < 0:
        raise ValueError(f"num_samples is {num_samples!r}, expected >= 0")
    if not horizon > num_samples / 5:
        raise ValueError(
            f"horizon is {horizon!r}, expected > num_samples / 5 = {num_samples / 5:g}; else the "
            "coefficient can fall to 0 and below"
        )
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coef * (1 + error * num_samples / horizon)
