"""Samples that share prefixes: a sampled tree's comparisons become advantages of its segments.

Shape letters: B leaves (samples), T response tokens, D depths. ``path_BD[b, d]`` is the number of
the branch that leaf b took at depth d, -1 behind its last one; leaves of one group with the same
numbers up to a depth share that prefix, and are one node there.
"""

import itertools
from typing import Literal

import torch
from torch import Tensor

from llmalign.advantages.batch_whitened import whitened
from llmalign.advantages.groups import Lone, group_statistics
from llmalign.advantages.registry import ADVANTAGES
from llmalign.advantages.steps import bounds_by, steps_to_tokens, sum_by, tokens_per_step

Mix = Literal["group_size", "average"]
Weighting = Literal["mean", "sqrt"]


@ADVANTAGES.register(
    "treepo",
    paper="Li et al. 2025 (TreePO), arXiv:2508.17445",
    mix="group_size",
    skip_equal=False,
    eps=1e-8,
)
def treepo(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    path_BD: Tensor,
    *,
    mix: Mix,
    skip_equal: bool,
    eps: float,
) -> Tensor:
    """Reward minus the mean of the leaves below each shared prefix, over all depths (TreePO).

        a_d = total - mean of the leaves that share the first d branches   total = R + sum_t penalty
        A   = sum_d w_d a_d / sum_d w_d, whitened over all tokens of the batch
        w_d = 1 ('average') or the number of those leaves ('group_size')

    Depth 0 is the whole group and always counts; deeper ones where at least two leaves share them,
    and where their totals differ if ``skip_equal``. A leaf without branches has depth 0 alone: the
    released code gives a whole batch of such leaves advantage 0 and says nothing.

    Args: reward_B, group_B, mask_BT, penalty_BT: as ``group``.
        path_BD: int64, branch numbers of each leaf, -1 behind the last.
        mix: see above; the authors' script says ``average``.
        skip_equal: whether a shared prefix whose leaves' totals are all equal is left out.
        eps: added to the variance of the whitening, > 0.
    Returns: adv_BT float64, in standard deviations.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Li et al. 2025 (TreePO), arXiv:2508.17445.
    """
    if mix not in ("group_size", "average"):
        raise ValueError(f"mix is {mix!r:.80}, expected 'group_size' or 'average'")
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    _check_paths(path_BD, group_B)
    value_B, weight_B = torch.zeros_like(stats.total_B), torch.zeros_like(stats.total_B)
    for depth in range(path_BD.shape[1] + 1):
        node_B, here_B = _nodes(group_B, path_BD, depth)
        here_B = here_B & stats.scored_B
        count_B = sum_by(here_B.double(), node_B)
        low_B, high_B = bounds_by(stats.total_B, here_B, node_B)
        mean_B = sum_by(stats.total_B * here_B, node_B) / count_B.clamp(min=1)
        if depth:
            here_B = here_B & (count_B > 1) & ((high_B > low_B) | (not skip_equal))
        share_B = here_B * (count_B if mix == "group_size" else torch.ones_like(count_B))
        value_B = value_B + share_B * torch.where(high_B > low_B, stats.total_B - mean_B, 0.0)
        weight_B = weight_B + share_B
    adv_BT = (value_B / weight_B.clamp(min=1))[:, None].expand(mask_BT.shape)
    return whitened(adv_BT, mask_BT & stats.scored_B[:, None], eps)


@ADVANTAGES.register(
    "treepo_segments",
    paper="Li et al. 2025 (TreePO), arXiv:2508.17445",
    siblings=False,
    eps=1e-8,
    lone="zero",
)
def treepo_segments(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    path_BD: Tensor,
    step_end_BD: Tensor,
    *,
    siblings: bool,
    eps: float,
    lone: Lone,
) -> Tensor:
    """What each segment adds to the mean reward of the leaves below it (TreePO, segments).

        V(node) = mean reward of its leaves; the root counts as 0
        A       = V(node) - V(parent)
        A       = Z(node) - Z(parent), Z = (V - mean) / (std + eps) over siblings    ``siblings``

    Args: reward_B, group_B, mask_BT: as ``group``. path_BD: as ``treepo``.
        step_end_BD: int64, index of the last token of each segment; -1 where ``path_BD`` is.
        siblings: whether values are normalised among the children of one parent, std with ddof 0.
        eps: added to that std, > 0.
        lone: Z of an only child: 0, or its raw V as in the released code.
    Returns: adv_BT float64, each token with its segment's value; 0 behind the last segment.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Li et al. 2025 (TreePO), arXiv:2508.17445.
    """
    value_BD = segment_values(
        reward_B, group_B, path_BD, siblings=siblings, eps=eps, lone=lone
    )  # fmt: skip
    _check_segments(path_BD, step_end_BD)
    return steps_to_tokens(value_BD, step_end_BD, mask_BT)


def segment_values(
    reward_B: Tensor, group_B: Tensor, path_BD: Tensor, *, siblings: bool, eps: float, lone: Lone
) -> Tensor:
    """What ``treepo_segments`` puts on the tokens, float64 [B, D]; 0 where there is no segment."""
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
    if lone not in ("zero", "keep"):
        raise ValueError(f"lone is {lone!r:.80}, expected 'zero' or 'keep'")
    stats = group_statistics(reward_B, group_B, *_no_tokens(reward_B))
    _check_paths(path_BD, group_B)
    before_B, found = torch.zeros_like(stats.total_B), []
    for depth in range(1, path_BD.shape[1] + 1):
        node_B, here_B = _nodes(group_B, path_BD, depth)
        here_B = here_B & stats.scored_B
        count_B = sum_by(here_B.double(), node_B)
        value_B = sum_by(stats.total_B * here_B, node_B) / count_B.clamp(min=1)
        if siblings:
            parent_B, _ = _nodes(group_B, path_BD, depth - 1)
            weight_B = here_B / count_B.clamp(min=1)  # one per node, whatever its leaves
            value_B = _among_siblings(value_B, weight_B, parent_B, eps, lone)
        found.append(torch.where(here_B, value_B - before_B, 0.0))
        before_B = torch.where(here_B, value_B, before_B)
    return torch.stack(found, 1) if found else stats.total_B.new_zeros(len(reward_B), 0)


@ADVANTAGES.register(
    "treerl",
    paper="Hou et al. 2025 (TreeRL), arXiv:2506.11902",
    weighting="sqrt",
    centre=True,
    state_value=False,
    fill=False,
)
def treerl(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    path_BD: Tensor,
    step_end_BD: Tensor,
    *,
    weighting: Weighting,
    centre: bool,
    state_value: bool,
    fill: bool,
) -> Tensor:
    """What each segment adds to the value of its subtree, leaves compared with leaves (TreeRL).

        R'      = R - mean of the group's other leaves
        S(node) = sum of R' over its n leaves; less mu * n if ``centre``
        mu      = sum_nodes S * tokens / sum_nodes n * tokens
        V(node) = S / n ('mean') or S / n^1.5 ('sqrt')
        A       = V(node) - V(parent), plus V(node) if ``state_value``

    ``sqrt`` damps nodes with many leaves, which appear in as many samples. ``fill`` gives a segment
    behind the first whose V is that of its parent the A of the one before it, as the released code
    does.

    Args: reward_B, group_B, mask_BT: as ``group``. path_BD: as ``treepo``; each tree that was
        grown from its own first tokens begins with a branch number of its own.
        step_end_BD: int64, index of the last token of each segment; -1 where ``path_BD`` is.
        weighting, centre, state_value, fill: see above.
    Returns: adv_BT float64, in units of reward; a group with one scored leaf has 0.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Hou et al. 2025 (TreeRL), arXiv:2506.11902, and its released code.
    """
    if weighting not in ("mean", "sqrt"):
        raise ValueError(f"weighting is {weighting!r:.80}, expected 'mean' or 'sqrt'")
    stats = group_statistics(reward_B, group_B, mask_BT, torch.zeros_like(mask_BT).double())
    _check_paths(path_BD, group_B)
    _check_segments(path_BD, step_end_BD)
    leaf_B = stats.centred_B("zero") * stats.count_B / (stats.count_B - 1).clamp(min=1)
    tokens_BD = tokens_per_step(step_end_BD, mask_BT)
    sums, counts = _leaf_sums(leaf_B, stats.scored_B, group_B, path_BD)
    if centre:
        mu_B = _token_mean(sums[1:], counts[1:], tokens_BD, group_B)
        sums = [s_B - mu_B * n_B for s_B, n_B in zip(sums, counts, strict=True)]
    power = 1.5 if weighting == "sqrt" else 1.0
    values = [s_B / n_B.clamp(min=1) ** power for s_B, n_B in zip(sums, counts, strict=True)]
    steps, last_B = [], torch.zeros_like(leaf_B)
    for depth, (parent_B, node_B) in enumerate(itertools.pairwise(values)):
        step_B = node_B - parent_B + (node_B if state_value else 0.0)
        if fill and depth:
            step_B = torch.where(node_B == parent_B, last_B, step_B)
        last_B = torch.where(counts[depth + 1] > 0, step_B, 0.0)
        steps.append(last_B)
    if not steps:
        return torch.zeros(mask_BT.shape, dtype=torch.float64, device=mask_BT.device)
    return steps_to_tokens(torch.stack(steps, 1), step_end_BD, mask_BT)


def _leaf_sums(
    leaf_B: Tensor, scored_B: Tensor, group_B: Tensor, path_BD: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """For each depth from the root: the sum and the number of the leaves below each leaf's node."""
    sums, counts = [], []
    for depth in range(path_BD.shape[1] + 1):
        node_B, here_B = _nodes(group_B, path_BD, depth)
        here_B = here_B & scored_B
        counts.append(here_B * sum_by(here_B.double(), node_B))
        sums.append(here_B * sum_by(leaf_B * here_B, node_B))
    return sums, counts


def _token_mean(
    sums: list[Tensor], counts: list[Tensor], tokens_BD: Tensor, group_B: Tensor
) -> Tensor:
    """mu of each leaf's group; a node is counted once though each of its n leaves carries it."""
    above_B, below_B = torch.zeros_like(tokens_BD[:, 0]), torch.zeros_like(tokens_BD[:, 0])
    for depth, (s_B, n_B) in enumerate(zip(sums, counts, strict=True)):
        above_B = above_B + s_B * tokens_BD[:, depth] / n_B.clamp(min=1)
        below_B = below_B + (n_B > 0) * tokens_BD[:, depth]
    return sum_by(above_B, group_B) / sum_by(below_B, group_B).clamp(min=1)


def _among_siblings(
    value_B: Tensor, weight_B: Tensor, parent_B: Tensor, eps: float, lone: Lone
) -> Tensor:
    """Values normalised over the children of each parent; ``weight_B`` sums to 1 over a child."""
    low_B, high_B = bounds_by(value_B, weight_B > 0, parent_B)
    num_B = sum_by(weight_B, parent_B)
    mean_B = sum_by(weight_B * value_B, parent_B) / num_B.clamp(min=1)
    centred_B = torch.where(high_B > low_B, value_B - mean_B, 0.0)
    std_B = (sum_by(weight_B * centred_B**2, parent_B) / num_B.clamp(min=1)).sqrt()
    z_B = centred_B / (std_B + eps)
    only_B = num_B.round() == 1
    return torch.where(only_B, value_B, z_B) if lone == "keep" else z_B


def _nodes(group_B: Tensor, path_BD: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """A number for each leaf's node at ``depth``, and whether its path reaches that deep."""
    prefix = torch.cat([group_B[:, None], path_BD[:, :depth]], 1)
    node_B = torch.unique(prefix, dim=0, return_inverse=True)[1]
    return node_B.reshape(-1), (path_BD[:, :depth] >= 0).all(1)


def _no_tokens(reward_B: Tensor) -> tuple[Tensor, Tensor]:
    shape = (len(reward_B), 0)
    return torch.zeros(shape, dtype=torch.bool, device=reward_B.device), reward_B.new_zeros(shape)


def _check_paths(path_BD: Tensor, group_B: Tensor) -> None:
    if path_BD.dtype != torch.int64:
        raise TypeError(f"path_BD has dtype {path_BD.dtype}, expected torch.int64")
    if path_BD.dim() != 2 or len(path_BD) != len(group_B):
        raise ValueError(
            f"path_BD has shape {tuple(path_BD.shape)}, expected ({len(group_B)}, D); give one "
            "row per sample"
        )
    if ((path_BD[:, 1:] >= 0) & (path_BD[:, :-1] < 0)).any():
        raise ValueError("path_BD goes on behind a -1; a path ends there")


def _check_segments(path_BD: Tensor, step_end_BD: Tensor) -> None:
    if step_end_BD.shape != path_BD.shape or ((step_end_BD >= 0) != (path_BD >= 0)).any():
        raise ValueError(
            f"step_end_BD has shape {tuple(step_end_BD.shape)}, expected {tuple(path_BD.shape)} "
            "like path_BD, and -1 exactly where that is; give each branch its last token"
        )
