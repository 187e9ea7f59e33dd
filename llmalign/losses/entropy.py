"""What keeps the entropy of a policy up: a coefficient that adapts, tokens to spare, a band.

Shape letters
    B  sequences    T  response tokens
"""

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens


def adaptive_entropy_coef(
    coef: float, entropy: float, *, target: float, step: float, coef_min: float, coef_max: float
) -> tuple[float, float]:
    """The coefficient of the entropy bonus to use now, and the one to carry on.

        now  = coef if entropy <= target else 0
        next = min(coef + step, coef_max) if entropy <= target else max(coef - step, coef_min)

    Args:
        coef: carried so far.
        entropy, target: mean entropy per token, in nats.
        step: > 0. Defaults elsewhere: target 0.2, step 0.005, coef within [0, 1].
    Raises: ValueError: step is not > 0, or the bounds are out of order.
    Source: He et al. 2025 (Skywork-OR1), arXiv:2505.22312, in TRL's form; TRL decides by the
        entropy of the step before.
    """
    if not step > 0:
        raise ValueError(f"step is {step!r}, expected > 0")
    if not 0 <= coef_min <= coef_max:
        raise ValueError(
            f"coef_min is {coef_min!r} and coef_max is {coef_max!r}, expected "
            "0 <= coef_min <= coef_max"
        )
    if entropy <= target:
        return coef, min(coef + step, coef_max)
    return 0.0, max(coef - step, coef_min)


def token_covariance(logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Each token's share in the covariance of log-probability and advantage.

        cov_t = (logp_t - mean logp) * (A_t - mean A)       means over all tokens under the mask

    To first order their mean is the rate at which a policy-gradient step lowers the entropy.

    Returns: cov_BT in units of reward times nats, no gradient, 0 outside the mask.
    Raises: TypeError, ValueError: a shape or dtype is off.
    Source: Cui et al. 2025, arXiv:2505.22617.
    """
    check_tokens(logp_BT, mask_BT, adv_BT=adv_BT)
    count = mask_BT.sum().clamp(min=1)
    logp_BT = torch.where(mask_BT, logp_BT.detach(), 0.0)
    adv_BT = torch.where(mask_BT, adv_BT.detach(), 0.0)
    cov_BT = (logp_BT - logp_BT.sum() / count) * (adv_BT - adv_BT.sum() / count)
    return torch.where(mask_BT, cov_BT, 0.0)


def clip_cov_tokens(
    cov_BT: Tensor,
    mask_BT: Tensor,
    *,
    num_tokens: int,
    share: float,
    cov_low: float,
    cov_high: float,
    seed: int,
) -> Tensor:
    """bool [B, T]: tokens of high covariance, drawn at random, that Clip-Cov leaves out.

    Of the tokens under the mask with cov_low < cov < cov_high, max(1, int(share * num_tokens)) are
    drawn, or all if they are fewer. The draw depends on ``seed`` and their number alone, so that
    ranks and repetitions agree.

    Args:
        mask_BT: bool, tokens that may be drawn: not those a clip already holds.
        num_tokens: what ``share`` is of, all tokens of the batch.
        share: in (0, 1].
    Raises: ValueError: a share or band outside its range.
    Source: Cui et al. 2025 (Clip-Cov), arXiv:2505.22617; defaults there 2e-4 and (1, 5).
    """
    _check_share(share)
    if not cov_low < cov_high:
        raise ValueError(
            f"cov_low is {cov_low!r} and cov_high is {cov_high!r}, expected cov_low < cov_high"
        )
    band_BT = mask_BT & (cov_BT > cov_low) & (cov_BT < cov_high)
    place_N = band_BT.flatten().nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(place_N), generator=generator)[: _number(share, num_tokens)]
    chosen = torch.zeros_like(mask_BT).flatten()
    chosen[place_N[drawn.to(place_N.device)]] = True
    return chosen.view_as(mask_BT)


def kl_cov_tokens(cov_BT: Tensor, mask_BT: Tensor, *, share: float) -> Tensor:
    """bool [B, T]: the max(1, int(share * n)) of n tokens with the largest covariance (KL-Cov).

    Raises: ValueError: the share lies outside (0, 1].
    Source: Cui et al. 2025 (KL-Cov), arXiv:2505.22617; share 2e-3 at 7B, 2e-4 at 32B.
    """
    _check_share(share)
    place_N = mask_BT.flatten().nonzero()[:, 0]
    order_N = cov_BT.flatten()[place_N].argsort(descending=True, stable=True)
    chosen = torch.zeros_like(mask_BT).flatten()
    chosen[place_N[order_N[: _number(share, len(place_N))]]] = True
    return chosen.view_as(mask_BT)


def _number(share: float, num_tokens: int) -> int:
    return max(1, int(share * num_tokens))


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share is {share!r}, expected a number in (0, 1]")
