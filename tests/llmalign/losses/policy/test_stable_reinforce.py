import math

import pytest
import torch

from llmalign.losses.policy.clipped import clipped
from llmalign.losses.policy.stable_reinforce import bounded_ratio, stable_reinforce

OPTIONS = {"clip_low": 0.2, "clip_high": 0.2, "ratio_min": 1e-3, "ratio_max": 1e3}


def one_token(log_rho: float, adv: float, **options) -> tuple[float, float]:
    logp = torch.tensor([[log_rho]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    loss, _ = stable_reinforce(logp, zero, zero + adv, zero == 0, **(OPTIONS | options))
    loss.sum().backward()
    return loss.item(), logp.grad.item()


@pytest.mark.parametrize(
    ("log_rho", "adv", "loss", "grad"),
    [
        pytest.param(math.log(1.1), 2.0, -2.2, -2.2, id="inside"),
        pytest.param(math.log(1.5), 2.0, -2.4, 0.0, id="above and good: held at 1.2"),
        pytest.param(math.log(900), -2.0, 1800.0, 1800.0, id="below the pre-clip"),
        pytest.param(8.0, -2.0, 2000.0, 0.0, id="pre-clip: held at 1000"),
        pytest.param(-9.0, 2.0, -0.002, 0.0, id="pre-clip: held at 0.001"),
    ],
)
def test_one_token_by_hand(log_rho: float, adv: float, loss: float, grad: float) -> None:
    found = one_token(log_rho, adv)
    assert found == (pytest.approx(loss), pytest.approx(grad, abs=1e-12))


def test_within_its_bounds_it_is_the_clipped_surrogate() -> None:
    generator = torch.Generator().manual_seed(0)
    logp, old, adv = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 5, generator=generator) < 0.7
    found, stats = stable_reinforce(logp, old, adv, mask, **OPTIONS)
    wanted, wanted_stats = clipped(
        logp, old, adv, mask, clip_low=0.2, clip_high=0.2, dual_clip=None
    )
    assert torch.equal(found, wanted)
    assert vars(stats).items() <= vars(wanted_stats).items()


def test_agrees_with_plain_python() -> None:
    generator = torch.Generator().manual_seed(0)
    logp, old, adv = 5 * torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    loss, _ = stable_reinforce(logp, old, adv, torch.ones(4, 5).bool(), **OPTIONS)
    for b in range(4):
        for t in range(5):
            gap, a = logp[b, t].item() - old[b, t].item(), adv[b, t].item()
            rho = min(max(math.exp(gap), 1e-3), 1e3)
            wanted = -min(rho * a, min(max(rho, 0.8), 1.2) * a)
            assert loss[b, t].item() == pytest.approx(wanted, rel=1e-12)


def test_gradcheck_of_the_bounded_ratio() -> None:
    log_rho = torch.tensor([-9.0, -0.3, 0.0, 2.0, 8.0], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: bounded_ratio(x, ratio_min=1e-3, ratio_max=1e3), log_rho)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"ratio_min": 0.0}, r"ratio_min is 0.0, expected a number in \(0, 1 - clip_low = 0.8\]"),
        ({"ratio_min": 0.9}, "ratio_min is 0.9"),
        ({"ratio_max": 1.1}, r"ratio_max is 1.1, expected >= 1 \+ clip_high = 1.2"),
        ({"clip_low": 1.0}, "clip_low is 1.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_token(0.0, 1.0, **option)
