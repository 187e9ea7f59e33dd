import math
import statistics

import pytest
import torch
from torch import Tensor

from llmalign.advantages import group

NAN = float("nan")
TRL = {"scale": "std", "eps": 1e-4, "ddof": 1, "lone": "zero"}
VERL = {"scale": "std", "eps": 1e-6, "ddof": 1, "lone": "keep"}


def advantage(rewards: list[float], groups: list[int], **options) -> Tensor:
    mask_BT = torch.ones(len(rewards), 1, dtype=torch.bool)
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    penalty_BT = torch.zeros(len(rewards), 1)
    return group(reward_B, torch.tensor(groups), mask_BT, penalty_BT, **{**TRL, **options})[:, 0]


def test_two_samples_by_hand() -> None:
    # mean 0.5, deviations +-0.5, std = sqrt((0.25 + 0.25) / 1) = 0.70710678
    # A = 0.5 / (0.70710678 + 0.0001) = 0.70700680
    assert advantage([1.0, 0.0], [0, 0]).tolist() == pytest.approx(
        [0.7070068, -0.7070068], abs=1e-7
    )


REWARDS = [1.0, 0.0, 0.3, 0.3, -2.0, 0.5, 0.7, 0.7, 0.7]
GROUPS = [0, 0, 0, 1, 1, 1, 2, 2, 2]


def oracle(scale: str, eps: float, ddof: int) -> list[float]:
    std = statistics.stdev if ddof else statistics.pstdev
    found = []
    for reward, index in zip(REWARDS, GROUPS, strict=True):
        members = [r for r, g in zip(REWARDS, GROUPS, strict=True) if g == index]
        centred = reward - sum(members) / len(members)
        divisor = {"std": std(members) + eps, "batch_std": std(REWARDS) + eps, "none": 1.0}[scale]
        found.append(0.0 if len(set(members)) == 1 else centred / divisor)
    return found


@pytest.mark.parametrize("scale", ["std", "batch_std", "none"])
@pytest.mark.parametrize(("eps", "ddof"), [(1e-4, 1), (1e-6, 0)])
def test_every_scale_agrees_with_plain_python(scale: str, eps: float, ddof: int) -> None:
    found = advantage(REWARDS, GROUPS, scale=scale, eps=eps, ddof=ddof)
    assert found.tolist() == pytest.approx(oracle(scale, eps, ddof), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("scale", ["std", "batch_std", "none"])
@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, 1 / 3, 1e8 + 0.1])
@pytest.mark.parametrize("size", [3, 6, 7])
def test_equal_rewards_have_advantage_exactly_zero(scale: str, value: float, size: int) -> None:
    # The float mean of [0.1, 0.1, 0.1] is not 0.1. The second group keeps the batch std > 0.
    found = advantage([value] * size + [0.0, 1.0], [0] * size + [1, 1], scale=scale, eps=1e-12)
    assert found[:size].tolist() == [0.0] * size
    assert (found[size:] != 0).all()


def test_equal_float32_rewards_have_advantage_exactly_zero() -> None:
    reward_B = torch.full((7,), 0.3)
    inputs = (
        torch.zeros(7, dtype=torch.int64),
        torch.ones(7, 1, dtype=torch.bool),
        torch.zeros(7, 1),
    )
    assert group(reward_B, *inputs, **TRL).abs().max() == 0


@pytest.mark.parametrize("options", [TRL, VERL], ids=["trl", "verl"])
def test_rounding_noise_between_rewards_is_not_amplified(options: dict) -> None:
    assert 0.1 + 0.2 != 0.3
    found = advantage([0.1 + 0.2, 0.3, 0.3, 0.3], [0] * 4, **options)
    assert found.abs().max() < 1e-9


@pytest.mark.parametrize(
    ("rewards", "scale", "lone", "expected"),
    [
        pytest.param([0.7], "std", "zero", 0.0, id="trl"),
        pytest.param([0.7], "std", "keep", 0.7 / (1 + 1e-6), id="verl"),
        pytest.param([0.7], "none", "keep", 0.7, id="verl without std"),
        pytest.param([0.7], "batch_std", "keep", 0.7 / (1 + 1e-6), id="std of one counts as 1"),
        pytest.param([0.7, NAN], "std", "keep", 0.7 / (1 + 1e-6), id="one of two scored"),
        pytest.param([0.7, NAN], "std", "zero", 0.0, id="one of two scored, trl"),
    ],
)
def test_a_sample_without_a_companion(
    rewards: list[float], scale: str, lone: str, expected: float
) -> None:
    found = advantage(rewards, [0] * len(rewards), scale=scale, eps=1e-6, lone=lone)
    assert found[0].item() == pytest.approx(expected, rel=1e-12)
    assert (found[1:] == 0).all()


def test_penalties_join_the_reward_before_it_is_normalised() -> None:
    # totals 1 - 0.2 - 0.3 = 0.5 and 0.5 + 0.0: equal, so both are 0; without the penalty 0.25 apart
    mask_BT = torch.tensor([[True, True], [True, False]])
    penalty_BT = torch.tensor([[-0.25, -0.25], [0.0, -9.0]])
    reward_B, group_B = torch.tensor([1.0, 0.5]), torch.tensor([0, 0])
    assert group(reward_B, group_B, mask_BT, penalty_BT, **TRL).abs().max() == 0
    none_BT = torch.zeros(2, 2)
    adv_BT = group(reward_B, group_B, mask_BT, none_BT, **{**TRL, "scale": "none"})
    assert adv_BT.tolist() == [[0.25, 0.25], [-0.25, 0.0]]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"eps": 0.0}, "eps is 0.0, expected > 0"),
        ({"eps": math.nan}, "eps is nan, expected > 0"),
        ({"ddof": 2}, "ddof is 2, expected 0 or 1"),
        ({"lone": "drop"}, "lone is 'drop', expected 'zero' or 'keep'"),
        ({"scale": "iqr"}, "scale is 'iqr', expected 'std', 'batch_std' or 'none'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advantage([0.0, 1.0], [0, 0], **option)
