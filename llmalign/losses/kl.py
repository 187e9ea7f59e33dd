"""KL to the frozen reference, estimated token by token from the sampled token alone."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from llmalign.losses.check import check_tokens
from llmalign.verifiers.registry import unknown

KlKind = Literal["k1", "k2", "k3", "abs", "k1+", "k3+"]
MAX_LOG_RATIO = 20.0
MAX_K3 = 10.0

_ESTIMATOR: Mapping[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda d_BT: -d_BT,
    "k2": lambda d_BT: d_BT**2 / 2,
    "k3": lambda d_BT: (torch.expm1(d_BT) - d_BT).clamp(max=MAX_K3),
    "abs": lambda d_BT: d_BT.abs(),
}
_KINDS = (*_ESTIMATOR, "k1+", "k3+")


def kl_penalty(logp_BT: Tensor, logp_ref_BT: Tensor, mask_BT: Tensor, *, kind: KlKind) -> Tensor:
    """Estimate of KL(policy || reference) at each sampled token.

        d  = clamp(logp_ref - logp, -20, 20)
        k1 = -d      k2 = d^2 / 2      k3 = min(exp(d) - 1 - d, 10)      abs = |d|
        k1+, k3+: the value of k1 or k3 with the gradient of k2

    All but k2 and abs estimate without bias, yet only k2 has the gradient of the KL on policy: k1's
    is 1 whatever d is, hence zero in expectation, and k3's, 1 - exp(d), is that of the forward KL.
    Where a clamp acts the gradient is 0. The clamps are verl's for k3; here the one of d holds for
    every kind, so that a reference that rules a token out (-inf) costs a finite amount.

    Args:
        logp_BT: log-probability of each sampled token under the policy, in nats; carries the
            gradient. Any shape that all three share.
        logp_ref_BT: the same under the frozen reference; no gradient. Neither is read where
            ``mask_BT`` is False.
        mask_BT: bool, True for tokens the policy itself wrote.
        kind: the estimator.
    Returns: estimates in nats, 0 where ``mask_BT`` is False; neither summed nor weighted.
    Raises: TypeError, ValueError: a shape or dtype is off, or the kind is unknown.
    Source: Schulman 2020, Approximating KL divergence (k1, k2, k3).
    """
    check_tokens(logp_BT, mask_BT, logp_ref_BT=logp_ref_BT)
    if kind not in _KINDS:
        raise ValueError(unknown("kl kind", kind, _KINDS))
    d_BT = torch.where(mask_BT, logp_ref_BT.detach(), 0.0) - torch.where(mask_BT, logp_BT, 0.0)
    d_BT = d_BT.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    value_BT = _ESTIMATOR[kind.removesuffix("+")](d_BT)
    if not kind.endswith("+"):
        return value_BT
    k2_BT = _ESTIMATOR["k2"](d_BT)
    return value_BT.detach() + (k2_BT - k2_BT.detach())
