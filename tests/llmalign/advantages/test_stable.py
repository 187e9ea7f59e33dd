import statistics

import pytest
import torch

from llmalign.advantages import batch_whitened, stable
from llmalign.advantages.stable import standardised, without_outliers

WHITEN = {"gamma": 1.0, "eps": 1e-8, "baseline": "none"}


def inputs(rewards: list[float]) -> tuple[torch.Tensor, ...]:
    group_B = torch.zeros(len(rewards), dtype=torch.int64)
    mask_BT = torch.ones(len(rewards), 1, dtype=torch.bool)
    return torch.tensor(rewards).double(), group_B, mask_BT, torch.zeros(len(rewards), 1)


def test_an_outlier_is_dropped_and_the_rest_stays() -> None:
    rewards = [0.1, -0.1] * 10 + [5.0]
    white_B = batch_whitened(*inputs(rewards), **WHITEN)[:, 0]
    found_B = stable(*inputs(rewards), **WHITEN, bound=3.0)[:, 0]
    assert white_B[-1] > 3 and found_B[-1] == 0
    assert torch.equal(found_B[:-1], white_B[:-1])


def test_ten_samples_have_no_outlier() -> None:
    # One of ten lies (10 - 1) / sqrt(10) = 2.85 deviations off, however large it is.
    rewards = [0.0] * 9 + [1e6]
    white_B = batch_whitened(*inputs(rewards), **WHITEN)
    assert torch.equal(stable(*inputs(rewards), **WHITEN, bound=3.0), white_B)


def test_standardised_agrees_with_plain_python() -> None:
    values = [0.1, 0.5, -0.2, 0.7]
    found = standardised(torch.tensor(values).double(), eps=1e-8).tolist()
    mean, std = statistics.mean(values), statistics.pstdev(values)
    assert found == pytest.approx([(v - mean) / (std + 1e-8) for v in values], rel=1e-6)
    assert standardised(torch.full((7,), 0.1), eps=1e-30).abs().max() == 0


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ValueError, match="bound is 0.0, expected > 0"):
        without_outliers(torch.zeros(2), bound=0.0)
    with pytest.raises(ValueError, match="eps is 0.0, expected > 0"):
        standardised(torch.zeros(2), eps=0.0)
