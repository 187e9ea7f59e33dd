import torch

from llmalign.advantages import gpg

NAN = float("nan")


def advantage(rewards: list[float], groups: list[int], lone: str = "zero") -> list[float]:
    mask_BT = torch.ones(len(rewards), 1, dtype=torch.bool)
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    penalty_BT = torch.zeros(len(rewards), 1)
    return gpg(reward_B, torch.tensor(groups), mask_BT, penalty_BT, lone=lone)[:, 0].tolist()


def test_the_scale_is_batch_over_rewarded_samples() -> None:
    # Four scored, one rewarded: alpha 4; centred +-0.5 and 0.
    assert advantage([1.0, 0.0, 0.0, 0.0, NAN], [0, 0, 1, 1, 1]) == [2.0, -2.0, 0.0, 0.0, 0.0]


def test_a_batch_without_reward_has_advantage_zero() -> None:
    assert advantage([0.0, 0.0], [0, 0]) == [0.0, 0.0]


def test_a_sample_without_a_companion_keeps_its_reward_on_demand() -> None:
    # alpha = 2 / 1
    assert advantage([1.0, 0.0], [0, 1], "keep") == [2.0, 0.0]
