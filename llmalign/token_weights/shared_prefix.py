"""Tokens that several leaves of a tree have in common, counted once.

Shape letters
    B  leaves of all trees    T  response tokens    D  nodes on the way from the root to a leaf
"""

import torch
from torch import Tensor

from llmalign.token_weights.check import check_mask
from llmalign.token_weights.registry import TOKEN_WEIGHTS


@TOKEN_WEIGHTS.register("shared_prefix", paper="a token of a tree counts once")
def shared_prefix(group_B: Tensor, mask_BT: Tensor, path_BD: Tensor, step_end_BD: Tensor) -> Tensor:
    """1 over the number of leaves that have a token in common, so that it counts once in a loss.

    Only leaves whose mask has the token count. Multiplied with the advantages, a sum over leaves
    becomes one over nodes; a group then has as many effective tokens as it has distinct ones.
    TreeRL's advantage has a weighting of its own, ``sqrt``; use one or the other.

    Args: group_B, mask_BT, path_BD, step_end_BD: as the advantage ``treerl`` takes them.
    Returns: weight_BT float64, in (0, 1]; 0 off the mask, and behind the last node.
    Raises: TypeError, ValueError: the mask is off.
    """
    check_mask(mask_BT)
    width, device = mask_BT.shape[1], mask_BT.device
    end_BD = torch.where(step_end_BD < 0, width, step_end_BD)
    node_BT = (end_BD[:, None, :] < torch.arange(width, device=device)[None, :, None]).sum(-1)
    inside_BT = mask_BT & (node_BT < (step_end_BD >= 0).sum(1)[:, None])
    weight_BT = torch.zeros(mask_BT.shape, dtype=torch.float64, device=device)
    for depth in range(path_BD.shape[1]):
        prefix = torch.cat([group_B[:, None], path_BD[:, : depth + 1]], 1)
        node_B = torch.unique(prefix, dim=0, return_inverse=True)[1].reshape(-1)
        here_BT = inside_BT & (node_BT == depth)
        count_NT = torch.zeros_like(weight_BT).index_add(0, node_B, here_BT.double())
        weight_BT += torch.where(here_BT, 1 / count_NT[node_B].clamp(min=1), 0.0)
    return weight_BT
