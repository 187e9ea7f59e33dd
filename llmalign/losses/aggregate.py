"""What divides the sum of token losses: one weight per sequence."""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from llmalign.verifiers.registry import unknown

Aggregate = Literal["token_mean", "sequence_mean", "sequence_sum", "constant", "sum_norm"]


def sequence_weights(
    num_tokens_B: Tensor, *, kind: Aggregate, max_tokens: int, num_sequences: int | None
) -> Tensor:
    """Weight of each sequence's tokens, so that loss = sum_B weight_B * sum_T loss_BT.

        token_mean     1 / (all tokens)                 DAPO
        sequence_mean  1 / (sequences * own tokens)     GRPO
        sequence_sum   1 / sequences                    every sequence is one action
        constant       1 / (sequences * max_tokens)     Dr. GRPO, as in TRL
        sum_norm       1 / max_tokens                   verl's seq-mean-token-sum-norm

    Give the sequences of a whole optimizer step, over all micro-batches and ranks, also those that
    are dropped because their advantage is 0: then the parts of any split add up to the whole and
    the gradient does not depend on the split. ``sum_norm`` divides by no number of sequences, so
    its scale grows with the batch.

    Args:
        num_tokens_B: tokens under the mask of each sequence; 0 gives weight 0.
        kind: see above.
        max_tokens: the longest response that could have been sampled, > 0. For ``sum_norm``: the
            padded width, or verl's loss_scale_factor.
        num_sequences: what counts as a sequence, > 0; None: the length of ``num_tokens_B``.
    Returns: weight_B, float64.
    Raises: ValueError: an unknown kind, or a number outside its range.
    Source: Yu et al. 2025 (DAPO), arXiv:2503.14476; Shao et al. 2024 (GRPO), arXiv:2402.03300;
        Liu et al. 2025 (Dr. GRPO), arXiv:2503.20783, divided by sequences as TRL does.
    """
    if kind not in get_args(Aggregate):
        raise ValueError(unknown("aggregate", kind, _DIVISOR))
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens!r}, expected > 0")
    if num_sequences is None:
        num_sequences = max(len(num_tokens_B), 1)
    if num_sequences < 1:
        raise ValueError(f"num_sequences is {num_sequences!r}, expected > 0 or None")
    if (num_tokens_B < 0).any():
        raise ValueError(f"num_tokens_B holds {int(num_tokens_B.min())}, expected >= 0")
    tokens_B = num_tokens_B.double()
    divisor_B = _DIVISOR[kind](tokens_B, max_tokens, num_sequences).expand_as(tokens_B)
    return torch.where(tokens_B > 0, 1 / divisor_B.clamp(min=1), 0.0)


_DIVISOR: Mapping[str, Callable[[Tensor, int, int], Tensor]] = {
    "token_mean": lambda tokens_B, _, __: tokens_B.sum(),
    "sequence_mean": lambda tokens_B, _, sequences: sequences * tokens_B,
    "sequence_sum": lambda tokens_B, _, sequences: tokens_B.new_tensor(sequences),
    "constant": lambda tokens_B, longest, sequences: tokens_B.new_tensor(sequences * longest),
    "sum_norm": lambda tokens_B, longest, _: tokens_B.new_tensor(longest),
}
