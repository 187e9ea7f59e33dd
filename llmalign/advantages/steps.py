"""Steps of a response: which token belongs to which, and sums over a group's samples or steps.

Shape letters beyond those of ``groups``
    K  steps of a response, padded: ``step_end`` is -1 where a response has no further step
"""

import torch
from torch import Tensor


def step_of_token(step_end_BK: Tensor, mask_BT: Tensor) -> Tensor:
    """The step that each token lies in, [B, T]: the first whose end is not before the token.

    -1 outside the mask and behind the last step's end.

    Args:
        step_end_BK: int64, index of each step's last token, growing along a row; -1: no such step.
        mask_BT: bool, True for tokens the policy itself wrote.
    Raises: TypeError, ValueError: a shape, dtype or index is off.
    """
    _check(step_end_BK, mask_BT)
    width = mask_BT.shape[1]
    end_BK = torch.where(step_end_BK < 0, width, step_end_BK)
    place_BT = torch.arange(width, device=mask_BT.device).expand_as(mask_BT).contiguous()
    step_BT = torch.searchsorted(end_BK.contiguous(), place_BT)
    behind_BT = step_BT >= (step_end_BK >= 0).sum(1)[:, None]
    return torch.where(behind_BT | ~mask_BT, -1, step_BT)


def steps_to_tokens(value_BK: Tensor, step_end_BK: Tensor, mask_BT: Tensor) -> Tensor:
    """Each token gets the value of its step, float64 [B, T]; 0 behind the last and off the mask."""
    step_BT = step_of_token(step_end_BK, mask_BT)
    if value_BK.shape[1] == 0:
        return torch.zeros(mask_BT.shape, dtype=torch.float64, device=mask_BT.device)
    value_BT = value_BK.detach().double().gather(1, step_BT.clamp(min=0))
    return torch.where(step_BT >= 0, value_BT, 0.0)


def tokens_per_step(step_end_BK: Tensor, mask_BT: Tensor) -> Tensor:
    """Tokens under the mask in each step, float64 [B, K]."""
    step_BT = step_of_token(step_end_BK, mask_BT)
    count_BK = torch.zeros(step_end_BK.shape, dtype=torch.float64, device=mask_BT.device)
    if step_end_BK.shape[1] == 0:
        return count_BK
    return count_BK.scatter_add(1, step_BT.clamp(min=0), (step_BT >= 0).double())


def suffix_sum(value_BK: Tensor) -> Tensor:
    """Sum from each step to the last of its row."""
    return value_BK.flip(1).cumsum(1).flip(1)


def sum_by(value_B: Tensor, group_B: Tensor) -> Tensor:
    """The sum of ``value_B`` over each sample's group, [B]."""
    if not len(group_B):
        return value_B
    total_P = value_B.new_zeros(int(group_B.max()) + 1).index_add(0, group_B, value_B)
    return total_P[group_B]


def bounds_by(value_B: Tensor, counts_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest of the values that count in each sample's group, [B]; inf where none."""
    if not len(group_B):
        return value_B, value_B
    size = int(group_B.max()) + 1
    low_P = value_B.new_full((size,), torch.inf)
    low_P = low_P.scatter_reduce(0, group_B, torch.where(counts_B, value_B, torch.inf), "amin")
    high_P = value_B.new_full((size,), -torch.inf)
    high_P = high_P.scatter_reduce(0, group_B, torch.where(counts_B, value_B, -torch.inf), "amax")
    return low_P[group_B], high_P[group_B]


def check_steps(step_reward_BK: Tensor, step_end_BK: Tensor, group_B: Tensor) -> None:
    """Raises TypeError or ValueError unless the three fit each other."""
    if not step_reward_BK.is_floating_point():
        raise TypeError(f"step_reward_BK has dtype {step_reward_BK.dtype}, expected floats")
    if step_reward_BK.shape != step_end_BK.shape:
        raise ValueError(
            f"step_reward_BK has shape {tuple(step_reward_BK.shape)}, expected "
            f"{tuple(step_end_BK.shape)} like step_end_BK"
        )
    if group_B.dtype != torch.int64 or group_B.shape != step_end_BK.shape[:1]:
        raise ValueError(
            f"group_B is {group_B.dtype} of shape {tuple(group_B.shape)}, expected torch.int64 of "
            f"shape ({len(step_end_BK)},)"
        )


def _check(step_end_BK: Tensor, mask_BT: Tensor) -> None:
    if mask_BT.dtype != torch.bool or step_end_BK.dtype != torch.int64:
        raise TypeError(
            f"mask_BT has dtype {mask_BT.dtype} and step_end_BK {step_end_BK.dtype}, expected "
            "torch.bool and torch.int64"
        )
    if mask_BT.dim() != 2 or step_end_BK.dim() != 2 or len(step_end_BK) != len(mask_BT):
        raise ValueError(
            f"step_end_BK has shape {tuple(step_end_BK.shape)}, expected ({len(mask_BT)}, K); "
            "give one row per row of mask_BT"
        )
    if (step_end_BK >= mask_BT.shape[1]).any():
        raise ValueError(
            f"step_end_BK holds {int(step_end_BK.max())}, expected < {mask_BT.shape[1]}, the "
            "number of tokens"
        )
    before_BK, after_BK = step_end_BK[:, :-1], step_end_BK[:, 1:]
    if ((after_BK >= 0) & (after_BK <= before_BK)).any() or (
        (after_BK >= 0) & (before_BK < 0)
    ).any():
        raise ValueError("step_end_BK does not grow along a row; put the steps in their order")
