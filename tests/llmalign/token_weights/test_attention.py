import math

import pytest
import torch

from llmalign.token_weights import (
    attention,
    attention_coupled,
    backward_distance,
    credited,
    distance_change,
    far_and_near_heads,
    future_influence,
)

NAN = math.nan
MASK = torch.tensor([[True, True, False, True, True, True], [True, True, True, True, False, False]])
OPTIONS = {"share": 0.4, "boost": 1.5, "window": 2, "near": 1, "far": 3}


def maps(seed: int) -> torch.Tensor:
    """Attention among the tokens under the mask, NaN elsewhere."""
    logits = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(seed)).double() * 2
    there = MASK[:, :, None] & MASK[:, None, :] & torch.ones(6, 6, dtype=torch.bool).tril()
    weight = logits.masked_fill(~there, -math.inf).softmax(-1)
    return torch.where(MASK[:, :, None] & MASK[:, None, :], weight, NAN)


LOCAL, GLOBAL = maps(0), maps(1)


def test_signals_agree_with_plain_python_and_read_nothing_under_the_mask() -> None:
    waad_BT = backward_distance(LOCAL, MASK, window=2)
    fai_BT = future_influence(GLOBAL, MASK, near=1, far=3)
    change_BT = distance_change(waad_BT, MASK)
    for b in range(2):
        place = [t for t in range(6) if MASK[b, t]]
        waad = {t: sum(float(LOCAL[b, t, s]) * min(max(t - s, 0), 2) for s in place) for t in place}
        for i, t in enumerate(place):
            assert float(waad_BT[b, t]) == pytest.approx(waad[t])
            later = abs(waad[t] - waad[place[i + 1]]) if i + 1 < len(place) else 0.0
            assert float(change_BT[b, t]) == pytest.approx(later)
            seen = [float(GLOBAL[b, u, t]) for u in place if t + 1 <= u <= t + 3]
            expected = sum(seen) / len(seen) if seen else 0.0
            assert float(fai_BT[b, t]) == pytest.approx(expected)
    for found_BT in (waad_BT, fai_BT, change_BT):
        assert (found_BT[~MASK] == 0).all()


@pytest.mark.parametrize("anchors", ["local", "global", "both"])
def test_the_top_share_is_boosted(anchors: str) -> None:
    weight_BT = attention(LOCAL, GLOBAL, MASK, anchors=anchors, **OPTIONS)
    fai_BT = future_influence(GLOBAL, MASK, near=1, far=3)
    change_BT = distance_change(backward_distance(LOCAL, MASK, window=2), MASK)
    for b in range(2):
        chosen = set()
        for value_BT, other in ((change_BT, "global"), (fai_BT, "local")):
            if anchors != other:
                order = sorted(
                    (t for t in range(6) if MASK[b, t]), key=lambda t: -float(value_BT[b, t])
                )
                chosen |= set(order[:2])  # ceil(0.4 * 5) and ceil(0.4 * 4)
        expected = [(1.5 if t in chosen else 1.0) * bool(MASK[b, t]) for t in range(6)]
        assert weight_BT[b].tolist() == expected


def test_a_short_answer_has_no_anchor() -> None:
    weight_BT = attention(
        LOCAL, GLOBAL, MASK, anchors="global", share=0.4, boost=1.5, window=10, near=10, far=50
    )
    assert torch.equal(weight_BT, MASK.double())


def test_a_dominated_anchor_gives_to_the_token_that_introduced_it() -> None:
    # WAAD 0, 1, 0, 0: changes 1, 1, 0, 0; token 0 is the preplan token. FAI with horizon 1: 0.2,
    # 0.1, 0.9: token 2 is the anchor, its WAAD 0 is the median, token 1 would introduce it.
    local_BTT = torch.eye(4).double()[None].clone()
    local_BTT[0, 1] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    global_BTT = torch.zeros(1, 4, 4).double()
    global_BTT[0, 1, 0], global_BTT[0, 2, 1], global_BTT[0, 3, 2] = 0.2, 0.1, 0.9
    mask_BT = torch.ones(1, 4, dtype=torch.bool)
    options = {"boost": 1.5, "window": 10, "near": 1, "far": 1}
    inputs = local_BTT, global_BTT, mask_BT
    one = attention_coupled(*inputs, **options, share=0.25, moved=0.5, back=2)
    assert one.tolist() == [[1.25, 1.0, 1.25, 1.0]]
    assert attention_coupled(*inputs, **options, share=0.25, moved=0.5, back=1).tolist() == [
        [1.0, 1.0, 1.5, 1.0]
    ]
    # With half of the tokens, 0 and 1 are preplan tokens and 0 and 2 anchors; 1 stands nearer to 2.
    two = attention_coupled(*inputs, **options, share=0.5, moved=1.0, back=2)
    assert two.tolist() == [[1.5, 1.5, 1.0, 1.0]]


def test_heads_are_ranked_by_how_far_back_they_look() -> None:
    near, far = torch.eye(4), torch.zeros(4, 4)
    far[:, 0] = 1.0
    map_HTT = torch.stack([(1 - w) * near + w * far for w in (0.5, 0.0, 1.0, 0.25)])
    local_H, global_H = far_and_near_heads(map_HTT, share=0.5)
    assert local_H.tolist() == [1, 3] and global_H.tolist() == [2, 0]


def test_a_negative_advantage_is_left_as_it_is() -> None:
    adv_BT, weight_BT = torch.tensor([[2.0, -2.0, 0.0]]), torch.tensor([[1.5, 1.5, 1.0]])
    assert credited(adv_BT, weight_BT).tolist() == [[3.0, -2.0, 0.0]]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"share": 0.0}, "share is 0.0"),
        ({"boost": 0.5}, "boost is 0.5, expected >= 1"),
        ({"anchors": "all"}, "anchors is 'all', expected 'local', 'global' or 'both'"),
        ({"window": 0}, "window is 0, expected >= 1"),
        ({"near": 4}, "near is 4 and far 3, expected 1 <= near <= far"),
    ],
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(LOCAL, GLOBAL, MASK, **{**OPTIONS, "anchors": "both", **option})


@pytest.mark.parametrize(
    ("option", "message"),
    [({"moved": 1.5}, "moved is 1.5"), ({"back": 0}, "back is 0, expected >= 1")],
)
def test_a_wrong_option_of_the_coupled_form_is_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention_coupled(LOCAL, GLOBAL, MASK, **{**OPTIONS, "moved": 0.5, "back": 3, **option})


def test_a_map_that_holds_the_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the attention map has shape \(2, 6, 9\)"):
        backward_distance(torch.zeros(2, 6, 9), MASK, window=2)
