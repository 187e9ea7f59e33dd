import math
import statistics

import pytest
import torch

from llmalign.advantages import antisymmetric, both_orders, brpo, group, pairwise_wins

NAN = math.nan
GROUP = torch.tensor([0, 0, 0, 1, 1])
MASK = torch.tensor([[True, False]] * 5)


def test_both_orders_are_averaged() -> None:
    judged_BB = torch.tensor([[NAN, 1.0, NAN], [0.5, NAN, NAN], [2.0, NAN, NAN]])
    # (1 - 0.5) / 2; only (2, 0) was judged of that pair; nobody judged 1 against 2
    assert antisymmetric(judged_BB).tolist() == [
        [0.0, 0.25, -2.0], [-0.25, 0.0, 0.0], [2.0, 0.0, 0.0]
    ]  # fmt: skip


def test_an_anchor_is_beaten_as_surely_as_both_orders_say() -> None:
    first_B, second_B = torch.tensor([0.8, 0.8, NAN]), torch.tensor([0.6, NAN, NAN])
    found = both_orders(first_B, second_B, torch.tensor([False, False, True])).tolist()
    assert found[0] == pytest.approx(0.7) and math.isnan(found[1]) and found[2] == 0.5
    with pytest.raises(ValueError, match="p_second_B holds 1.5, expected values in"):
        both_orders(first_B[:1], torch.tensor([1.5]))


REFERENCE = torch.tensor([True, False, False, False, True])
MARGIN = torch.tensor([[NAN, NAN], [1.0, 0.5], [1.0, 0.0], [2.0, NAN], [9.0, 9.0]])


def test_a_sample_beats_the_reference_in_every_judgement_or_loses() -> None:
    # group 0: reference, win, a tie in one judgement; group 1: unreadable, reference
    adv_BT = brpo(MARGIN, REFERENCE, GROUP, MASK, max_skew=0.6)
    assert adv_BT.tolist() == [[0, 0], [1, 0], [-1, 0], [-1, 0], [0, 0]]


@pytest.mark.parametrize(("max_skew", "kept"), [(0.5, True), (0.49, False)])
def test_a_group_that_all_points_one_way_is_left_out(max_skew: float, kept: bool) -> None:
    # group 1: |-1 + 0| / 2 = 0.5
    adv_BT = brpo(MARGIN, REFERENCE, GROUP, MASK, max_skew=max_skew)
    assert adv_BT[1, 0] == 1 and adv_BT[3, 0] == (-1 if kept else 0)


def loop(margin: list[list[float]], groups: list[int], eps: float) -> list[float]:
    found = []
    for i, index in enumerate(groups):
        members = [j for j, g in enumerate(groups) if g == index]
        size = len(members)
        square = sum(margin[a][b] ** 2 for a in members for b in members)
        if size == 1:
            found.append(0.0)
            continue
        scale = math.sqrt(square / (2 * size * (size - 1)) + eps)
        found.append(sum(margin[i][j] for j in members) / size / scale)
    return found


def test_wins_agree_with_plain_python_and_need_not_be_transitive() -> None:
    margin = [
        [0.0, 1.0, -2.0, 5.0, 5.0], [-1.0, 0.0, 3.0, 5.0, 5.0], [2.0, -3.0, 0.0, 5.0, 5.0],
        [5.0, 5.0, 5.0, 0.0, 0.5], [5.0, 5.0, 5.0, -0.5, 0.0],
    ]  # fmt: skip
    found_BT = pairwise_wins(torch.tensor(margin).double(), GROUP, MASK, eps=1e-6)
    assert found_BT[:, 0].tolist() == pytest.approx(loop(margin, GROUP.tolist(), 1e-6))
    assert (found_BT[:, 1] == 0).all()


def test_differences_of_rewards_are_the_group_advantage() -> None:
    reward_B = torch.tensor([1.0, 2.0, 4.0, 0.5, 0.75], dtype=torch.float64)
    found_BT = pairwise_wins(reward_B[:, None] - reward_B, GROUP, MASK, eps=1e-12)
    expected_BT = group(
        reward_B, GROUP, MASK, torch.zeros(5, 2), scale="std", eps=1e-12, ddof=1, lone="zero"
    )
    assert torch.allclose(found_BT, expected_BT, rtol=1e-9)
    assert found_BT[0, 0] == pytest.approx((1 - 7 / 3) / statistics.stdev([1, 2, 4]), rel=1e-9)


def test_a_lone_sample_and_a_group_of_ties_have_nothing() -> None:
    margin_BB = torch.full((3, 3), NAN)
    alone_BT = pairwise_wins(margin_BB, torch.tensor([0, 1, 1]), MASK[:3], eps=1e-6)
    assert alone_BT.abs().max() == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: pairwise_wins(torch.ones(5, 5), GROUP, MASK, eps=1e-6),
            ValueError,
            "margin_BB is not antisymmetric, off by 2",
        ),
        (
            lambda: pairwise_wins(torch.ones(5, 4), GROUP, MASK, eps=1e-6),
            ValueError,
            r"margin_BB has shape \(5, 4\), expected \(5, 5\)",
        ),
        (lambda: pairwise_wins(torch.zeros(5, 5), GROUP, MASK, eps=0.0), ValueError, "eps is 0.0"),
        (lambda: brpo(MARGIN, REFERENCE, GROUP, MASK, max_skew=2.0), ValueError, "max_skew is 2.0"),
        (
            lambda: brpo(MARGIN, ~REFERENCE, GROUP, MASK, max_skew=0.6),
            ValueError,
            "group 0 has 2 references, expected 1",
        ),
        (
            lambda: brpo(MARGIN, REFERENCE.double(), GROUP, MASK, max_skew=0.6),
            TypeError,
            "reference_B is torch.float64",
        ),
        (
            lambda: brpo(MARGIN[0], REFERENCE, GROUP, MASK, max_skew=0.6),
            ValueError,
            r"margin_BJ has shape \(2,\), expected \(5, J\)",
        ),
    ],
)
def test_a_wrong_input_is_named(call, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
