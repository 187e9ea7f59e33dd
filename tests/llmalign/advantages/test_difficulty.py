import math

import pytest
import torch

from llmalign.advantages import group, grpo_s
from llmalign.advantages.difficulty import difficulty

NAN = math.nan


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("boosts", ["small", "large"])
def test_agrees_with_plain_python(boosts: str) -> None:
    delta, gap = [0.1, 0.4, 0.8], [2.0, 0.5, -0.2]
    found = difficulty(torch.tensor(delta).double(), torch.tensor(gap).double(), boosts=boosts)
    for alpha, d, g in zip(found.tolist(), delta, gap, strict=True):
        ratio = sigmoid(g) / sigmoid(sum(gap) / 3)
        expected = (
            sigmoid(d) / sigmoid(sum(delta) / 3) * (ratio if boosts == "large" else 1 / ratio)
        )
        assert alpha == pytest.approx(expected, rel=1e-6)


def test_what_is_not_known_leaves_the_mean_and_weighs_one() -> None:
    delta_B = torch.tensor([0.2, NAN, 0.2]).double()
    gap_B = torch.tensor([1.0, 1.0, NAN]).double()
    assert difficulty(delta_B, gap_B, boosts="small").tolist() == pytest.approx([1.0] * 3)


def test_the_advantage_is_the_groups_times_the_difficulty() -> None:
    inputs = (
        torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0, 0, 0]),
        torch.tensor([[True, False]] * 3), torch.full((3, 2), NAN).nan_to_num(),
    )  # fmt: skip
    delta_B, gap_B = torch.tensor([0.1, 0.4, 0.8]), torch.tensor([2.0, 0.5, -0.2])
    found_BT = grpo_s(*inputs, delta_B, gap_B, boosts="small", eps=1e-6, ddof=1)
    z_BT = group(*inputs, scale="std", eps=1e-6, ddof=1, lone="zero")
    alpha_B = difficulty(delta_B, gap_B, boosts="small")
    assert torch.equal(found_BT, alpha_B[:, None] * z_BT)
    with pytest.raises(ValueError, match=r"delta_B has shape \(2,\), expected \(3,\)"):
        grpo_s(*inputs, delta_B[:2], gap_B[:2], boosts="small", eps=1e-6, ddof=1)


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ValueError, match="boosts is 'both', expected 'small' or 'large'"):
        difficulty(torch.zeros(2), torch.zeros(2), boosts="both")
    with pytest.raises(ValueError, match=r"gap_B has shape \(3,\), expected \(2,\)"):
        difficulty(torch.zeros(2), torch.zeros(3), boosts="small")
