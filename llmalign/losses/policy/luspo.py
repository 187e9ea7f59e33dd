"""LUSPO: GSPO without the division by a sequence's length."""

from torch import Tensor

from llmalign.losses.policy.bounds import BoundStats
from llmalign.losses.policy.gspo import gspo
from llmalign.losses.registry import LOSSES


@LOSSES.register(
    "luspo",
    paper="Liu et al. 2026 (LUSPO), arXiv:2602.05261",
    traits={
        "stage": "policy",
        "level": "sequence",
        "aggregates": ("sequence_sum", "constant", "sum_norm"),
    },
    clip_low=3e-4,
    clip_high=4e-4,
)
def luspo(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, BoundStats]:
    """GSPO's loss of a sequence times its length (LUSPO).

        loss_i = -|y_i| * min(s_i * A_i, clip(s_i, 1 - clip_low, 1 + clip_high) * A_i)

    That product is the sum over tokens of what ``gspo`` says for each, so the token losses are
    GSPO's and the aggregate alone differs: ``sequence_sum``, or it over a constant. The gradient
    of a token is then free of its sequence's length, as the derivative of ``s`` divides by it.

    Args, Returns, Raises: as ``gspo``.
    Source: Liu et al. 2026, arXiv:2602.05261, as TRL sums it. The default bounds are GSPO's.
    """
    return gspo(logp_BT, logp_old_BT, adv_BT, mask_BT, clip_low=clip_low, clip_high=clip_high)
