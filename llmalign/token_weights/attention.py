"""Credit by attention: tokens that plan ahead, and anchors that later tokens look back to.

Shape letters: B samples, T response tokens, H heads. ``attention[t, s]`` is what position t pays to
s <= t, among response tokens alone. The maps cost a second forward pass with attention that writes
its weights out, and B * T * T numbers of memory for each of the two.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from llmalign.token_weights.check import check_mask, check_share
from llmalign.token_weights.registry import TOKEN_WEIGHTS

Anchors = Literal["local", "global", "both"]


@TOKEN_WEIGHTS.register(
    "attention",
    paper="Attention Illuminates LLM Reasoning (preplan and anchor) 2025, arXiv:2510.13554",
    traits={"only_positive": True},
    anchors="global",
    share=0.4,
    boost=1.5,
    window=10,
    near=10,
    far=50,
)
def attention(
    local_BTT: Tensor,
    global_BTT: Tensor,
    mask_BT: Tensor,
    *,
    anchors: Anchors,
    share: float,
    boost: float,
    window: int,
    near: int,
    far: int,
) -> Tensor:
    """``boost`` on preplan and anchor tokens, 1 on the others.

        local   the top share of a response's tokens by |WAAD_t - WAAD_{t+1}|   (preplan)
        global  the top share by FAI                                            (anchor)
        weight  boost on the chosen tokens, 1 elsewhere; both: either kind

    The top share is at least one token; equal values at its edge go to the earlier token, tokens
    with value 0 are never chosen. The weights are for advantages >= 0, see ``credited``.

    Args:
        local_BTT: mean attention map of the heads that look near (see ``far_and_near_heads``); no
            gradient. global_BTT: the same of those that look far. Rows and columns outside the
            mask are never read.
        mask_BT: bool, True for tokens the policy itself wrote.
        anchors: see above.
        share: of a response's tokens, in (0, 1].
        boost: weight of a chosen token, >= 1.
        window: as ``backward_distance``. near, far: as ``future_influence``.
    Returns: weight_BT float64, 0 outside the mask.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: arXiv:2510.13554, eq. 9-16.
    """
    check_share("share", share)
    if not boost >= 1:
        raise ValueError(f"boost is {boost!r}, expected >= 1")
    if anchors not in ("local", "global", "both"):
        raise ValueError(f"anchors is {anchors!r:.80}, expected 'local', 'global' or 'both'")
    chosen_BT = torch.zeros_like(mask_BT)
    if anchors != "global":
        distance_BT = backward_distance(local_BTT, mask_BT, window=window)
        chosen_BT |= _top(distance_change(distance_BT, mask_BT), mask_BT, share)
    if anchors != "local":
        chosen_BT |= _top(future_influence(global_BTT, mask_BT, near=near, far=far), mask_BT, share)
    return torch.where(mask_BT, torch.where(chosen_BT, boost, 1.0).double(), 0.0)


@TOKEN_WEIGHTS.register(
    "attention_coupled",
    paper="Attention Illuminates LLM Reasoning (coupled credit) 2025, arXiv:2510.13554; "
    "reconstructed in part",
    traits={"only_positive": True},
    share=0.4,
    boost=1.5,
    moved=0.5,
    back=3,
    window=10,
    near=10,
    far=50,
)
def attention_coupled(
    local_BTT: Tensor,
    global_BTT: Tensor,
    mask_BT: Tensor,
    *,
    share: float,
    boost: float,
    moved: float,
    back: int,
    window: int,
    near: int,
    far: int,
) -> Tensor:
    """``boost`` on anchors, part of which a dominated anchor gives to the token that introduced it.

        anchor      weight boost                                        chosen as in ``attention``
        dominated   an anchor with WAAD <= the response's median WAAD and a preplan token among the
                    ``back`` tokens before it: weight boost - moved * (boost - 1)
        introducer  the nearest such preplan token: + moved * (boost - 1) for each anchor it has

    Args: local_BTT, global_BTT, mask_BT, share, boost, window, near, far: as ``attention``.
        moved: share of the boost that moves, in [0, 1].
        back: how many tokens back an introducer may stand, >= 1.
    Returns: weight_BT float64, 0 outside the mask.
    Raises: TypeError, ValueError: a shape, dtype or option is off.
    Source: arXiv:2510.13554, eq. 9-16, which state neither ``moved`` nor the bound on WAAD: 0.5 and
        the median are third-party code's.
    """
    if not 0 <= moved <= 1:
        raise ValueError(f"moved is {moved!r}, expected a number in [0, 1]")
    if back < 1:
        raise ValueError(f"back is {back!r}, expected >= 1")
    boosted = partial(attention, share=share, boost=boost, window=window, near=near, far=far)
    weight_BT = boosted(local_BTT, global_BTT, mask_BT, anchors="global")
    planned_BT = boosted(local_BTT, global_BTT, mask_BT, anchors="local") > 1
    distance_BT = backward_distance(local_BTT, mask_BT, window=window)
    part = moved * (boost - 1)
    for b, t in (weight_BT > 1).nonzero().tolist():
        here_T = distance_BT[b][mask_BT[b]]
        before_T = planned_BT[b, max(t - back, 0) : t].nonzero()[:, 0]
        if len(before_T) and distance_BT[b, t] <= here_T.quantile(0.5):
            weight_BT[b, t] -= part
            weight_BT[b, max(t - back, 0) + before_T[-1]] += part
    return weight_BT


def backward_distance(local_BTT: Tensor, mask_BT: Tensor, *, window: int) -> Tensor:
    """How far back each token looks (WAAD): sum_s attention[t, s] * min(t - s, window); [B, T].

    A drop marks a token at which a new stretch begins. Positions are those of the response, so
    that tokens outside the mask take up distance though they are not read.
    """
    if window < 1:
        raise ValueError(f"window is {window!r}, expected >= 1")
    map_BTT = _read(local_BTT, mask_BT)
    place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    back_TT = (place_T[:, None] - place_T).clamp(0, window)
    return (map_BTT * back_TT).sum(-1)


def distance_change(distance_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """|WAAD_t - WAAD_{t+1}|, with t + 1 the next token under the mask; 0 for the last; [B, T]."""
    change_BT = torch.zeros_like(distance_BT)
    for b in range(len(mask_BT)):
        place = mask_BT[b].nonzero()[:, 0]
        change_BT[b, place[:-1]] = distance_BT[b, place].diff().abs()
    return change_BT


def future_influence(global_BTT: Tensor, mask_BT: Tensor, *, near: int, far: int) -> Tensor:
    """How much later tokens look back to each (FAI), float64 [B, T].

        FAI_s = mean of attention[t, s] over the tokens t with s + near <= t <= s + far

    0 where there is none: the last ``near`` tokens of a response can be no anchors.
    """
    if not 1 <= near <= far:
        raise ValueError(f"near is {near!r} and far {far!r}, expected 1 <= near <= far")
    map_BTT = _read(global_BTT, mask_BT)
    place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    ahead_TT = place_T[:, None] - place_T
    there_BTT = ((ahead_TT >= near) & (ahead_TT <= far)) & mask_BT[:, :, None]
    total_BT = torch.where(there_BTT, map_BTT, 0.0).sum(1)
    return torch.where(mask_BT, total_BT / there_BTT.sum(1).clamp(min=1), 0.0)


def far_and_near_heads(map_HTT: Tensor, *, share: float) -> tuple[Tensor, Tensor]:
    """Indices of the heads that look nearest and of those that look farthest back.

        distance of a head = mean over t of sum_s attention[t, s] * (t - s)

    Args: map_HTT: one response's maps, without padding; the paper takes five layers evenly spaced
        in the middle third.
        share: of the heads on each side, in (0, 1]; the paper takes 0.3. At least one head.
    Returns: local_H, global_H int64; each sorted by distance from its end.
    Source: arXiv:2510.13554.
    """
    check_share("share", share)
    place_T = torch.arange(map_HTT.shape[-1], device=map_HTT.device)
    back_TT = (place_T[:, None] - place_T).clamp(min=0)
    distances = [(head.double() * back_TT).sum(-1).mean() for head in map_HTT.detach()]
    distance_H = torch.stack(distances)  # head by head: maps are large, in float64 twice as much
    order_H = distance_H.argsort(stable=True)
    count = max(1, round(share * len(order_H)))
    return order_H[:count], order_H.flip(0)[:count]


def credited(adv_BT: Tensor, weight_BT: Tensor) -> Tensor:
    """weight * advantage where the advantage is >= 0, the advantage itself where it is negative."""
    return torch.where(adv_BT >= 0, weight_BT * adv_BT, adv_BT)


def _read(map_BTT: Tensor, mask_BT: Tensor) -> Tensor:
    check_mask(mask_BT)
    if map_BTT.shape != (*mask_BT.shape, mask_BT.shape[1]):
        raise ValueError(
            f"the attention map has shape {tuple(map_BTT.shape)}, expected "
            f"{(*mask_BT.shape, mask_BT.shape[1])}; response tokens only"
        )
    there_BTT = mask_BT[:, :, None] & mask_BT[:, None, :]
    return torch.where(there_BTT, map_BTT.detach().double(), 0.0)


def _top(value_BT: Tensor, mask_BT: Tensor, share: float) -> Tensor:
    """bool [B, T]: each row's ceil(share * tokens) largest values above 0."""
    ranked_BT = torch.where(mask_BT, value_BT, -1.0).argsort(dim=1, descending=True, stable=True)
    num_B1 = torch.ceil(share * mask_BT.sum(1, keepdim=True).double() - 1e-9)
    first_BT = torch.arange(mask_BT.shape[1], device=mask_BT.device) < num_B1
    return torch.zeros_like(mask_BT).scatter(1, ranked_BT, first_BT) & mask_BT & (value_BT > 0)
