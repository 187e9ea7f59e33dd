"""Maximum likelihood of demonstrations."""

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.registry import LOSSES


@LOSSES.register("sft", paper="maximum likelihood", traits={"stage": "supervised"})
def sft(logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Negative log-likelihood of each demonstrated token: loss = -logp.

    Args:
        logp_BT: log-probability of each token, in nats; carries the gradient. Never read where
            ``mask_BT`` is False, may be NaN there.
        mask_BT: bool, True for tokens to learn.
    Returns: loss_BT in nats, 0 outside the mask; neither summed nor weighted.
    Raises: TypeError, ValueError: a shape or dtype is off.
    """
    check_tokens(logp_BT, mask_BT)
    return -torch.where(mask_BT, logp_BT, 0.0)
