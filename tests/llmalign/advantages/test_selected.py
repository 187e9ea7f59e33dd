import pytest
import torch

from llmalign.advantages.selected import (
    best_of_batch,
    best_of_group,
    is_best_of_batch,
    is_best_of_group,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("rewards", "groups", "kept"),
    [
        ([0.1, 0.7, 0.3], [0, 0, 0], [1]),
        ([0.5, 0.9, 0.9, 0.1], [0, 0, 0, 0], [1]),
        ([0.1, 0.7, 0.8, 0.3], [3, 1, 3, 1], [1, 2]),
        ([0.4, 0.4, 0.4], [0, 0, 0], []),
        ([0.4], [0], []),
        ([NAN, 0.2, 0.1], [0, 0, 0], [1]),
        ([NAN, 0.2], [0, 0], []),
        ([NAN, NAN], [0, 0], []),
        ([], [], []),
    ],
    ids=["best", "first of equals", "by group", "all equal", "alone", "nan", "one scored", "none",
         "empty"],
)  # fmt: skip
def test_the_best_of_each_group(rewards: list[float], groups: list[int], kept: list[int]) -> None:
    found = is_best_of_group(torch.tensor(rewards), torch.tensor(groups, dtype=torch.int64))
    assert found.nonzero()[:, 0].tolist() == kept


@pytest.mark.parametrize(
    ("rewards", "count", "kept"),
    [
        ([0.1, 0.9, 0.9, 0.5], 1, [1]),
        ([0.1, 0.9, 0.9, 0.5], 3, [1, 2, 3]),
        ([NAN, 0.9, NAN, -0.5], 3, [1, 3]),
        ([0.3], 5, [0]),
    ],
)
def test_the_best_of_a_batch(rewards: list[float], count: int, kept: list[int]) -> None:
    found = is_best_of_batch(torch.tensor(rewards), num_kept=count)
    assert found.nonzero()[:, 0].tolist() == kept


def test_wrong_arguments_are_named() -> None:
    reward = torch.zeros(3)
    with pytest.raises(ValueError, match="num_kept is 0, expected > 0"):
        is_best_of_batch(reward, num_kept=0)
    with pytest.raises(ValueError, match=r"group_B has shape \(2,\), expected \(3,\)"):
        is_best_of_group(reward, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(TypeError, match="group_B has dtype torch.float32"):
        is_best_of_group(reward, reward)
    with pytest.raises(ValueError, match=r"reward_B is torch.int64 of shape \(3,\)"):
        is_best_of_batch(reward.long(), num_kept=1)


def test_the_best_have_advantage_one_and_nobody_else() -> None:
    reward_B = torch.tensor([0.1, 0.7, 0.3, float("nan"), 0.5, 0.9], dtype=torch.float64)
    group_B = torch.tensor([0, 0, 0, 1, 1, 1])
    mask_BT = torch.tensor([[True, True], [True, False]] * 3)
    penalty_BT = torch.zeros(6, 2, dtype=torch.float64)
    found = best_of_group(reward_B, group_B, mask_BT, penalty_BT)
    assert found.sum(1).tolist() == [0, 1, 0, 0, 0, 1]
    found = best_of_batch(reward_B, group_B, mask_BT, penalty_BT, share=0.6)
    assert found.any(1).tolist() == [False, True, False, False, True, True]
    penalty_BT[5, 0] = -0.8  # what a token cost counts
    found = best_of_group(reward_B, group_B, mask_BT, penalty_BT)
    assert found.any(1).tolist() == [False, True, False, False, True, False]
    with pytest.raises(ValueError, match="share is 0"):
        best_of_batch(reward_B, group_B, mask_BT, penalty_BT, share=0)
