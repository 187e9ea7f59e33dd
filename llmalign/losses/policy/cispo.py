"""CISPO: REINFORCE under a truncated importance weight."""

from typing import Literal

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.bounds import ANY_AGGREGATE, BoundStats, bound_stats
from llmalign.losses.policy.ratio import log_ratio
from llmalign.losses.registry import LOSSES

Bounds = Literal["distance", "ceiling"]


@LOSSES.register(
    "cispo",
    paper="MiniMax 2025 (MiniMax-M1), arXiv:2506.13585; bounds 'ceiling': Khatri et al. 2025 "
    "(ScaleRL), arXiv:2510.13786",
    traits={"stage": "policy", "level": "token", "aggregates": ANY_AGGREGATE},
    bounds="ceiling",
    clip_low=None,
    clip_high=5.0,
)
def cispo(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    bounds: Bounds,
    clip_low: float | None,
    clip_high: float,
) -> tuple[Tensor, BoundStats]:
    """Advantage times log-probability, weighted by a clipped ratio that has no gradient (CISPO).

        loss = -sg(w) * A * logp
        w    = clip(rho, 1 - clip_low, 1 + clip_high)       bounds 'distance' (MiniMax, verl)
        w    = min(rho, clip_high)                          bounds 'ceiling' (ScaleRL, TRL)

    No token ever loses its gradient. The same number means different things in the two
    conventions: 0.28 as a ceiling would scale every weight down to 0.28, so a ceiling below 1 is
    refused. The value is no surrogate: only the gradient means something.

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``clipped``.
        bounds: the convention.
        clip_low: distance of the lower bound from 1, in [0, 1); None: no lower bound, as in the
            paper and always under ``ceiling``.
        clip_high: distance of the upper bound from 1, >= 0; under ``ceiling`` the bound, >= 1.
    Returns: loss_BT in units of reward times nats, 0 outside the mask; and its statistics, where
        clipped counts weights that differ from their ratio.
    Raises: TypeError, ValueError: a shape or dtype is off, or a bound lies outside its range.
    Source: MiniMax 2025, arXiv:2506.13585; ceiling: Khatri et al. 2025, arXiv:2510.13786.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    low, high = _limits(bounds, clip_low, clip_high)
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    rho_BT = log_rho_BT.detach().exp()
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    loss_BT = -rho_BT.clamp(low, high) * adv_BT * torch.where(mask_BT, logp_BT, 0.0)
    return loss_BT, bound_stats(log_rho_BT, mask_BT, rho_BT < low, rho_BT > high)


def _limits(bounds: str, clip_low: float | None, clip_high: float) -> tuple[float, float]:
    if bounds == "ceiling":
        if clip_low is not None:
            raise ValueError(f"clip_low is {clip_low!r}, expected None under 'ceiling'")
        if not clip_high >= 1:
            raise ValueError(
                f"clip_high is {clip_high!r}, expected >= 1: it is the bound itself, not its "
                "distance from 1; for the latter choose bounds 'distance'"
            )
        return 0.0, clip_high
    if bounds != "distance":
        raise ValueError(f"bounds is {bounds!r:.80}, expected 'distance' or 'ceiling'")
    if clip_low is not None and not 0 <= clip_low < 1:
        raise ValueError(f"clip_low is {clip_low!r}, expected a number in [0, 1) or None")
    if not clip_high >= 0:
        raise ValueError(f"clip_high is {clip_high!r}, expected >= 0")
    return 0.0 if clip_low is None else 1 - clip_low, 1 + clip_high
