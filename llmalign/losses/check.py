"""Checks that token losses share."""

import torch
from torch import Tensor


def check_tokens(logp_BT: Tensor, mask_BT: Tensor, **others_BT: Tensor) -> None:
    """Raises TypeError or ValueError unless all have the shape of ``logp_BT`` and the mask is bool.

    ``others_BT``: further tensors by the name that an error shall give them.
    """
    if not logp_BT.is_floating_point():
        raise TypeError(f"logp_BT has dtype {logp_BT.dtype}, expected floats in nats")
    if mask_BT.dtype != torch.bool:
        raise TypeError(
            f"mask_BT has dtype {mask_BT.dtype}, expected torch.bool; compare it with 0"
        )
    for name, tensor in {"mask_BT": mask_BT, **others_BT}.items():
        if tensor.shape != logp_BT.shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected {tuple(logp_BT.shape)} "
                "like logp_BT"
            )
