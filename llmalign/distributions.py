"""What losses ask of the distribution over the whole vocabulary, a chunk of tokens at a time.

Shape letters in this file
    B  sequences    T  response tokens    N  response tokens of all sequences, in row order
    C  tokens of a chunk                  D  hidden size    V  vocabulary
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llmalign import head
from llmalign.batch import AnyBatch, Row, TokenBatch
from llmalign.losses.policy.asft import forward_kl
from llmalign.policy import Policy
from llmalign.reference import Reference


def reference_kl(
    policy: Policy,
    reference: Reference,
    batch: AnyBatch,
    *,
    temperature: float,
) -> Tensor:
    """KL(reference || policy) over the whole vocabulary at each response token.

        kl = sum_v q_v (log q_v - log p_v)       p, q = softmax(logits / temperature)

    q is the reference's, without gradient; d kl / d logits = (p - q) / temperature. Logits exist
    for one chunk of tokens at a time, at most eight numbers for each, and the backward pass
    computes them again: [B, T, V] is never alive. The whole vocabulary counts, whatever truncated
    sampling kept of it. A loss that needs log-probs as well takes ``logprobs_and_reference_kl``.

    Args:
        policy: carries the gradient.
        reference: of the same vocabulary.
        batch: any layout.
        temperature: what the logits of both are divided by, > 0.
    Returns: kl_BT in nats, in float32 (float64 of a float64 model); 0 where a row has no token.
    """
    ref_hidden_ND = reference.predicting(batch)
    with policy.autocast():
        hidden_ND, _ = policy.hidden(batch)
        kl_N = _kl(policy, reference, hidden_ND, ref_hidden_ND, temperature)
    return _by_row(kl_N, batch)


def logprobs_and_reference_kl(
    policy: Policy,
    reference: Reference,
    batch: AnyBatch,
    *,
    temperature: float,
    entropy_gradient: bool = False,
    kept: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``Policy.logprobs`` and ``reference_kl`` out of one pass of the policy instead of two.

    Args: as both.
    Returns: logp_BT, entropy_BT and kl_BT in nats; 0 where a row has no token.
    """
    ref_hidden_ND = reference.predicting(batch)
    with policy.autocast():
        hidden_ND, target_N = policy.hidden(batch)
        logp_N, entropy_N = policy._head_logprobs(
            hidden_ND, target_N, temperature, entropy_gradient, kept
        )
        kl_N = _kl(policy, reference, hidden_ND, ref_hidden_ND, temperature)
    return _by_row(logp_N, batch), _by_row(entropy_N, batch), _by_row(kl_N, batch)


@torch.no_grad()
def end_logprobs(policy: Policy, batch: AnyBatch, *, temperature: float) -> Tensor:
    """Log-probability of ending the answer instead of writing each response token.

        end = logsumexp_e(z_e) - logsumexp_v(z_v)       z = logits / temperature

    e runs over all of the policy's end tokens, v over the vocabulary; both are of the distribution
    that the token came from, hence of the text before it.

    Args: policy, batch, temperature: as ``reference_kl``; no gradient.
    Returns: logp_end_BT in nats, in float32 (float64 of a float64 model); 0 where a row has no
        token.
    Raises: ValueError: the policy has no token that ends an answer.
    """
    if not policy.eos_ids:
        raise ValueError(
            "the policy has no token that ends an answer, expected at least one; set eos_token of "
            "its tokenizer"
        )
    end_E = torch.tensor(sorted(policy.eos_ids), device=policy.device)
    with policy.autocast():
        hidden_ND, _ = policy.hidden(batch)
        parts = []
        for hidden_CD in hidden_ND.split(_chunk_size(policy)):
            logits_CV = policy.next_logits(hidden_CD) / temperature
            parts.append(logits_CV[:, end_E].logsumexp(-1) - logits_CV.logsumexp(-1))
    return _by_row(torch.cat(parts), batch)


@torch.no_grad()
def end_after_logprobs(policy: Policy, rows: Sequence[Row], *, temperature: float) -> Tensor:
    """Log-probability of ending the answer behind each response token, as a balance of flows asks.

    0 at a token that ends the answer. The released code of ``subtrajectory_balance`` reads it one
    token earlier, so that a policy that samples in proportion to its reward still has a loss.

    Args:
        policy: its model and end tokens.
        rows: prompt and response ids.
        temperature: what the logits are divided by, > 0; no gradient.
    Returns: logp_end_BT in nats, 0 where a row has no token.
    Raises: ValueError: the policy has no token that ends an answer.
    """
    # One more token behind each response makes its last one ask too.
    longer = [(prompt, (*response, policy.pad_id)) for prompt, response in rows]
    batch = TokenBatch.from_rows(longer, pad_id=policy.pad_id, device=policy.device)
    behind_BT = end_logprobs(policy, batch, temperature=temperature)[:, 1:].clone()
    for b, (_, response) in enumerate(rows):
        behind_BT[b, len(response) :] = 0.0
        if response and response[-1] in policy.eos_ids:
            behind_BT[b, len(response) - 1] = 0.0
    return behind_BT


def _kl(
    policy: Policy,
    reference: Reference,
    hidden_ND: Tensor,
    ref_hidden_ND: Tensor,
    temperature: float,
) -> Tensor:
    """kl_N, with one chunk of logits alive."""

    def chunk(hidden_CD: Tensor, ref_hidden_CD: Tensor) -> Tensor:
        ref_logits_CV = reference.next_logits(ref_hidden_CD) / temperature
        return forward_kl(policy.next_logits(hidden_CD) / temperature, ref_logits_CV)

    size = _chunk_size(policy)
    chunks = zip(hidden_ND.split(size), ref_hidden_ND.split(size), strict=True)
    return torch.cat([checkpoint(chunk, *pair, use_reentrant=False) for pair in chunks])


def _chunk_size(policy: Policy) -> int:
    return max(1, head.CHUNK_LOGITS // policy._head.weight.shape[0])


def _by_row(value_N: Tensor, batch: AnyBatch) -> Tensor:
    mask_BT = batch.mask_BT
    zeros_BT = torch.zeros(mask_BT.shape, dtype=value_N.dtype, device=value_N.device)
    return zeros_BT.masked_scatter(mask_BT, value_N)
