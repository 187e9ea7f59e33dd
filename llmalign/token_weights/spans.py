"""Weights given to stretches of a response: a thought, a tool call, the final answer."""

import torch
from torch import Tensor

from llmalign.token_weights.check import check_mask
from llmalign.token_weights.registry import TOKEN_WEIGHTS


@TOKEN_WEIGHTS.register(
    "spans",
    paper="a weight per stretch of the response",
    outside=1.0,
)
def spans(span_BS2: Tensor, value_BS: Tensor, mask_BT: Tensor, *, outside: float) -> Tensor:
    """The weight of the span that each token lies in; ``outside`` where it lies in none.

    Where spans overlap the later one in the list holds, so that a nested span is listed behind the
    one around it.

    Args:
        span_BS2: int64, first token and the one behind the last, half-open; an empty span
            (start >= end) is none.
        value_BS: weight of each span, >= 0; not read where the span is empty.
        mask_BT: bool, True for tokens the policy itself wrote.
        outside: weight of the other tokens, >= 0.
    Returns: weight_BT float64, 0 outside the mask.
    Raises: TypeError, ValueError: a shape, dtype, place or weight is off.
    """
    check_mask(mask_BT)
    if span_BS2.shape != (*value_BS.shape, 2) or len(value_BS) != len(mask_BT):
        raise ValueError(
            f"span_BS2 has shape {tuple(span_BS2.shape)}, expected ({len(mask_BT)}, S, 2) with "
            f"value_BS of shape {tuple(value_BS.shape)}"
        )
    if span_BS2.dtype != torch.int64:
        raise TypeError(f"span_BS2 has dtype {span_BS2.dtype}, expected torch.int64")
    there_BS = span_BS2[..., 0] < span_BS2[..., 1]
    if (there_BS & ((span_BS2[..., 0] < 0) | (span_BS2[..., 1] > mask_BT.shape[1]))).any():
        raise ValueError(f"span_BS2 leaves the {mask_BT.shape[1]} tokens of the response")
    if not outside >= 0 or not (value_BS[there_BS] >= 0).all():
        raise ValueError("value_BS and outside hold a weight below 0 or NaN, expected >= 0")
    place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    weight_BT = torch.full(mask_BT.shape, outside, dtype=torch.float64, device=mask_BT.device)
    for s in range(value_BS.shape[1]):
        start_B1, end_B1 = span_BS2[:, s, :1], span_BS2[:, s, 1:]
        inside_BT = (place_T >= start_B1) & (place_T < end_B1)
        weight_BT = torch.where(inside_BT, value_BS[:, s, None].detach().double(), weight_BT)
    return torch.where(mask_BT, weight_BT, 0.0)
