import statistics

import pytest
import torch

from llmalign.advantages import anchored

OPTIONS = {"weight": 0.1, "form": "sum", "eps": 1e-6, "ddof": 0, "lone": "zero"}


def advantage(rewards: list[float], groups: list[int], **options) -> list[float]:
    mask_BT = torch.ones(len(rewards), 1, dtype=torch.bool)
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    inputs = reward_B, torch.tensor(groups), mask_BT, torch.zeros(len(rewards), 1)
    return anchored(*inputs, **{**OPTIONS, **options})[:, 0].tolist()


def test_two_samples_by_hand() -> None:
    # mean 0.5, std (ddof 0) 0.5: z = +-0.5 / 0.500001 = +-0.999998; and 0.1 * 1 on top
    assert advantage([1.0, 0.0], [0, 0]) == pytest.approx([1.099998, -0.999998], abs=1e-9)


@pytest.mark.parametrize("form", ["sum", "quotient"])
def test_agrees_with_plain_python(form: str) -> None:
    rewards, groups = [1.0, 0.2, 0.3, -2.0, 0.5, 0.1], [0, 0, 0, 1, 1, 1]
    expected = []
    for reward, index in zip(rewards, groups, strict=True):
        members = [r for r, g in zip(rewards, groups, strict=True) if g == index]
        centred, std = reward - statistics.mean(members), statistics.pstdev(members)
        share = 1.0 if form == "sum" else std / (std + 1e-3)
        expected.append(centred / (std + 1e-3) + 0.25 * share * reward)
    found = advantage(rewards, groups, form=form, eps=1e-3, weight=0.25)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("form", "expected"), [("sum", 0.1 * 0.3), ("quotient", 0.0)])
def test_equal_rewards_leave_the_share_of_the_reward(form: str, expected: float) -> None:
    # The float mean of seven times 0.3 is not 0.3.
    assert advantage([0.3] * 7, [0] * 7, form=form) == [expected] * 7


@pytest.mark.parametrize(("lone", "z"), [("zero", 0.0), ("keep", 0.7 / (1 + 1e-6))])
def test_a_sample_without_a_companion(lone: str, z: float) -> None:
    assert advantage([0.7], [0], lone=lone) == pytest.approx([z + 0.1 * 0.7], rel=1e-12)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"weight": -0.1}, "weight is -0.1, expected >= 0"),
        ({"form": "product"}, "form is 'product', expected 'sum' or 'quotient'"),
        ({"eps": 0.0}, "eps is 0.0, expected > 0"),
        ({"ddof": 2}, "ddof is 2, expected 0 or 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advantage([0.0, 1.0], [0, 0], **option)
