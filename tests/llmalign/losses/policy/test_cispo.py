import math

import pytest
import torch
from torch import Tensor

from llmalign.losses.policy.cispo import cispo

NAN = float("nan")
DISTANCE = {"bounds": "distance", "clip_low": 0.2, "clip_high": 0.28}
NO_LOW = {"bounds": "distance", "clip_low": None, "clip_high": 0.28}
CEILING = {"bounds": "ceiling", "clip_low": None, "clip_high": 3.0}


def one_token(rho: float, adv: float, **options) -> tuple[float, float]:
    logp = torch.tensor([[-2.0]], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([[-2.0 - math.log(rho)]], dtype=torch.float64)
    adv_BT = torch.tensor([[adv]], dtype=torch.float64)
    loss, _ = cispo(logp, old, adv_BT, torch.tensor([[True]]), **options)
    loss.sum().backward()
    return loss.item(), logp.grad.item()


@pytest.mark.parametrize(
    ("options", "rho", "adv", "weight"),
    [
        pytest.param(DISTANCE, 1.1, 2.0, 1.1, id="inside"),
        pytest.param(DISTANCE, 4.0, 2.0, 1.28, id="held above, gradient stays"),
        pytest.param(DISTANCE, 0.1, 2.0, 0.8, id="held below"),
        pytest.param(DISTANCE, 4.0, -2.0, 1.28, id="held above where bad, too"),
        pytest.param(NO_LOW, 0.1, 2.0, 0.1, id="no lower bound"),
        pytest.param(CEILING, 0.1, 2.0, 0.1, id="a ceiling has no lower bound"),
        pytest.param(CEILING, 2.9, 2.0, 2.9, id="under the ceiling"),
        pytest.param(CEILING, 4.0, 2.0, 3.0, id="at the ceiling"),
    ],
)
def test_one_token_by_hand(options: dict, rho: float, adv: float, weight: float) -> None:
    # loss = -w A logp with logp = -2, gradient -w A
    loss, grad = one_token(rho, adv, **options)
    assert (loss, grad) == (pytest.approx(2 * weight * adv), pytest.approx(-weight * adv))


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logp, noise, adv = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    return logp, logp - noise, adv, torch.rand(4, 5, generator=generator) < 0.7


@pytest.mark.parametrize("options", [DISTANCE, NO_LOW, CEILING], ids=["distance", "no low", "ceil"])
def test_agrees_with_plain_python(options: dict) -> None:
    logp, old, adv, mask = batch()
    loss, stats = cispo(logp, old, adv, mask, **options)
    low = 0.8 if options["clip_low"] else 0.0
    high = 3.0 if options["bounds"] == "ceiling" else 1.28
    below = above = 0
    for b in range(4):
        for t in range(5):
            if not mask[b, t]:
                assert loss[b, t] == 0
                continue
            rho = math.exp(logp[b, t].item() - old[b, t].item())
            wanted = -min(max(rho, low), high) * adv[b, t].item() * logp[b, t].item()
            assert loss[b, t].item() == pytest.approx(wanted, rel=1e-12)
            below, above = below + (rho < low), above + (rho > high)
    assert (stats.clipped_low, stats.clipped_high) == (below, above)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CEILING | {"clip_high": 0.28}, "clip_high is 0.28, expected >= 1: it is the bound itself"),
        (CEILING | {"clip_high": NAN}, "clip_high is nan"),
        (CEILING | {"clip_low": 0.2}, "clip_low is 0.2, expected None under 'ceiling'"),
        (DISTANCE | {"clip_low": 1.0}, r"clip_low is 1.0, expected a number in \[0, 1\) or None"),
        (DISTANCE | {"clip_high": -1.0}, "clip_high is -1.0, expected >= 0"),
        (DISTANCE | {"bounds": "verl"}, "bounds is 'verl', expected 'distance' or 'ceiling'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_token(1.0, 1.0, **options)
