"""Weights for the gap between the engine that sampled and the trainer that computes gradients.

An engine with kernels, precision or weights of its own draws tokens from a distribution q that is
not the trainer's ``old`` policy. Log-probabilities of the same tokens under both show how far the
two are apart; a weight per token corrects for it, or takes out what is beyond correction. Weights
multiply the loss of a token. They change no denominator: what a rejected token would have been
divided by stays, so that the parts of a batch still add up to it.

Shape letters in this file
    B  sequences    T  response tokens
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.verifiers.registry import unknown

MismatchKind = Literal["truncated", "masked", "rejected"]
MismatchLevel = Literal["token", "sequence", "geometric"]
Divergence = Literal["k2", "k3"]
DivergenceLevel = Literal["token", "sequence_sum", "sequence_mean", "sequence_max"]
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True)
class MismatchStats:
    """Detached sums over the tokens under the mask, so that parts add up; float64 scalars.

    Attributes:
        tokens: tokens under the mask.
        weight: sum of the weights.
        weight_square: sum of their squares; weight^2 / weight_square is the number of tokens that
            carry as much.
        truncated: tokens whose weight a bound replaced.
        masked: tokens with weight 0: out of the band, or unknown.
        masked_sequences: sequences of which no token is left.
        unknown: tokens without a log-probability on one side.
        kl_engine_nats: sum of r - 1 - log r, r = trainer / engine, which estimates KL(engine ||
            trainer) because the engine drew the tokens.
        log_ratio_nats: sum of log r; its negative is k1 of the same KL.
        ratio_max: the largest r of a token, before any bound. The one entry that is no sum: take
            the maximum over parts.
    """

    tokens: Tensor
    weight: Tensor
    weight_square: Tensor
    truncated: Tensor
    masked: Tensor
    masked_sequences: Tensor
    unknown: Tensor
    kl_engine_nats: Tensor
    log_ratio_nats: Tensor
    ratio_max: Tensor


@torch.no_grad()
def mismatch_weights(
    logp_BT: Tensor,
    logp_sampled_BT: Tensor,
    mask_BT: Tensor,
    *,
    kind: MismatchKind,
    low: float,
    high: float,
    level: MismatchLevel,
) -> tuple[Tensor, MismatchStats]:
    """Importance weight of each token for having been drawn by the engine, bounded.

        log r = logp - logp_sampled
        log w = log r                      token
                sum of log r over the row  sequence: the ratio of whole sequences
                mean of log r over the row geometric: the same, whatever the length
        w     = exp(clamp(log w, -20, 20))

        truncated  min(max(w, low), high)                   TIS
        masked     w where low <= w <= high, else 0         IcePop (token), MIS (sequence)
        rejected   1 where low <= w <= high, else 0         rejection sampling; Geo-RS (geometric)

    The band is one of trainer / engine. verl's ``rollout_rs`` k1 statistics hold it against the
    inverse, so an asymmetric band ``a_b`` there is 1/b to 1/a here. Only the weight of a whole
    sequence is unbiased, and only without bounds; they act on long sequences more often.

    A token whose log-probability is NaN on either side is unknown: it has weight 0, and at the
    levels of a sequence so has its whole sequence.

    Args:
        logp_BT: log-probability of each sampled token under the trainer's old policy, in nats, at
            the temperature of sampling and over the set that sampling kept.
        logp_sampled_BT: the same as the engine reports it. Neither carries a gradient, neither is
            read where ``mask_BT`` is False.
        mask_BT: bool, True for tokens the policy itself wrote.
        kind, level: see above.
        low: least weight, >= 0; 0: no lower bound.
        high: greatest weight, > low; inf: none.
    Returns: weight_BT without gradient, 0 outside the mask; and its statistics.
    Raises: TypeError, ValueError: a shape, dtype, name or bound is off.
    Source: the forms of verl (rollout_is, rollout_rs), whose clamp this is, and of TRL
        (vllm_importance_sampling_mode). They go back to https://fengyao.notion.site/off-policy-rl
        (TIS) and https://richardli.xyz/rl-collapse (MIS, Geo-RS).
    """
    check_tokens(logp_BT, mask_BT, logp_sampled_BT=logp_sampled_BT)
    _check_band(kind, low, high, level)
    log_ratio_BT = _log_ratio(logp_BT, logp_sampled_BT, mask_BT)
    log_weight_BT = _AGGREGATE[level](log_ratio_BT, mask_BT)
    ratio_BT = log_weight_BT.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    inside_BT = (ratio_BT >= low) & (ratio_BT <= high)  # False for NaN
    known_BT = mask_BT & ~ratio_BT.isnan()
    kept_BT = known_BT if kind == "truncated" else known_BT & inside_BT
    weight_BT = torch.ones_like(ratio_BT) if kind == "rejected" else ratio_BT.clamp(low, high)
    weight_BT = torch.where(kept_BT, weight_BT, 0.0)
    truncated = (kept_BT & ~inside_BT).sum()
    stats = _stats(log_ratio_BT, weight_BT, mask_BT, kept_BT, truncated)
    return weight_BT.to(logp_BT.dtype), stats


@torch.no_grad()
def mean_one(weight_BT: Tensor, mask_BT: Tensor, *, level: MismatchLevel) -> Tensor:
    """Weights over their mean, so that they reweight a batch without changing its scale.

        token                mean of all tokens under the mask
        sequence, geometric  mean over sequences of the mean over their tokens

    Give the sequences of a whole optimizer step: the mean is of them, and parts that are divided
    on their own do not add up. Weights whose mean is at most 1e-8 come back as they are: nothing
    was kept, and nothing shall be blown up.

    Args:
        weight_BT: weights >= 0, as ``mismatch_weights`` returns them; never read outside the mask.
        mask_BT: bool, True for tokens the policy itself wrote.
        level: that of the weights.
    Returns: weight_BT, 0 outside the mask.
    Raises: TypeError, ValueError: a shape, dtype or the level is off.
    Source: verl, ``rollout_is_batch_normalize``.
    """
    check_tokens(weight_BT, mask_BT)
    if level not in _AGGREGATE:
        raise ValueError(unknown("mismatch level", level, _AGGREGATE))
    weight_BT = torch.where(mask_BT, weight_BT, 0.0)
    count_B = mask_BT.sum(1)
    if level == "token":
        mean = weight_BT.sum() / count_B.sum().clamp(min=1)
    else:
        mean = (weight_BT.sum(1) / count_B.clamp(min=1)).sum() / (count_B > 0).sum().clamp(min=1)
    return torch.where(mean > 1e-8, weight_BT / mean, weight_BT)


@torch.no_grad()
def divergence_mask(
    logp_BT: Tensor,
    logp_sampled_BT: Tensor,
    mask_BT: Tensor,
    *,
    kind: Divergence,
    level: DivergenceLevel,
    high: float,
) -> Tensor:
    """Which tokens stay: those where engine and trainer diverge by no more than ``high``.

        log r = clamp(logp - logp_sampled, -20, 20)
        k2    = (log r)^2 / 2      k3 = r - 1 - log r
        keep  = k <= high                                    token
                sum, mean or max of k over the row <= high   sequence_sum, sequence_mean, _max

    Unlike a band of the ratio it rejects a sequence whose tokens stray both ways and cancel. A NaN
    on either side is a divergence beyond any bound.

    Args: logp_BT, logp_sampled_BT, mask_BT: as ``mismatch_weights``.
        kind: the estimator of KL(engine || trainer) at a token; k2 is biased.
        level: see above.
        high: greatest divergence, in nats, > 0.
    Returns: keep_BT bool, False outside the mask; a factor of the loss of a token.
    Raises: TypeError, ValueError: a shape, dtype, name or bound is off.
    Source: verl, ``rollout_rs`` token_k2 to seq_max_k3.
    """
    check_tokens(logp_BT, mask_BT, logp_sampled_BT=logp_sampled_BT)
    if kind not in ("k2", "k3"):
        raise ValueError(unknown("divergence", kind, ("k2", "k3")))
    if level not in _REDUCE:
        raise ValueError(unknown("divergence level", level, _REDUCE))
    if not high > 0:
        raise ValueError(f"high is {high!r}, expected > 0; at 0 rounding alone rejects a token")
    log_ratio_BT = _log_ratio(logp_BT, logp_sampled_BT, mask_BT)
    log_ratio_BT = log_ratio_BT.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    k_BT = log_ratio_BT**2 / 2 if kind == "k2" else torch.expm1(log_ratio_BT) - log_ratio_BT
    return mask_BT & (_REDUCE[level](k_BT, mask_BT) <= high)


@torch.no_grad()
def off_policy_mask(
    logp_BT: Tensor, logp_sampled_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor, *, delta: float
) -> Tensor:
    """Which tokens stay when sequences that the policy has left behind no longer punish.

        drop where A < 0 and mean over the row of (logp_sampled - logp) > delta

    ``logp`` is of the policy being trained, so the mask is computed anew at every update; the mean
    covers both the engine's mismatch and the updates since. Good sequences stay however far off.
    Tokens unknown on either side leave the mean; a row of them alone counts as too far.

    Args:
        logp_BT: log-probability of each sampled token under the policy being trained, in nats.
        logp_sampled_BT: the same as the engine reports it.
        adv_BT: advantage of each token. None of the three carries a gradient or is read where
            ``mask_BT`` is False.
        mask_BT: bool, True for tokens the policy itself wrote.
        delta: greatest mean, in nats per token, >= 0.
    Returns: keep_BT bool, False outside the mask; a factor of the loss of a token.
    Raises: TypeError, ValueError: a shape or dtype is off, or delta is below 0.
    Source: DeepSeek-V3.2, arXiv:2512.02556, eq. 9.
    """
    check_tokens(logp_BT, mask_BT, logp_sampled_BT=logp_sampled_BT, adv_BT=adv_BT)
    if not delta >= 0:
        raise ValueError(f"delta is {delta!r}, expected >= 0")
    log_ratio_BT = _log_ratio(logp_BT, logp_sampled_BT, mask_BT)
    known_BT = mask_BT & ~log_ratio_BT.isnan()
    far_BT = ~(_row_mean(-torch.where(known_BT, log_ratio_BT, 0.0), known_BT) <= delta)
    return mask_BT & ~((adv_BT < 0) & far_BT)


def _log_ratio(logp_BT: Tensor, logp_sampled_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """logp - logp_sampled in float64, 0 outside the mask; sums of long rows need the precision."""
    return torch.where(mask_BT, logp_BT.double() - logp_sampled_BT.double(), 0.0)


def _row_mean(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean of each row's values, which are 0 outside the mask; NaN for a row without any."""
    return (value_BT.sum(1) / mask_BT.sum(1))[:, None].expand_as(value_BT)


def _row_sum(value_BT: Tensor, _: Tensor) -> Tensor:
    return value_BT.sum(1, keepdim=True).expand_as(value_BT)


def _row_max(value_BT: Tensor, _: Tensor) -> Tensor:
    if not value_BT.shape[1]:
        return value_BT
    return value_BT.amax(1, keepdim=True).expand_as(value_BT)


def _same(value_BT: Tensor, _: Tensor) -> Tensor:
    return value_BT


_Reduce = Callable[[Tensor, Tensor], Tensor]
_AGGREGATE: Mapping[str, _Reduce] = {"token": _same, "sequence": _row_sum, "geometric": _row_mean}
_REDUCE: Mapping[str, _Reduce] = {
    "token": _same,
    "sequence_sum": _row_sum,
    "sequence_mean": _row_mean,
    "sequence_max": _row_max,
}
_KINDS = ("truncated", "masked", "rejected")


def _stats(
    log_ratio_BT: Tensor, weight_BT: Tensor, mask_BT: Tensor, kept_BT: Tensor, truncated: Tensor
) -> MismatchStats:
    unknown_BT = log_ratio_BT.isnan()
    log_ratio_BT = torch.where(unknown_BT, 0.0, log_ratio_BT)
    log_ratio_BT = log_ratio_BT.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio_BT = torch.where(mask_BT & ~unknown_BT, log_ratio_BT.exp(), 0.0)
    emptied_B = mask_BT.any(1) & ~kept_BT.any(1)
    return MismatchStats(
        tokens=mask_BT.sum().double(),
        weight=weight_BT.sum(),
        weight_square=(weight_BT**2).sum(),
        truncated=truncated.double(),
        masked=(mask_BT & ~kept_BT).sum().double(),
        masked_sequences=emptied_B.sum().double(),
        unknown=unknown_BT.sum().double(),
        kl_engine_nats=(torch.expm1(log_ratio_BT) - log_ratio_BT).sum(),
        log_ratio_nats=log_ratio_BT.sum(),
        ratio_max=ratio_BT.max() if ratio_BT.numel() else ratio_BT.sum(),
    )


def _check_band(kind: str, low: float, high: float, level: str) -> None:
    if kind not in _KINDS:
        raise ValueError(unknown("mismatch kind", kind, _KINDS))
    if level not in _AGGREGATE:
        raise ValueError(unknown("mismatch level", level, _AGGREGATE))
    if not 0 <= low < math.inf:
        raise ValueError(f"low is {low!r}, expected a number >= 0; 0 means no lower bound")
    if not high > low:
        raise ValueError(f"high is {high!r}, expected > low = {low:g}; .inf means no upper bound")
