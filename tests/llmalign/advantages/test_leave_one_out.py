import pytest
import torch

from llmalign.advantages import leave_one_out

NAN = float("nan")


def advantage(rewards: list[float], groups: list[int], lone: str = "zero") -> list[float]:
    mask_BT = torch.ones(len(rewards), 1, dtype=torch.bool)
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    penalty_BT = torch.zeros(len(rewards), 1)
    return leave_one_out(reward_B, torch.tensor(groups), mask_BT, penalty_BT, lone=lone)[
        :, 0
    ].tolist()


def test_three_samples_by_hand() -> None:
    # 1 - (0 + 0.5) / 2 = 0.75; 0 - (1 + 0.5) / 2 = -0.75; 0.5 - (1 + 0) / 2 = 0
    assert advantage([1.0, 0.0, 0.5], [0, 0, 0]) == pytest.approx([0.75, -0.75, 0.0])


def test_agrees_with_a_loop_over_the_others() -> None:
    rewards, groups = [1.0, 0.2, 0.3, NAN, -2.0, 0.5, 0.1], [0, 1, 0, 0, 1, 0, 1]
    expected = []
    for i, (reward, index) in enumerate(zip(rewards, groups, strict=True)):
        others = [
            r
            for j, (r, g) in enumerate(zip(rewards, groups, strict=True))
            if g == index and j != i and r == r
        ]
        expected.append(reward - sum(others) / len(others) if reward == reward else 0.0)
    assert advantage(rewards, groups) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, 1e8 + 0.1])
@pytest.mark.parametrize("size", [3, 6, 7, 10])
def test_equal_rewards_leave_no_residue(value: float, size: int) -> None:
    assert advantage([value] * size, [0] * size) == [0.0] * size


def test_the_trap_is_real() -> None:
    # The naive form, sum of all minus own over n - 1, misses 0.1 for ten equal rewards.
    rewards = [0.1] * 10
    assert 0.1 - (sum(rewards) - 0.1) / 9 != 0


@pytest.mark.parametrize(("lone", "expected"), [("zero", 0.0), ("keep", 0.7)])
def test_a_sample_without_a_companion(lone: str, expected: float) -> None:
    assert advantage([0.7, 1.0, 0.0], [0, 1, 1], lone) == [expected, 1.0, -1.0]


def test_a_wrong_lone_is_named() -> None:
    with pytest.raises(ValueError, match="lone is 'drop', expected 'zero' or 'keep'"):
        advantage([0.7, 1.0], [0, 0], "drop")
