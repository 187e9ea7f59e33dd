import math

import pytest
import torch
from torch import Tensor

from llmalign.advantages import batch_whitened
from llmalign.advantages.batch_whitened import discounted_returns

NAN = float("nan")
DEFAULT = {"gamma": 1.0, "eps": 1e-8, "baseline": "none"}


def advantage(rewards: list[float], mask: list[list[int]], penalty=None, group=None, **options):
    mask_BT = torch.tensor(mask) > 0
    penalty_BT = torch.zeros(mask_BT.shape) if penalty is None else torch.tensor(penalty)
    group_B = torch.zeros(len(rewards), dtype=torch.int64) if group is None else torch.tensor(group)
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    return batch_whitened(reward_B, group_B, mask_BT, penalty_BT, **{**DEFAULT, **options})


def test_two_tokens_by_hand() -> None:
    # returns 1 and 0: mean 0.5, unbiased variance 0.5, A = +-0.5 / sqrt(0.5 + 1e-8) = +-0.7071068
    assert advantage([1.0, 0.0], [[1], [1]]).flatten().tolist() == pytest.approx(
        [0.7071067741, -0.7071067741], abs=1e-9
    )


def oracle(rewards, mask, penalty, gamma: float, eps: float) -> list[list[float]]:
    returns = []
    for reward, mask_T, penalty_T in zip(rewards, mask, penalty, strict=True):
        own = [p for p, m in zip(penalty_T, mask_T, strict=True) if m]
        if own:
            own[-1] += reward
        later = [
            sum(gamma ** (s - t) * own[s] for s in range(t, len(own))) for t in range(len(own))
        ]
        returns.append([] if math.isnan(reward) else later)
    flat = [g for row in returns for g in row]
    mean = sum(flat) / len(flat)
    variance = sum((g - mean) ** 2 for g in flat) / (len(flat) - 1)
    found = []
    for row, mask_T in zip(returns, mask, strict=True):
        left = iter(row)
        found.append(
            [(next(left) - mean) / math.sqrt(variance + eps) if m and row else 0.0 for m in mask_T]
        )
    return found


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
def test_agrees_with_plain_python(gamma: float) -> None:
    rewards = [1.0, 0.0, NAN, 0.5, 0.25]
    mask = [[1, 1, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]]
    penalty = [
        [0.1, -0.2, 0.3, 9.0],
        [0.5, 9.0, 9.0, -0.1],
        [7.0] * 4,
        [9.0, 0.2, 0.0, 9.0],
        [9.0] * 4,
    ]
    penalty = [[float(torch.tensor(p)) for p in row] for row in penalty]  # as float32 holds them
    found = advantage(rewards, mask, penalty, gamma=gamma).tolist()
    expected = oracle(rewards, mask, penalty, gamma, 1e-8)
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def returns(token: list[float], mask: list[int], gamma: float) -> Tensor:
    mask_BT = torch.tensor([mask]) > 0
    return discounted_returns(torch.tensor([token]), mask_BT, gamma=gamma)[0]


def test_time_does_not_pass_outside_the_mask() -> None:
    # The tool's two tokens in the middle neither end the return nor discount it.
    assert returns([0.0, 0.0, 0.0, 1.0], [1, 0, 0, 1], 0.5).tolist() == [0.5, 0.0, 0.0, 1.0]
    assert returns([0.0, 1.0], [1, 1], 0.5).tolist() == [0.5, 1.0]


def test_equal_returns_have_advantage_exactly_zero() -> None:
    assert advantage([0.1, 0.1, 0.1], [[1, 1], [1, 0], [1, 1]]).abs().max() == 0


def test_the_group_baseline_leaves_the_reward_but_not_the_penalty() -> None:
    # Centred rewards of the groups: +-0.5 and, alone in its group, the raw 2. Returns with the
    # penalty 0.25 on the first token of the first row: 0.75, 0.5 | -0.5 | 2; mean 0.6875,
    # variance (0.0625^2 + 0.1875^2 + 1.1875^2 + 1.3125^2) / 3 = 3.171875 / 3 = 1.0572917
    adv_BT = advantage(
        [1.0, 0.0, 2.0],
        [[1, 1], [1, 0], [1, 0]],
        [[0.25, 0.0], [0.0, 0.0], [0.0, 0.0]],
        [0, 0, 1],
        baseline="group",
    )
    std = math.sqrt(3.171875 / 3 + 1e-8)
    expected = [[0.0625 / std, -0.1875 / std], [-1.1875 / std, 0.0], [1.3125 / std, 0.0]]
    for row, wanted in zip(adv_BT.tolist(), expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("rewards", "mask", "count"),
    [
        pytest.param([1.0], [[1, 0]], 1, id="one token"),
        pytest.param([1.0, 0.0], [[0], [0]], 0, id="no token"),
        pytest.param([1.0, NAN], [[1], [1]], 1, id="the other token is of an unscored sample"),
    ],
)
def test_too_few_tokens_are_refused(
    rewards: list[float], mask: list[list[int]], count: int
) -> None:
    with pytest.raises(ValueError, match=f"mask_BT leaves {count} tokens .* expected at least 2"):
        advantage(rewards, mask)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"gamma": 1.1}, r"gamma is 1.1, expected a number in \[0, 1\]"),
        ({"eps": 0.0}, "eps is 0.0, expected > 0"),
        ({"baseline": "value"}, "baseline is 'value', expected 'none' or 'group'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advantage([0.0, 1.0], [[1], [1]], **option)
