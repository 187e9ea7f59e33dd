"""What losses over whole sequences and whole groups share.

A loss of a sequence is given to each of its tokens: under the aggregate ``sequence_mean``, which
weighs a token 1 / (sequences * own tokens), their sum is the mean over sequences, and the gradient
is exact.

Shape letters
    B  sequences    T  response tokens
"""

import torch
from torch import Tensor

SEQUENCE_MEAN = ("sequence_mean",)


def check_rows(logp_BT: Tensor) -> None:
    """Raises ValueError unless there are rows of tokens."""
    if logp_BT.dim() != 2:
        raise ValueError(
            f"logp_BT has shape {tuple(logp_BT.shape)}, expected (B, T); a row is a sequence"
        )


def row_sum(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum over the tokens under the mask, [B]; 0 for a row without any."""
    return torch.where(mask_BT, value_BT, 0.0).sum(1)


def row_mean(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the tokens under the mask, [B]; 0 for a row without any."""
    return row_sum(value_BT, mask_BT) / mask_BT.sum(1).clamp(min=1)


def to_tokens(value_B: Tensor, mask_BT: Tensor) -> Tensor:
    """Each row's value on each of its tokens, [B, T]; 0 outside the mask."""
    return torch.where(mask_BT, value_B[:, None], 0.0)


def check_group(group_B: Tensor, mask_BT: Tensor) -> None:
    """Raises TypeError or ValueError unless there is one int64 index per row."""
    if group_B.shape != mask_BT.shape[:1]:
        raise ValueError(
            f"group_B has shape {tuple(group_B.shape)}, expected ({len(mask_BT)},): one group "
            "index per row"
        )
    if group_B.dtype != torch.int64:
        raise TypeError(f"group_B has dtype {group_B.dtype}, expected torch.int64")


def group_sum(value_B: Tensor, group_B: Tensor) -> Tensor:
    """Sum of ``value_B`` over each row's group, [B]; any int64 may name a group."""
    _, index_B = torch.unique(group_B, return_inverse=True)
    sum_P = value_B.new_zeros(len(group_B)).index_add(0, index_B, value_B)
    return sum_P[index_B]
