import math

import pytest
import torch

from llmalign.losses.policy.amft import look_ahead_gradient, mixed, next_mu

OPTIONS = {
    "entropy": 0.4,
    "meta_gradient": 2.5,
    "target_entropy": 0.6,
    "meta_lr": 1e-4,
    "entropy_lr": 5e-4,
    "mu_min": 0.05,
    "mu_max": 0.95,
}


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        # 0.8 + 1e-4 * 2.5 + 5e-4 * (0.6 - 0.4)
        pytest.param({}, 0.80035, id="entropy below its target: more imitation"),
        pytest.param({"meta_gradient": math.nan}, 0.8001, id="a NaN gradient is left out"),
        pytest.param({"meta_gradient": 1e6}, 0.95, id="held above"),
        pytest.param({"entropy": 1e6}, 0.05, id="held below"),
    ],
)
def test_one_update_by_hand(option: dict, wanted: float) -> None:
    assert next_mu(0.8, **(OPTIONS | option)) == pytest.approx(wanted, rel=1e-12)


def test_the_mixture_by_hand() -> None:
    rl, sft = (torch.tensor(v, requires_grad=True) for v in (2.0, 4.0))
    loss = mixed(rl, sft, mu=0.75)
    loss.backward()
    assert (loss.item(), rl.grad.item(), sft.grad.item()) == (3.5, 0.25, 0.75)


def test_the_gradient_is_the_derivative_of_one_step_of_descent() -> None:
    # L_val(theta - lr * ((1 - mu) g_rl + mu g_sft)) by mu, for a linear L_val, is exactly it.
    generator = torch.Generator().manual_seed(0)
    val, sft, rl = ([torch.randn(3, generator=generator).double()] for _ in range(3))
    found = look_ahead_gradient(val, sft, rl, lr=0.1)

    def after(mu: float) -> float:
        return float((val[0] * (-0.1 * ((1 - mu) * rl[0] + mu * sft[0]))).sum())

    assert found == pytest.approx((after(0.9) - after(0.1)) / 0.8)


def test_wrong_arguments_are_named() -> None:
    one = torch.tensor(1.0)
    with pytest.raises(ValueError, match=r"mu is 1.1, expected a number in \[0, 1\]"):
        mixed(one, one, mu=1.1)
    with pytest.raises(ValueError, match="mu_min is 0.96 and mu_max is 0.95"):
        next_mu(0.5, **(OPTIONS | {"mu_min": 0.96}))
    with pytest.raises(ValueError, match="lr is 0.0, expected > 0"):
        look_ahead_gradient([one], [one], [one], lr=0.0)
    with pytest.raises(ValueError, match="zip"):
        look_ahead_gradient([one], [one, one], [one], lr=0.1)
