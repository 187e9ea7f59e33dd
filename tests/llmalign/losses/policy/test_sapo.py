import math

import pytest
import torch
from torch import Tensor

from llmalign.losses.policy.sapo import sapo

TAU = {"tau_pos": 1.0, "tau_neg": 1.05}


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logp, noise, adv = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    return logp, logp - noise, adv, torch.rand(4, 5, generator=generator) < 0.7


def test_one_token_by_hand() -> None:
    # rho 1, A 2, tau 1: loss = -2 * 4 * sigmoid(0) = -4; gradient = -2 * 4 * 0.25 * 1 = -2 = -A
    logp = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 1)
    loss, _ = sapo(logp, zero, zero + 2, zero == 0, **TAU)
    loss.sum().backward()
    assert (loss.item(), logp.grad.item()) == (pytest.approx(-4.0), pytest.approx(-2.0))


def test_agrees_with_plain_python() -> None:
    logp, old, adv, mask = batch()
    loss, _ = sapo(logp, old, adv, mask, tau_pos=0.7, tau_neg=2.0)
    for b in range(4):
        for t in range(5):
            a, rho = adv[b, t].item(), math.exp(logp[b, t].item() - old[b, t].item())
            tau = 0.7 if a > 0 else 2.0
            wanted = -a * 4 / tau / (1 + math.exp(-tau * (rho - 1))) if mask[b, t] else 0.0
            assert loss[b, t].item() == pytest.approx(wanted, rel=1e-12)


def test_gradcheck() -> None:
    logp, old, adv, mask = batch()
    torch.autograd.gradcheck(lambda x: sapo(x, old, adv, mask, **TAU)[0], logp.requires_grad_())


@pytest.mark.parametrize("name", ["tau_pos", "tau_neg"])
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_wrong_option_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}, expected > 0"):
        sapo(*batch(), **(TAU | {name: value}))
