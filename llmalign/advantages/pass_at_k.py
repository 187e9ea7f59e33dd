"""Pass@k training: a sample is worth what it adds to the best of k."""

import math

import torch
from torch import Tensor

from llmalign.advantages.groups import GroupStatistics, group_statistics, spread
from llmalign.advantages.registry import ADVANTAGES


@ADVANTAGES.register(
    "pass_at_k", paper="Chen et al. 2025 (Pass@k training), arXiv:2508.10751", k=2, eps=1e-6
)
def pass_at_k(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    *,
    k: int,
    eps: float,
) -> Tensor:
    """What a sample adds to the best of k drawn from its group, in closed form (Pass@k training).

        best = max of the totals of k samples drawn without replacement
        A_i  = (E[best | i drawn] - E[best]) / (std[best] + eps)       total = R + sum_t penalty_t

    With rewards 0 and 1 and m of N wrong this is the printed form,

        rho = 1 - C(m, k) / C(N, k)      sigma = sqrt(rho (1 - rho))
        A   = (1 - rho) / (sigma + eps)                                        a right sample
        A   = (1 - rho - C(m - 1, k - 1) / C(N - 1, k - 1)) / (sigma + eps)    a wrong one

    and other rewards follow from the same definition. A is exactly 0 where every draw has the same
    best (all right, all wrong, fewer than k wrong) and where fewer than k samples are scored: the
    signal ends long before a prompt is solved, so authors mix or switch with an ordinary advantage.

    Args: reward_B, group_B, mask_BT, penalty_BT: as ``group``. A penalty shifts what 'best' means.
        k: samples per draw, >= 1; 1 is ``group`` with ddof 0.
        eps: added to the std, > 0.
    Returns: adv_BT float64, in standard deviations of the best.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Chen et al. 2025, arXiv:2508.10751, analytical derivation; beyond 0 and 1 our extension.
    """
    _check_options(k, eps)
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    adv_B = torch.zeros_like(stats.total_B)
    for members in _groups(stats):
        adv_B[members] = _closed_form(stats.total_B[members], k, eps)
    return spread(adv_B, mask_BT)


@ADVANTAGES.register(
    "pass_at_k_bootstrap",
    paper="Chen et al. 2025 (Pass@k training), arXiv:2508.10751",
    k=4,
    draws=None,
    eps=1e-6,
)
def pass_at_k_bootstrap(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    seed: int,
    *,
    k: int,
    draws: int | None,
    eps: float,
) -> Tensor:
    """``pass_at_k`` from drawn sets instead of all of them (Pass@k training, bootstrap sampling).

        best_d = max of the totals of k samples drawn without replacement, d = 1..draws
        a_d    = (best_d - mean(best)) / (std(best) + eps)      std over the draws, ddof 0
        A_i    = mean of a_d over the draws that hold i, 0 where none does

    Its mean over draws tends to ``pass_at_k``; it costs no less and is noisier, so it serves
    comparisons with the released runs.

    Args: reward_B, group_B, mask_BT, penalty_BT, k, eps: as ``pass_at_k``.
        draws: sets drawn per group, >= 1; None: as many as the group has scored samples.
        seed: of the draws; give another one at every step.
    Returns: adv_BT float64, in standard deviations of the best.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Chen et al. 2025, arXiv:2508.10751; that a sample takes the mean over its sets, where a
        sum would also be read, is reconstructed: it is what the closed form tends to.
    """
    _check_options(k, eps)
    if draws is not None and draws < 1:
        raise ValueError(f"draws is {draws!r}, expected >= 1 or None")
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    generator = torch.Generator().manual_seed(seed)
    adv_B = torch.zeros_like(stats.total_B)
    for members in _groups(stats):
        if len(members) >= k:
            num_sets = len(members) if draws is None else draws
            picks = [torch.randperm(len(members), generator=generator)[:k] for _ in range(num_sets)]
            drawn_DG = torch.zeros(num_sets, len(members), dtype=torch.bool)
            drawn_DG[torch.arange(num_sets)[:, None], torch.stack(picks)] = True
            adv_B[members] = _sampled(stats.total_B[members], drawn_DG.to(adv_B.device), eps)
    return spread(adv_B, mask_BT)


@ADVANTAGES.register(
    "max_minus_second",
    paper="Tang et al. 2025, arXiv:2503.19595",
    scaled=True,
    eps=1e-6,
)
def max_minus_second(
    reward_B: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
    penalty_BT: Tensor,
    *,
    scaled: bool,
    eps: float,
) -> Tensor:
    """The group's best sample gets its lead over the second, all others 0.

        A_best = total_(1) - total_(2)       total = R + sum_t penalty_t
        A_best = (total_(1) - total_(2)) / (std_group + eps)     where ``scaled``; ddof 1

    Two samples that share the best total have no lead, hence 0. A group with one scored sample has
    none either; the released code refuses it.

    Args: reward_B, group_B, mask_BT, penalty_BT: as ``group``.
        scaled: whether the group's std divides.
        eps: added to the std, > 0.
    Returns: adv_BT float64, in standard deviations, or in units of reward where not ``scaled``.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: Tang et al. 2025, arXiv:2503.19595.
    """
    _check_options(1, eps)
    stats = group_statistics(reward_B, group_B, mask_BT, penalty_BT)
    adv_B = torch.zeros_like(stats.total_B)
    for members in _groups(stats):
        total_G = stats.total_B[members]
        if len(members) < 2:
            continue
        (first, second), (best, _) = total_G.topk(2)
        lead = first - second
        adv_B[members[best]] = lead / (total_G.std(correction=1) + eps) if scaled else lead
    return spread(adv_B, mask_BT)


def _closed_form(total_G: Tensor, k: int, eps: float) -> Tensor:
    """Over all sets of k: the j-th smallest of N is the best of C(j - 1, k - 1) of them."""
    num = len(total_G)
    if num < k:
        return torch.zeros_like(total_G)
    sorted_G, order_G = total_G.sort()
    if sorted_G[k - 1] == sorted_G[-1]:
        return torch.zeros_like(total_G)
    sets = math.comb(num, k)
    share_G = total_G.new_tensor([math.comb(j, k - 1) / sets for j in range(num)])
    mean = (share_G * sorted_G).sum()
    std = (share_G * (sorted_G - mean) ** 2).sum().sqrt()
    with_i_G = _best_with_each(sorted_G, k)
    adv_G = torch.empty_like(total_G)
    adv_G[order_G] = (with_i_G - mean) / (std + eps)
    return adv_G


def _best_with_each(sorted_G: Tensor, k: int) -> Tensor:
    """E[best of k | the i-th smallest is among them] for every i; ties may rank in any order."""
    num = len(sorted_G)
    if k == 1:
        return sorted_G.clone()
    sets = math.comb(num - 1, k - 1)
    # Of the sets with i, i is the best of C(i, k - 1); a larger j is the best of C(j - 1, k - 2).
    own_G = sorted_G.new_tensor([math.comb(i, k - 1) / sets for i in range(num)])
    above_G = sorted_G.new_tensor([math.comb(max(j - 1, 0), k - 2) / sets for j in range(num)])
    product_G = above_G * sorted_G
    beyond_G = product_G.flip(0).cumsum(0).flip(0) - product_G
    return own_G * sorted_G + beyond_G


def _sampled(total_G: Tensor, drawn_DG: Tensor, eps: float) -> Tensor:
    best_D = torch.where(drawn_DG, total_G, -math.inf).amax(1)
    if (best_D == best_D[0]).all():
        return torch.zeros_like(total_G)
    a_D = (best_D - best_D.mean()) / (best_D.std(correction=0) + eps)
    return (drawn_DG * a_D[:, None]).sum(0) / drawn_DG.sum(0).clamp(min=1)


def _groups(stats: GroupStatistics) -> list[Tensor]:
    """Indices of the scored samples of each group that has any."""
    scored = stats.scored_B.nonzero()[:, 0]
    return [scored[stats.group_B[scored] == p] for p in stats.group_B[scored].unique()]


def _check_options(k: int, eps: float) -> None:
    if k < 1:
        raise ValueError(f"k is {k!r}, expected >= 1")
    if not eps > 0:
        raise ValueError(f"eps is {eps!r}, expected > 0; rounding noise would become an advantage")
