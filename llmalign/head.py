"""Log-probabilities and entropies from hidden states, without ever holding all logits.

Shape letters in this file
    N  tokens    C  tokens of a chunk    D  hidden size    V  vocabulary
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_LOGITS = 1 << 24  # logits held at once: 64 MiB in float32, whatever the vocabulary


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def head_logprobs(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    target_N: Tensor,
    *,
    temperature: float,
    entropy_gradient: bool,
    chunk_logits: int = CHUNK_LOGITS,
) -> tuple[Tensor, Tensor]:
    """log softmax(h W^T / temperature) at the targets, and the entropy of that distribution.

        z = h W^T / temperature       logp = z[target] - logsumexp(z)    H = -sum_v p_v log p_v
        d logp / d z = onehot - p     d H / d z_v = -p_v (log p_v + H)

    Logits exist for one chunk of tokens at a time. The backward pass computes them again and turns
    them into their gradient in place: memory does not grow with the vocabulary times the tokens.

    Args:
        hidden_ND: carries the gradient.
        weight_VD: of the output layer; carries the gradient.
        target_N: int64 token ids.
        temperature: > 0.
        entropy_gradient: whether the entropy carries a gradient too.
        chunk_logits: logits held at once.
    Returns: logp_N and entropy_N in nats, in float32 (float64 of float64 inputs).
    """
    logp_N, entropy_N = _Head.apply(hidden_ND, weight_VD, target_N, temperature, chunk_logits)
    return logp_N, entropy_N if entropy_gradient else entropy_N.detach()


class _Head(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        target_N: Tensor,
        temperature: float,
        chunk_logits: int,
    ) -> tuple[Tensor, Tensor]:
        parts = []
        ctx.size = max(1, chunk_logits // weight_VD.shape[0])
        for start in range(0, len(target_N), ctx.size):
            chunk = slice(start, start + ctx.size)
            logits_CV = _logits(hidden_ND[chunk], weight_VD, temperature)
            lse_C = torch.logsumexp(logits_CV, -1)
            chosen_C = logits_CV.gather(1, target_N[chunk, None])[:, 0]
            p_CV = logits_CV.sub_(lse_C[:, None]).exp_()
            entropy_C = torch.special.entr(p_CV, out=p_CV).sum(-1)
            parts.append((chosen_C - lse_C, entropy_C, lse_C))
        if not parts:
            empty_N = at_least_float32(hidden_ND.new_zeros(0))
            parts = [(empty_N, empty_N, empty_N)]
        logp_N, entropy_N, lse_N = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.temperature = temperature
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, lse_N, entropy_N)
        return logp_N, entropy_N

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_logp_N, grad_entropy_N = grads
        hidden_ND, weight_VD, target_N, lse_N, entropy_N = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD) if needs_weight else None
        with_entropy = bool(grad_entropy_N.any())
        for start in range(0, len(target_N), ctx.size):
            chunk = slice(start, start + ctx.size)
            logits_CV = _logits(hidden_ND[chunk], weight_VD, ctx.temperature)
            logp_CV = logits_CV.sub_(lse_N[chunk, None])
            p_CV = logp_CV.exp()
            slope_CV = p_CV * -grad_logp_N[chunk, None]
            if with_entropy:
                # Where p is 0 the logarithm may be -inf, and nothing times it is nothing.
                spread_CV = logp_CV.clamp_(min=-1e4).add_(entropy_N[chunk, None]).mul_(p_CV)
                slope_CV.sub_(spread_CV.mul_(grad_entropy_N[chunk, None]))
            slope_CV.scatter_add_(1, target_N[chunk, None], grad_logp_N[chunk, None])
            slope_CV.div_(ctx.temperature)
            slope_CV = slope_CV.to(weight_VD.dtype)
            if grad_hidden_ND is not None:
                grad_hidden_ND[chunk] = (slope_CV @ weight_VD).to(hidden_ND.dtype)
            if grad_weight_VD is not None:
                grad_weight_VD.addmm_(slope_CV.T, hidden_ND[chunk].to(weight_VD.dtype))
        return grad_hidden_ND, grad_weight_VD, None, None, None


def _logits(hidden_CD: Tensor, weight_VD: Tensor, temperature: float) -> Tensor:
    logits_CV = at_least_float32(F.linear(hidden_CD.to(weight_VD.dtype), weight_VD))
    return logits_CV.div_(temperature) if temperature != 1 else logits_CV
