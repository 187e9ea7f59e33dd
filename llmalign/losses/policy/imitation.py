"""RAFT and SuperHF: maximum likelihood of the samples that were selected."""

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.bounds import ANY_AGGREGATE
from llmalign.losses.policy.ratio import PolicyStats, log_ratio, policy_stats
from llmalign.losses.registry import LOSSES


@LOSSES.register(
    "raft",
    paper="Dong et al. 2023 (RAFT), arXiv:2304.06767",
    traits={"stage": "policy", "level": "token", "aggregates": ANY_AGGREGATE},
)
def raft(
    logp_BT: Tensor, logp_old_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor
) -> tuple[Tensor, PolicyStats]:
    """Negative log-likelihood of the tokens of selected samples (RAFT).

        loss = -logp    where A > 0, else 0

    A sample is selected by a positive advantage, whose size does not matter: 1 for the best of a
    group (advantage ``best_of_group``); with the plain reward of a verifier, all right samples
    are. Statistics cover all tokens under the mask, selected or not.

    Args: logp_BT, mask_BT: as ``clipped``; logp_old_BT is for the statistics alone.
        adv_BT: positive on the tokens of selected samples; no gradient.
    Returns: loss_BT in nats, 0 where not selected and outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off.
    Source: Dong et al. 2023, arXiv:2304.06767, reconstructed.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    loss_BT = -torch.where(_selected(adv_BT, mask_BT), logp_BT, 0.0)
    return loss_BT, policy_stats(log_ratio(logp_BT, logp_old_BT, mask_BT), mask_BT)


@LOSSES.register(
    "superhf",
    paper="Mukobi et al. 2023 (SuperHF), arXiv:2310.16763",
    traits={
        "stage": "policy",
        "level": "token",
        "aggregates": ANY_AGGREGATE,
    },
    kl_coef=0.0,
)
def superhf(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    ref_kl_BT: Tensor,
    *,
    kl_coef: float,
) -> tuple[Tensor, PolicyStats]:
    """Negative log-likelihood of selected samples with a KL to the start policy (SuperHF).

        loss = -logp + kl_coef * max(KL(reference || policy), 0)    where A > 0, else 0

    The KL is over the whole vocabulary at each token (``forward_kl``); the bound at 0 only takes
    off rounding. Both terms have the same weight per token: the released code divides the KL by
    nothing while the cross-entropy is a mean, so that its coefficient depends on the batch. Its
    optional penalty on the inverse of the loss is no sum over tokens and is left out.

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``raft``.
        ref_kl_BT: KL(reference || policy) at each token, in nats; carries a gradient. Never read
            where ``mask_BT`` is False.
        kl_coef: >= 0.
    Returns: loss_BT in nats, 0 where not selected and outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape or dtype is off, or kl_coef is negative.
    Source: Mukobi et al. 2023, arXiv:2310.16763.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT, ref_kl_BT=ref_kl_BT)
    if not kl_coef >= 0:
        raise ValueError(f"kl_coef is {kl_coef!r}, expected >= 0")
    selected_BT = _selected(adv_BT, mask_BT)
    loss_BT = -torch.where(selected_BT, logp_BT, 0.0)
    loss_BT = loss_BT + kl_coef * torch.where(selected_BT, ref_kl_BT, 0.0).clamp(min=0)
    return loss_BT, policy_stats(log_ratio(logp_BT, logp_old_BT, mask_BT), mask_BT)


def _selected(adv_BT: Tensor, mask_BT: Tensor) -> Tensor:
    return mask_BT & (torch.where(mask_BT, adv_BT.detach(), 0.0) > 0)
