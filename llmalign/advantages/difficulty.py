"""GRPO-S: samples that are hard, or that a reward model is unsure about, weigh more."""

from typing import Literal

import torch
from torch import Tensor

from llmalign.advantages.group import group
from llmalign.advantages.registry import ADVANTAGES

Gap = Literal["small", "large"]


@ADVANTAGES.register(
    "grpo_s",
    paper="DR-IRL (GRPO-S), ICLR 2026; reconstructed in part",
    boosts="small",
    eps=1e-6,
    ddof=1,
)
def grpo_s(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    delta_B: Tensor,
    gap_B: Tensor,
    *,
    boosts: Gap,
    eps: float,
    ddof: int,
) -> Tensor:
    """Group-normalised reward times the difficulty of the sample (GRPO-S): A = alpha * z.

    z is ``group`` with scale 'std' and lone 'zero', alpha is ``difficulty``.

    Args: reward_B, group_B, mask_BT, penalty_BT, eps, ddof: as ``group``.
        delta_B, gap_B, boosts: as ``difficulty``.
    Returns: adv_BT float64, in standard deviations.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: DR-IRL, from a digest of the paper and third-party code.
    """
    z_BT = group(
        reward_B, group_B, mask_BT, penalty_BT, scale="std", eps=eps, ddof=ddof, lone="zero"
    )
    alpha_B = difficulty(delta_B, gap_B, boosts=boosts)
    if alpha_B.shape != reward_B.shape:
        raise ValueError(
            f"delta_B has shape {tuple(delta_B.shape)}, expected {tuple(reward_B.shape)} "
            "like reward_B"
        )
    return alpha_B[:, None] * z_BT


def difficulty(delta_B: Tensor, gap_B: Tensor, *, boosts: Gap) -> Tensor:
    """How hard each sample is, for the data and for the model, about 1 on average.

        alpha = sigmoid(delta) / sigmoid(mean delta) * m
        m     = sigmoid(mean gap) / sigmoid(gap)      boosts 'small': an unsure reward model
        m     = sigmoid(gap) / sigmoid(mean gap)      boosts 'large'

    Means are over the batch given. The paper's digest has the first m, third-party code the second:
    they pull opposite ways.

    Args:
        delta_B: 1 - mean over the demonstration's clauses of the largest cosine to a clause of the
            response; larger is further from it.
        gap_B: reward of the demonstration minus that of the response, or another margin. NaN in
            either leaves that mean (an outlier the caller drops, say) and makes that factor 1.
        boosts: see above.
    Returns: alpha_B float64, > 0.
    Raises: ValueError: shapes differ, or the option is unknown.
    Source: as ``grpo_s``.
    """
    if boosts not in ("small", "large"):
        raise ValueError(f"boosts is {boosts!r:.80}, expected 'small' or 'large'")
    if delta_B.shape != gap_B.shape or delta_B.dim() != 1:
        raise ValueError(
            f"gap_B has shape {tuple(gap_B.shape)}, expected {tuple(delta_B.shape)} like delta_B"
        )
    gap_factor_B = _over_mean(gap_B)
    return _over_mean(delta_B) * (1 / gap_factor_B if boosts == "small" else gap_factor_B)


def _over_mean(value_B: Tensor) -> Tensor:
    value_B = value_B.detach().double()
    known_B = ~value_B.isnan()
    mean = torch.where(known_B, value_B, 0.0).sum() / known_B.sum().clamp(min=1)
    return torch.where(known_B, value_B.sigmoid() / mean.sigmoid(), 1.0)
