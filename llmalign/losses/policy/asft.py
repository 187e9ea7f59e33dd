"""Demonstrations weighted by the policy's own probability (DFT), and anchored (ASFT)."""

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.bounds import ANY_AGGREGATE
from llmalign.losses.registry import LOSSES

_ANCHORED = {"stage": "supervised", "aggregates": ANY_AGGREGATE}


@LOSSES.register(
    "dft",
    paper="Wu et al. 2025 (DFT), arXiv:2508.05629",
    traits={"stage": "supervised", "aggregates": ANY_AGGREGATE},
)
def dft(logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Negative log-likelihood times the token's own probability: loss = -sg(p) * logp (DFT).

    The weight, which has no gradient, takes away what makes the likelihood of an unlikely token
    steep; nothing holds the policy where it was (``asft`` does).

    Args: logp_BT, mask_BT: as ``sft``.
    Returns: loss_BT in nats, 0 outside the mask.
    Raises: TypeError, ValueError: a shape or dtype is off.
    Source: Wu et al. 2025, arXiv:2508.05629.
    """
    check_tokens(logp_BT, mask_BT)
    logp_BT = torch.where(mask_BT, logp_BT, 0.0)
    return -logp_BT.detach().exp() * logp_BT


@LOSSES.register(
    "asft", paper="Zhu et al. 2025 (ASFT), arXiv:2509.23753", traits=_ANCHORED, kl_coef=0.1
)
def asft(logp_BT: Tensor, mask_BT: Tensor, ref_kl_BT: Tensor, *, kl_coef: float) -> Tensor:
    """DFT with a KL to the start policy: loss = -sg(p) * logp + kl_coef * KL(ref || policy) (ASFT).

    Args: logp_BT, mask_BT: as ``sft``.
        ref_kl_BT: KL(reference || policy) over the whole vocabulary at each token, in nats
            (``forward_kl``); carries a gradient. Never read where ``mask_BT`` is False.
        kl_coef: >= 0.
    Returns: loss_BT in nats, 0 outside the mask.
    Raises: TypeError, ValueError: a shape or dtype is off, or kl_coef is negative.
    Source: Zhu et al. 2025, arXiv:2509.23753; the direction of the KL is the released code's.
    """
    return dft(logp_BT, mask_BT) + _anchor(logp_BT, mask_BT, ref_kl_BT, kl_coef)


@LOSSES.register(
    "sft_kl", paper="Zhu et al. 2025 (ASFT), arXiv:2509.23753", traits=_ANCHORED, kl_coef=0.1
)
def sft_kl(logp_BT: Tensor, mask_BT: Tensor, ref_kl_BT: Tensor, *, kl_coef: float) -> Tensor:
    """Maximum likelihood with a KL to the start policy: loss = -logp + kl_coef * KL(ref || policy).

    Args, Returns, Raises: as ``asft``.
    Source: Zhu et al. 2025, arXiv:2509.23753, its mode 'sft+kl'.
    """
    anchor_BT = _anchor(logp_BT, mask_BT, ref_kl_BT, kl_coef)
    return anchor_BT - torch.where(mask_BT, logp_BT, 0.0)


def _anchor(logp_BT: Tensor, mask_BT: Tensor, ref_kl_BT: Tensor, kl_coef: float) -> Tensor:
    check_tokens(logp_BT, mask_BT, ref_kl_BT=ref_kl_BT)
    if not kl_coef >= 0:
        raise ValueError(f"kl_coef is {kl_coef!r}, expected >= 0")
    return kl_coef * torch.where(mask_BT, ref_kl_BT, 0.0)


def forward_kl(logits_NV: Tensor, ref_logits_NV: Tensor) -> Tensor:
    """KL(reference || policy) over the vocabulary at each of N tokens: sum_V q * (log q - log p).

    Logits of -inf in the reference (a padded vocabulary) add nothing, whatever the policy has
    there; the policy's own -inf where the reference has mass is an infinite KL.

    Args:
        logits_NV: of the policy; carries the gradient.
        ref_logits_NV: of the frozen reference; no gradient.
    Returns: kl_N in nats.
    Raises: ValueError: the shapes differ.
    """
    if logits_NV.shape != ref_logits_NV.shape:
        raise ValueError(
            f"ref_logits_NV has shape {tuple(ref_logits_NV.shape)}, expected "
            f"{tuple(logits_NV.shape)} like logits_NV"
        )
    logq_NV = ref_logits_NV.detach().log_softmax(-1)
    has_NV = logq_NV > -torch.inf
    gap_NV = torch.where(has_NV, logq_NV, 0.0) - torch.where(has_NV, logits_NV.log_softmax(-1), 0.0)
    return (logq_NV.exp() * gap_NV).sum(-1)
