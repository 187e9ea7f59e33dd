"""Log-probabilities and entropies from hidden states, without ever holding all logits.

    z = h W^T / temperature       logp = z[target] - logsumexp(z)    H = -sum_v p_v log p_v
    d logp / d z = onehot - p     d H / d z_v = -p_v (log p_v + H)

Logits exist for one chunk of tokens at a time, so memory does not grow with the vocabulary times
the tokens. There are two ways to the gradient:

- ``head_logprobs`` returns log-probs for any function to follow. What that makes of them is known
  only in the backward pass, which computes the logits of each chunk again: four products of
  matrices (three where one chunk holds all tokens, and is kept).
- ``head_loss`` is told the loss, a sum over tokens. The loss of a chunk then has its gradient as
  soon as the chunk has its log-probs, while its logits are still there: three products.

Shape letters in this file
    N  tokens    C  tokens of a chunk    D  hidden size    V  vocabulary
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_LOGITS = 1 << 25  # logits held at once: 128 MiB in float32, whatever the vocabulary
ON_GPU = 4  # times as many there: every chunk also reads the weight and writes its gradient

TokenLoss = Callable[[Tensor, Tensor, slice], Tensor]  # logp_C, entropy_C, which tokens -> scalar


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def chunks(num_tokens: int, weight_VD: Tensor, chunk_logits: int | None = None) -> Iterator[slice]:
    """Slices of as many tokens as have ``chunk_logits`` logits, or of one.

    None: ``CHUNK_LOGITS``, and ``ON_GPU`` times as many on a GPU.
    """
    if chunk_logits is None:
        chunk_logits = CHUNK_LOGITS * (ON_GPU if weight_VD.is_cuda else 1)
    size = max(1, chunk_logits // len(weight_VD))
    for start in range(0, num_tokens, size):
        yield slice(start, min(start + size, num_tokens))


def head_logprobs(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    target_N: Tensor,
    *,
    temperature: float,
    entropy_gradient: bool,
    chunk_logits: int | None = None,
) -> tuple[Tensor, Tensor]:
    """log softmax(h W^T / temperature) at the targets, and the entropy of that distribution.

    Under autocast the products of matrices are in its dtype; all else is in float32 or float64.

    Args:
        hidden_ND: carries the gradient.
        weight_VD: of the output layer; carries the gradient.
        target_N: int64 token ids.
        temperature: > 0.
        entropy_gradient: whether the entropy carries a gradient too.
        chunk_logits: logits held at once; None: see ``chunks``.
    Returns: logp_N and entropy_N in nats, in float32 (float64 of float64 inputs).
    """
    keep = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
    options = (temperature, entropy_gradient, chunk_logits, keep)
    found: tuple[Tensor, Tensor] = _LogProbs.apply(hidden_ND, weight_VD, target_N, *options)
    return found


def head_loss(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    target_N: Tensor,
    token_loss: TokenLoss,
    *,
    temperature: float,
    entropy_gradient: bool,
    chunk_logits: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A loss that is a sum over tokens, with the logits of every token computed once.

        loss = sum over chunks of token_loss(logp_C, entropy_C, chunk)

    The gradients of hidden states and weight are made here, chunk by chunk; the backward pass
    multiplies them by the gradient of the loss and hands them over, once. Where no gradient is
    wanted (``torch.no_grad``, or neither requires one) only values are computed.

    Args:
        hidden_ND, weight_VD, target_N, temperature, chunk_logits: as in ``head_logprobs``.
        token_loss: called once per chunk, in order, with log-probs and entropies of its tokens and
            the slice that they are of the N tokens; returns a scalar. All else in it is constant.
        entropy_gradient: whether the loss learns through the entropy too.
    Returns: the scalar loss, which carries the gradient; logp_N and entropy_N, which do not.
    """
    wanted = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
    options = (temperature, entropy_gradient, chunk_logits, wanted)
    found: tuple[Tensor, Tensor, Tensor] = _Loss.apply(
        hidden_ND, weight_VD, target_N, token_loss, *options
    )
    return found


@dataclass
class _Softmax:
    """The distributions of a chunk, and what is read off them."""

    p_CV: Tensor
    plogp_CV: Tensor | None
    logp_C: Tensor
    entropy_C: Tensor


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        target_N: Tensor,
        temperature: float,
        entropy_gradient: bool,
        chunk_logits: int | None,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.chunks = list(chunks(len(target_N), weight_VD, chunk_logits))
        ctx.temperature, ctx.entropy_gradient, ctx.kept = temperature, entropy_gradient, None
        ctx.dtype = _product_dtype(weight_VD)
        product_VD = weight_VD.to(ctx.dtype)
        logp_N, entropy_N = _empty(hidden_ND), _empty(hidden_ND)
        for chunk in ctx.chunks:
            found = _softmax(hidden_ND[chunk], product_VD, target_N[chunk], temperature)
            logp_N[chunk], entropy_N[chunk] = found.logp_C, found.entropy_C
            if keep and len(ctx.chunks) == 1:
                found.plogp_CV = found.plogp_CV if entropy_gradient else None
                ctx.kept = found
            del found  # before the next chunk takes its room
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy_N)
        ctx.save_for_backward(hidden_ND, weight_VD, target_N)
        return logp_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, target_N = ctx.saved_tensors
        product_VD = weight_VD.to(ctx.dtype)
        gradient = _Gradient(hidden_ND, weight_VD, product_VD, ctx.needs_input_grad)
        for chunk in ctx.chunks:
            found, ctx.kept = ctx.kept, None  # overwritten here: a second pass makes it again
            if found is None:
                found = _softmax(hidden_ND[chunk], product_VD, target_N[chunk], ctx.temperature)
            grad_logp_C = grads[0][chunk] / ctx.temperature
            grad_entropy_C = grads[1][chunk] / ctx.temperature if ctx.entropy_gradient else None
            gradient.add(chunk, _slope(found, target_N[chunk], grad_logp_C, grad_entropy_C))
            del found
        return gradient.hidden_ND, gradient.weight_VD, *[None] * 5


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        target_N: Tensor,
        token_loss: TokenLoss,
        temperature: float,
        entropy_gradient: bool,
        chunk_logits: int | None,
        wanted: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        product_VD = weight_VD.to(_product_dtype(weight_VD))
        needs = ctx.needs_input_grad if wanted else (False, False)
        gradient = _Gradient(hidden_ND, weight_VD, product_VD, needs)
        logp_N, entropy_N = _empty(hidden_ND), _empty(hidden_ND)
        total = logp_N.new_zeros(())
        for chunk in chunks(len(target_N), weight_VD, chunk_logits):
            found = _softmax(hidden_ND[chunk], product_VD, target_N[chunk], temperature)
            logp_N[chunk], entropy_N[chunk] = found.logp_C, found.entropy_C
            loss, grads = _token_gradients(token_loss, found, chunk, wanted, entropy_gradient)
            total = total + loss
            if wanted:
                grads = [grad_C / temperature for grad_C in grads]
                gradient.add(chunk, _slope(found, target_N[chunk], *grads))
            del found
        ctx.gradients = (gradient.hidden_ND, gradient.weight_VD)
        ctx.mark_non_differentiable(logp_N, entropy_N)
        return total, logp_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradient of this loss was handed over; compute the loss again")
        both, ctx.gradients = ctx.gradients, None
        return *[g if g is None else g.mul_(grads[0]) for g in both], *[None] * 6


class _Gradient:
    """Gradients of hidden states and weight, where they are needed, growing chunk by chunk."""

    def __init__(
        self, hidden_ND: Tensor, weight_VD: Tensor, product_VD: Tensor, needs: Sequence[bool]
    ) -> None:
        self._hidden_ND, self._product_VD = hidden_ND, product_VD
        self.hidden_ND = torch.empty_like(hidden_ND) if needs[0] else None
        self.weight_VD = torch.zeros_like(weight_VD) if needs[1] else None

    def add(self, chunk: slice, slope_CV: Tensor) -> None:
        """Takes in d loss / d (h W^T) of a chunk."""
        slope_CV = slope_CV.to(self._product_VD.dtype)
        if self.hidden_ND is not None:
            self.hidden_ND[chunk] = slope_CV @ self._product_VD
        if self.weight_VD is not None:
            hidden_CD = self._hidden_ND[chunk].to(slope_CV.dtype)
            if self.weight_VD.dtype == slope_CV.dtype:
                self.weight_VD.addmm_(slope_CV.T, hidden_CD)
            else:
                self.weight_VD.add_(slope_CV.T @ hidden_CD)


def _softmax(
    hidden_CD: Tensor, product_VD: Tensor, target_C: Tensor, temperature: float
) -> _Softmax:
    logits_CV = _logits(hidden_CD, product_VD, temperature)
    logp_CV = torch.log_softmax(logits_CV, -1)
    logp_C = logp_CV.gather(1, target_C[:, None])[:, 0]
    p_CV = torch.exp(logp_CV, out=logits_CV)
    plogp_CV = logp_CV.mul_(p_CV)
    return _Softmax(p_CV, plogp_CV, logp_C, -plogp_CV.sum(-1))


def _slope(
    found: _Softmax, target_C: Tensor, grad_logp_C: Tensor, grad_entropy_C: Tensor | None = None
) -> Tensor:
    """d loss / d z, in the place of the probabilities.

    d loss / d z = g onehot - (g + g' H) p - g' p log p,    g = d loss / d logp, g' = d loss / d H
    """
    if grad_entropy_C is None:
        slope_CV = found.p_CV.mul_(-grad_logp_C[:, None])
    else:
        assert found.plogp_CV is not None
        share_C = grad_logp_C + grad_entropy_C * found.entropy_C
        slope_CV = found.p_CV.mul_(-share_C[:, None])
        slope_CV.addcmul_(found.plogp_CV, grad_entropy_C[:, None], value=-1)
    return slope_CV.scatter_add_(1, target_C[:, None], grad_logp_C[:, None])


def _token_gradients(
    token_loss: TokenLoss, found: _Softmax, chunk: slice, wanted: bool, entropy_gradient: bool
) -> tuple[Tensor, list[Tensor]]:
    """The loss of a chunk and its gradients for log-probs and, where asked for, entropies."""
    logp_C = found.logp_C.detach().requires_grad_(wanted)
    entropy_C = found.entropy_C.detach().requires_grad_(wanted and entropy_gradient)
    device = logp_C.device.type
    with torch.set_grad_enabled(wanted), torch.autocast(device, enabled=False):
        loss = token_loss(logp_C, entropy_C, chunk)
    leaves = [leaf for leaf in (logp_C, entropy_C) if leaf.requires_grad]
    grads = [torch.zeros_like(leaf) for leaf in leaves]
    if loss.requires_grad:
        grads = list(torch.autograd.grad(loss, leaves, materialize_grads=True))
    return loss.detach(), grads


def _logits(hidden_CD: Tensor, product_VD: Tensor, temperature: float) -> Tensor:
    hidden_CD = hidden_CD.to(product_VD.dtype)
    logits_CV = hidden_CD.new_empty(len(hidden_CD), len(product_VD))
    # The product's own factor: dividing the logits would be one more pass over them.
    logits_CV.addmm_(hidden_CD, product_VD.T, beta=0, alpha=1 / temperature)
    return at_least_float32(logits_CV)


def _product_dtype(weight_VD: Tensor) -> torch.dtype:
    """What products of matrices are computed in: autocast's dtype where that is on."""
    device = weight_VD.device.type
    if torch.is_autocast_enabled(device) and weight_VD.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight_VD.dtype


def _empty(hidden_ND: Tensor) -> Tensor:
    return at_least_float32(hidden_ND.new_empty(0)).new_empty(len(hidden_ND))
