"""GSPO: the clipped surrogate of a ratio per sequence."""

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.losses.policy.bounds import BoundStats, bound_stats, check_clip, surrogate
from llmalign.losses.policy.ratio import log_ratio
from llmalign.losses.policy.sequence import SEQUENCE_MEAN, check_rows, row_mean
from llmalign.losses.registry import LOSSES

MAX_LOG_SEQUENCE_RATIO = 10.0
_TRAITS = {"stage": "policy", "level": "sequence", "aggregates": SEQUENCE_MEAN}


@LOSSES.register(
    "gspo",
    paper="Zheng et al. 2025 (GSPO), arXiv:2507.18071",
    traits=_TRAITS,
    clip_low=3e-4,
    clip_high=4e-4,
)
def gspo(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, BoundStats]:
    """Clipped surrogate of the sequence's length-normalised ratio (GSPO).

        log s = min(mean_t log_rho_t, 10)       over the tokens of the sequence
        loss  = -min(s * A, clip(s, 1 - clip_low, 1 + clip_high) * A)       on each token

    ``s`` is a mean over tokens in the log, so it moves some hundred times less than a token's
    ratio: with the bounds of GRPO nothing is ever clipped. The loss is meant for
    ``sequence_mean``; what sums tokens instead weighs a sequence by its length (``luspo``). With
    one update per batch the ratio is 1 and the loss is REINFORCE over each sequence's length.

    Args: logp_BT, logp_old_BT, adv_BT, mask_BT: as ``clipped``, whole rows.
        clip_low, clip_high: distances of the bounds from 1, in [0, 1) and >= 0.
    Returns: loss_BT in units of reward, 0 outside the mask; and its statistics, counts in tokens.
    Raises: TypeError, ValueError: a shape or dtype is off, or a bound lies outside its range.
    Source: Zheng et al. 2025, arXiv:2507.18071; the bound on log s is verl's. Each token's
        log-ratio is clamped to +-20 before the mean, as in all losses here.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    log_rho_BT, log_s_B = _log_sequence_ratio(logp_BT, logp_old_BT, mask_BT)
    rho_BT = _bounded_exp(log_s_B)[:, None].expand_as(log_rho_BT)
    return _held(rho_BT, log_rho_BT, adv_BT, mask_BT, clip_low, clip_high)


@LOSSES.register(
    "gspo_token",
    paper="Zheng et al. 2025 (GSPO-token), arXiv:2507.18071",
    traits=_TRAITS,
    clip_low=3e-4,
    clip_high=4e-4,
)
def gspo_token(
    logp_BT: Tensor,
    logp_old_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, BoundStats]:
    """GSPO whose gradient stays with the token, for advantages that differ within a sequence.

        s_t  = sg(s) * pi_t / sg(pi_t)          s as in ``gspo``, sg: no gradient
        loss = -min(s_t * A_t, clip(s_t, 1 - clip_low, 1 + clip_high) * A_t)

    Its value is that of ``gspo``; where all tokens of a sequence share one advantage, so is its
    gradient. Else ``gspo`` sends the mean advantage to every token, this each token its own.

    Args, Returns, Raises: as ``gspo``.
    Source: Zheng et al. 2025, arXiv:2507.18071, token form; verl computes GSPO in this form.
    """
    check_tokens(logp_BT, mask_BT, logp_old_BT=logp_old_BT, adv_BT=adv_BT)
    log_rho_BT, log_s_B = _log_sequence_ratio(logp_BT, logp_old_BT, mask_BT)
    own_BT = log_rho_BT - log_rho_BT.detach()
    rho_BT = _bounded_exp(log_s_B.detach()[:, None] + own_BT)
    return _held(rho_BT, log_rho_BT, adv_BT, mask_BT, clip_low, clip_high)


def _log_sequence_ratio(
    logp_BT: Tensor, logp_old_BT: Tensor, mask_BT: Tensor
) -> tuple[Tensor, Tensor]:
    check_rows(logp_BT)
    log_rho_BT = log_ratio(logp_BT, logp_old_BT, mask_BT)
    return log_rho_BT, row_mean(log_rho_BT, mask_BT)


def _bounded_exp(log_s: Tensor) -> Tensor:
    return log_s.clamp(max=MAX_LOG_SEQUENCE_RATIO).exp()


def _held(
    rho_BT: Tensor,
    log_rho_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, BoundStats]:
    check_clip(clip_low, clip_high)
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    loss_BT, low_BT, high_BT = surrogate(rho_BT, adv_BT, clip_low=clip_low, clip_high=clip_high)
    loss_BT = torch.where(mask_BT, loss_BT, 0.0)
    return loss_BT, bound_stats(log_rho_BT, mask_BT, low_BT, high_BT)
