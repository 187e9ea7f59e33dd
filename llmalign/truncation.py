"""Training on tokens drawn from a truncated distribution: log-probs over the set that was kept.

Top-k, top-p and min-p draw from the policy restricted to a kept set S and renormalised:

    pi_S(a) = exp(l_a) / sum_{v in S} exp(l_v)        a in S,   l = logits / temperature
    log pi_S(a) = log pi(a) - log Z,                  Z = sum_{v in S} pi(v), the mass that S keeps

With S fixed, the gradient of the reward that is expected when sampling like this is

    E_{a ~ pi_S} [ R * grad log pi_S(a) ]  =  E [ R * (grad log pi(a) - grad log Z) ]

A trainer that takes log pi over the whole vocabulary leaves out the last term: it also moves mass
into the kept set, with no reward asking for it, and against the engine's log pi_S its importance
ratio is Z where it should be 1. Here both the old and the new policy are renormalised on the S of
the policy that sampled, so their ratio has expectation 1 and their supports are the same.

S itself depends on the weights, but does not change under small enough steps, so at all weights
where no token is just at the edge the gradient with S fixed is that of the expected reward.

Best recorded while sampling: recomputed from a second forward pass, a token at the edge may fall on
the other side, and a sampled token outside its own kept set is an error here. Kept ids cost 4 bytes
each; see ``kept_ids`` for how many there are.

Shape letters in this file
    C  tokens of a chunk    V  vocabulary    K  ids of the largest kept set of the chunk
    B  rows
"""

import math

import torch
from torch import Tensor


def truncates(*, top_k: int, top_p: float, min_p: float) -> bool:
    """Whether sampling leaves tokens out, so that log-probs of the whole vocabulary are biased."""
    return bool(top_k) or top_p < 1 or min_p > 0


def keep_top(logits_BV: Tensor, *, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Logits with everything at -inf outside the ``top_k``, then the ``top_p``, then ``min_p``.

    Tokens as likely as the k-th stay, so top-k may keep more than k. The nucleus is the smallest
    set of most likely tokens with at least ``top_p`` of what top-k left. Min-p takes out what is
    less likely than ``min_p`` times the most likely token.

    Args:
        logits_BV: logits over the temperature.
        top_k: 0: all.
        top_p: 1: all.
        min_p: 0: all.
    """
    if top_k:
        kth_B1 = logits_BV.topk(min(top_k, logits_BV.shape[-1])).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)
    if top_p < 1:
        sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
        probability_BV = sorted_BV.softmax(-1)
        before_BV = probability_BV.cumsum(-1) - probability_BV
        outside_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
        outside_BV.scatter_(1, order_BV, before_BV >= top_p)
        logits_BV = logits_BV.masked_fill(outside_BV, -torch.inf)
    if min_p > 0:
        least_B1 = logits_BV.amax(-1, keepdim=True) + math.log(min_p)
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    return logits_BV


@torch.no_grad()
def kept_ids(
    logits_CV: Tensor, *, temperature: float, top_k: int, top_p: float, min_p: float, max_kept: int
) -> tuple[Tensor, Tensor]:
    """The tokens that sampling keeps, per position, as ids.

    K is about ``top_k`` where that is set: 50 ids are 200 bytes a token. Ties with the k-th add
    some, mostly where logits are rounded to bfloat16: up to 9 to 50 normally distributed ones of a
    vocabulary of 150 000. ``top_p`` alone has no bound: 0.95 keeps one token where the policy is
    sure, and nineteen in twenty of the vocabulary, half a megabyte, where it knows nothing; nor has
    ``min_p``. Hence ``max_kept``.

    Args:
        logits_CV: floats, those of the policy that sampled.
        temperature: what the logits are divided by, > 0.
        top_k, top_p, min_p: as in sampling; see ``keep_top``.
        max_kept: greatest K, > 0.
    Returns:
        ids_CK int32, ascending, padded with 0 behind the row's count; counts_C int32, >= 1.
    Raises: ValueError: an option is out of range, a row has no finite logit, or K > max_kept.
    """
    _check_temperature(temperature)
    _check_sets(top_k, top_p, min_p, max_kept)
    top_CV = keep_top(logits_CV / temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    kept_CV = top_CV.isfinite()
    counts_C = kept_CV.sum(1)
    most = int(counts_C.max()) if len(counts_C) else 0
    if most > max_kept:
        raise ValueError(
            f"{most} tokens are kept at one position, expected at most max_kept = {max_kept}; "
            "set top_k well below it beside top_p and min_p (ties with the k-th are kept too), or "
            "raise it, at 4 bytes per kept token and position"
        )
    if len(counts_C) and int(counts_C.min()) == 0:
        raise ValueError("logits_CV has a row without a finite value, expected at least one")
    row_N, id_N = kept_CV.nonzero(as_tuple=True)
    place_N = (kept_CV.cumsum(1) - 1)[row_N, id_N]
    ids_CK = torch.zeros(len(counts_C), most, dtype=torch.int32, device=logits_CV.device)
    ids_CK[row_N, place_N] = id_N.int()
    return ids_CK, counts_C.int()


def renormalised_logprobs(
    logits_CV: Tensor, target_C: Tensor, ids_CK: Tensor, counts_C: Tensor, *, temperature: float
) -> Tensor:
    """Log-probability of each token under the policy restricted to its kept set.

        logp = l[target] - log sum_{v in kept} exp(l[v]),      l = logits / temperature

    The gradient lies on the kept tokens alone; of logits outside nothing is read.

    Args:
        logits_CV: floats, of the policy to be judged, old, new or reference; carry the gradient.
        target_C: int64, the tokens that were sampled.
        ids_CK, counts_C: kept sets of the policy that sampled, as ``kept_ids`` returns them; what
            lies behind a row's count is not read.
        temperature: what the logits are divided by, as in sampling, > 0.
    Returns: logp_C in nats; 0 where only the target was kept.
    Raises: ValueError: a shape is off, a set is empty, or a token is not in its own set.
    Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.1 (keep sampling mask).
    """
    _check_temperature(temperature)
    _check_kept(logits_CV, ids_CK, target_C=target_C, counts_C=counts_C)
    inside_CK = _inside(ids_CK, counts_C)
    id_CK = torch.where(inside_CK, ids_CK.long(), target_C[:, None])
    _check_targets(target_C, id_CK, inside_CK)
    kept_CK = _kept_logits(logits_CV, id_CK, inside_CK, temperature)
    target_logit_C = logits_CV.gather(1, target_C[:, None])[:, 0] / temperature
    return target_logit_C - kept_CK.logsumexp(1)


def renormalised_entropy(
    logits_CV: Tensor, ids_CK: Tensor, counts_C: Tensor, *, temperature: float
) -> Tensor:
    """Entropy in nats of the policy restricted to its kept sets: -sum_{v in kept} p_v log p_v.

    Args, Raises: as ``renormalised_logprobs``.
    Returns: entropy_C, between 0 and the logarithm of the count; differentiable.
    """
    _check_temperature(temperature)
    _check_kept(logits_CV, ids_CK, counts_C=counts_C)
    inside_CK = _inside(ids_CK, counts_C)
    kept_CK = _kept_logits(logits_CV, ids_CK.long() * inside_CK, inside_CK, temperature)
    logp_CK = torch.where(inside_CK, torch.log_softmax(kept_CK, 1), 0.0)
    return -torch.where(inside_CK, logp_CK.exp() * logp_CK, 0.0).sum(1)


def pad_kept(id_N: Tensor, counts_C: Tensor) -> Tensor:
    """Kept ids as they are best stored, those of all tokens one after the other -> ids_CK.

    Padding to K is for one chunk at a time: a single broad set would widen every row.

    Raises: ValueError: the counts do not add up to the ids.
    """
    if int(counts_C.sum()) != len(id_N):
        raise ValueError(f"counts_C add up to {int(counts_C.sum())}, expected {len(id_N)} ids")
    width = int(counts_C.max()) if len(counts_C) else 0
    ids_CK = torch.zeros(len(counts_C), width, dtype=torch.int32, device=id_N.device)
    return ids_CK.masked_scatter(_inside(ids_CK, counts_C), id_N.int())


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"temperature is {temperature!r}, expected > 0; at 0 there is one token and no gradient"
        )


def _check_sets(top_k: int, top_p: float, min_p: float, max_kept: int) -> None:
    if top_k < 0:
        raise ValueError(f"top_k is {top_k!r}, expected >= 0; 0 keeps all")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p!r}, expected a number in (0, 1]; 1 keeps all")
    if not 0 <= min_p <= 1:
        raise ValueError(f"min_p is {min_p!r}, expected a number in [0, 1]; 0 keeps all")
    if max_kept < 1:
        raise ValueError(f"max_kept is {max_kept!r}, expected > 0")


def _inside(ids_CK: Tensor, counts_C: Tensor) -> Tensor:
    """bool [C, K]: what is an id and no padding."""
    return torch.arange(ids_CK.shape[1], device=ids_CK.device)[None, :] < counts_C[:, None]


def _kept_logits(logits_CV: Tensor, id_CK: Tensor, inside_CK: Tensor, temperature: float) -> Tensor:
    return (logits_CV.gather(1, id_CK) / temperature).masked_fill(~inside_CK, -torch.inf)


def _check_kept(logits_CV: Tensor, ids_CK: Tensor, **others_C: Tensor) -> None:
    count = len(logits_CV)
    for name, tensor in others_C.items():
        if tensor.shape != (count,):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected ({count},) like logits_CV"
            )
    if ids_CK.dim() != 2 or len(ids_CK) != count:
        raise ValueError(f"ids_CK has shape {tuple(ids_CK.shape)}, expected ({count}, K)")


def _check_targets(target_C: Tensor, id_CK: Tensor, inside_CK: Tensor) -> None:
    missing_C = ~((id_CK == target_C[:, None]) & inside_CK).any(1)
    if missing_C.any():
        row = int(missing_C.nonzero()[0, 0])
        raise ValueError(
            f"token {int(target_C[row])} at position {row} is not in its kept set of "
            f"{int(inside_CK[row].sum())}, expected every sampled token in it; record the sets "
            "while sampling instead of recomputing them"
        )
