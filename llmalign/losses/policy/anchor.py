"""A reference that follows the policy: the anchor of T1 and TR-DPO."""

from collections.abc import Mapping

from torch import Tensor


def moved_anchor(
    anchor: Mapping[str, Tensor], policy: Mapping[str, Tensor], *, rate: float
) -> dict[str, Tensor]:
    """anchor' = rate * policy + (1 - rate) * anchor, weight by weight, without gradient.

    The KL of ``kl_penalty`` to such a reference holds the policy near its own recent past. T1
    states no rate; TR-DPO's is 0.6 every 512 steps.

    Raises: ValueError: the names differ, or ``rate`` lies outside [0, 1].
    Source: T1 2025, arXiv:2501.11651 (the idea); Gorbatovski et al. 2024 (TR-DPO),
        arXiv:2404.09656 (the form).
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate!r}, expected a number in [0, 1]")
    if anchor.keys() != policy.keys():
        odd = sorted(anchor.keys() ^ policy.keys())[:3]
        raise ValueError(f"anchor and policy have different weights, for example {odd}")
    return {
        name: rate * policy[name].detach() + (1 - rate) * weight.detach()
        for name, weight in anchor.items()
    }
