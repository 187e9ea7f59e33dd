import math

import pytest
import torch
from torch import Tensor

from llmalign.losses.policy.gmpo import gmpo

CLIP = {"clip_low": 0.3, "clip_high": 0.4}


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logp, noise, adv = torch.randn(3, 6, 4, generator=generator, dtype=torch.float64)
    mask = torch.arange(4)[None, :] < torch.tensor([4, 3, 2, 1, 0, 4])[:, None]
    mask[0, 1] = False
    return logp, logp - noise, adv, mask


def test_two_tokens_by_hand() -> None:
    # log-ratios 0.6, 0.1 and A = 2: 0.6 is held at 0.4, mean 0.25, s = e^0.25, loss -2 s on both.
    # The row's mean has gradient -2 s / 2 on the token that is not held.
    logp = torch.tensor([[0.6, 0.1]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 2)
    loss, stats = gmpo(logp, zero, zero + 2, zero == 0, **CLIP)
    loss.mean().backward()
    s = math.exp(0.25)
    assert loss[0].tolist() == pytest.approx([-2 * s, -2 * s])
    assert logp.grad[0].tolist() == pytest.approx([0.0, -s])
    assert (stats.clipped_low, stats.clipped_high) == (0, 1)


def test_agrees_with_plain_python() -> None:
    logp, old, adv, mask = batch()
    loss, stats = gmpo(logp, old, adv, mask, **CLIP)
    low = high = 0
    for b in range(6):
        held, advs = [], []
        for t in range(4):
            if not mask[b, t]:
                continue
            a, gap = adv[b, t].item(), logp[b, t].item() - old[b, t].item()
            low, high = low + (a < 0 and gap < -0.3), high + (a > 0 and gap > 0.4)
            held.append(min(gap, 0.4) if a > 0 else max(gap, -0.3))
            advs.append(a)
        n = max(len(held), 1)
        wanted = -sum(advs) / n * math.exp(sum(held) / n)
        for t in range(4):
            assert loss[b, t].item() == pytest.approx(wanted if mask[b, t] else 0.0, rel=1e-12)
    assert low and high and (stats.clipped_low, stats.clipped_high) == (low, high)


def test_gradcheck() -> None:
    logp, old, adv, mask = batch()
    torch.autograd.gradcheck(lambda x: gmpo(x, old, adv, mask, **CLIP)[0], logp.requires_grad_())


@pytest.mark.parametrize("name", ["clip_low", "clip_high"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_a_wrong_option_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}, expected >= 0 nats"):
        gmpo(*batch(), **(CLIP | {name: value}))
