import pytest
import torch

from llmalign.advantages import opo


def advantage(rewards: list[float], lengths: list[int], lone: str = "zero") -> list[float]:
    mask_BT = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    group_B = torch.zeros(len(rewards), dtype=torch.int64)
    return opo(reward_B, group_B, mask_BT, torch.zeros(mask_BT.shape), lone=lone)[:, 0].tolist()


def test_the_baseline_weighs_by_length() -> None:
    # (3 * 1 + 1 * 0) / 4 = 0.75
    assert advantage([1.0, 0.0], [3, 1]) == [0.25, -0.75]


def test_a_sample_without_tokens_has_no_say() -> None:
    assert advantage([1.0, 0.0, 8.0], [2, 2, 0]) == [0.5, -0.5, 0.0]


def test_equal_rewards_have_advantage_exactly_zero() -> None:
    assert advantage([0.1] * 7, [1, 2, 3, 4, 5, 6, 7]) == [0.0] * 7


@pytest.mark.parametrize(("lone", "expected"), [("zero", 0.0), ("keep", 0.7)])
def test_a_sample_without_a_companion(lone: str, expected: float) -> None:
    assert advantage([0.7], [3], lone) == [expected]
