import math
import statistics

import pytest
import torch
from torch import Tensor

from llmalign.losses.policy.ratio_norm import (
    gaussian_log_ratio,
    normalised_log_ratio,
    ratio_norm,
)

OPTIONS = {"bucket_tokens": 2, "min_std": 1e-6}
CLIP = {"clip_low": 0.2, "clip_high": 0.2}


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    logp, noise, adv = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64)
    mask = torch.arange(6)[None, :] < torch.tensor([6, 5, 4, 0, 3])[:, None]
    mask[0, 1] = False
    return logp, logp - 0.3 * noise, adv, mask


def test_two_buckets_by_hand() -> None:
    # Bucket 0 holds 0.2 and -0.2, bucket 1 holds 0.4 and -0.4: std 0.2 and 0.4, mean 0.3.
    # kl_0 = cosh 0.2 - 1, kl_1 = cosh 0.4 - 1.
    log_rho = torch.tensor([[0.2, 0.4], [-0.2, -0.4]], dtype=torch.float64)
    found = normalised_log_ratio(log_rho, torch.ones(2, 2).bool(), bucket_tokens=1, min_std=1e-6)
    kl = [math.cosh(0.2) - 1, math.cosh(0.4) - 1]
    wanted = [
        [(0.2 + kl[0]) * 1.5, (0.4 + kl[1]) * 0.75],
        [(-0.2 + kl[0]) * 1.5, (-0.4 + kl[1]) * 0.75],
    ]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_agrees_with_plain_python() -> None:
    logp, old, adv, mask = batch()
    loss, stats = ratio_norm(logp, old, adv, mask, **CLIP, **OPTIONS)
    buckets: dict[int, list[float]] = {}
    place = {}
    for b in range(5):
        for number, t in enumerate(t for t in range(6) if mask[b, t]):
            gap = logp[b, t].item() - old[b, t].item()
            buckets.setdefault(number // 2, []).append(gap)
            place[b, t] = number // 2, gap
    std = {k: statistics.pstdev(gaps) for k, gaps in buckets.items()}
    drift = {k: statistics.fmean(math.exp(g) - 1 - g for g in gaps) for k, gaps in buckets.items()}
    mean_std = statistics.fmean(std.values())
    held = 0
    for (b, t), (k, gap) in place.items():
        r, a = math.exp((gap + drift[k]) / std[k] * mean_std), adv[b, t].item()
        held += (a > 0 and r > 1.2) or (a < 0 and r < 0.8)
        wanted = -min(r * a, min(max(r, 0.8), 1.2) * a)
        assert loss[b, t].item() == pytest.approx(wanted, rel=1e-9)
    assert len(buckets) == 3 and held == stats.clipped_low + stats.clipped_high > 0


def test_on_policy_it_is_left_alone() -> None:
    logp, _, adv, mask = batch()
    leaf = logp.clone().requires_grad_()
    loss, _ = ratio_norm(leaf, logp, adv, mask, **CLIP, **OPTIONS)
    loss.sum().backward()
    torch.testing.assert_close(loss[mask], -adv[mask])
    torch.testing.assert_close(leaf.grad[mask], -adv[mask])


def test_a_bucket_without_spread_is_left_alone() -> None:
    log_rho = torch.tensor([[0.2, 0.3], [-0.2, 0.3]], dtype=torch.float64)
    found = normalised_log_ratio(log_rho, torch.ones(2, 2).bool(), bucket_tokens=1, min_std=1e-6)
    assert found[:, 1].tolist() == [0.3, 0.3]
    assert found[0, 0].item() == pytest.approx(0.2 + math.cosh(0.2) - 1)


def test_statistics_have_no_gradient() -> None:
    # The gradient of a token is its scale alone: nothing flows through mean and std.
    logp, old, _, mask = batch()
    leaf = (logp - old).clone().requires_grad_()
    found = normalised_log_ratio(leaf, mask, **OPTIONS)
    found[0, 0].backward()
    assert leaf.grad.nonzero().tolist() == [[0, 0]]


def test_the_gaussian_form_is_the_mean_of_shift_times_noise() -> None:
    # sigma * sqrt(dt) = 0.1: log_rho = 0.003 / 0.1 - 0.0005 / (2 * 0.25 * 0.04) = 0.03 - 0.025
    log_rho = torch.tensor(0.005, dtype=torch.float64)
    found = gaussian_log_ratio(
        log_rho, torch.tensor(0.0005, dtype=torch.float64), sigma=0.5, dt=0.04
    )
    assert found.item() == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"bucket_tokens": 0}, "bucket_tokens is 0, expected > 0"),
        ({"min_std": 0.0}, "min_std is 0.0, expected > 0"),
        ({"clip_low": 1.5}, "clip_low is 1.5"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ratio_norm(*batch(), **(CLIP | OPTIONS | option))


@pytest.mark.parametrize("option", [{"sigma": 0.0}, {"dt": -1.0}])
def test_a_wrong_option_of_the_gaussian_form_is_named(option: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} is"):
        gaussian_log_ratio(torch.zeros(1), torch.zeros(1), **({"sigma": 1.0, "dt": 1.0} | option))
