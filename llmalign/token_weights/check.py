"""Checks that token weights share."""

import torch
from torch import Tensor


def check_mask(mask_BT: Tensor, **others_BT: Tensor) -> None:
    """Raises TypeError or ValueError unless the mask is bool and all others have its shape."""
    if mask_BT.dtype != torch.bool:
        raise TypeError(
            f"mask_BT has dtype {mask_BT.dtype}, expected torch.bool; compare it with 0"
        )
    if mask_BT.dim() != 2:
        raise ValueError(f"mask_BT has shape {tuple(mask_BT.shape)}, expected (B, T)")
    for name, tensor in others_BT.items():
        if tensor.shape != mask_BT.shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected {tuple(mask_BT.shape)} "
                "like mask_BT"
            )


def check_share(name: str, share: float) -> None:
    """Raises ValueError unless ``share`` lies in (0, 1]."""
    if not 0 < share <= 1:
        raise ValueError(f"{name} is {share!r}, expected a number in (0, 1]")
