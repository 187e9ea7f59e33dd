import math

import pytest
import torch
from torch import Tensor

from llmalign.losses.policy.clipped import clipped
from llmalign.losses.policy.cov import clip_cov, kl_cov

CLIP_COV = {
    "clip_low": 0.2,
    "clip_high": 0.28,
    "share": 0.1,
    "cov_low": 0.2,
    "cov_high": 9.0,
    "seed": 0,
}
KL_COV = {"share": 0.25, "coef": 0.5}


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    logp, noise, adv = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    return logp, logp - 0.3 * noise, adv, torch.rand(4, 6, generator=generator) < 0.8


def covariance(logp: Tensor, adv: Tensor, mask: Tensor) -> dict[tuple[int, int], float]:
    places = [(b, t) for b in range(4) for t in range(6) if mask[b, t]]
    mean_logp = sum(logp[p].item() for p in places) / len(places)
    mean_adv = sum(adv[p].item() for p in places) / len(places)
    return {p: (logp[p].item() - mean_logp) * (adv[p].item() - mean_adv) for p in places}


def test_two_tokens_with_a_penalty_by_hand() -> None:
    # logp -1, -3 (mean -2) and A 2, 0 (mean 1): cov 1 and 1, the first is taken. rho = 2:
    # loss = -2 * 2 + 0.5 ln 2, gradient -4 + 0.5; the other token has A = 0.
    logp = torch.tensor([[-1.0, -3.0]], dtype=torch.float64, requires_grad=True)
    old = logp.detach() - math.log(2)
    adv, mask = torch.tensor([[2.0, 0.0]]), torch.ones(1, 2).bool()
    loss, stats = kl_cov(logp, old, adv, mask, **KL_COV)
    loss.sum().backward()
    assert loss[0].tolist() == pytest.approx([-4 + 0.5 * math.log(2), 0.0])
    assert logp.grad[0].tolist() == pytest.approx([-3.5, 0.0])
    assert stats.penalised == 1
    assert stats.abs_log_rho_nats.item() == pytest.approx(2 * math.log(2))


def test_the_penalty_agrees_with_plain_python() -> None:
    logp, old, adv, mask = batch()
    loss, stats = kl_cov(logp, old, adv, mask, **KL_COV)
    cov = covariance(logp, adv, mask)
    taken = sorted(cov, key=lambda p: -cov[p])[: int(0.25 * len(cov))]
    assert stats.penalised == len(taken) > 1
    for p in cov:
        gap = logp[p].item() - old[p].item()
        wanted = -math.exp(gap) * adv[p].item() + (0.5 * abs(gap) if p in taken else 0.0)
        assert loss[p].item() == pytest.approx(wanted, rel=1e-12)


def test_on_policy_the_penalty_has_no_gradient() -> None:
    logp, _, adv, mask = batch()
    leaf = logp.clone().requires_grad_()
    kl_cov(leaf, logp, adv, mask, **KL_COV)[0].sum().backward()
    torch.testing.assert_close(leaf.grad, torch.where(mask, -adv, 0.0))


def test_spared_tokens_have_no_loss_and_the_rest_is_clipped_as_ever() -> None:
    logp, old, adv, mask = batch()
    leaf = logp.clone().requires_grad_()
    loss, stats = clip_cov(leaf, old, adv, mask, **CLIP_COV)
    loss.sum().backward()
    plain, plain_stats = clipped(logp, old, adv, mask, clip_low=0.2, clip_high=0.28, dual_clip=None)
    spared = [tuple(place) for place in ((loss != plain) & mask).nonzero().tolist()]
    cov = covariance(logp, adv, mask)
    assert stats.spared == len(spared) == int(0.1 * len(cov)) > 0
    assert (stats.clipped_low, stats.clipped_high) == (
        plain_stats.clipped_low,
        plain_stats.clipped_high,
    )
    for place in spared:
        assert loss[place] == 0 and leaf.grad[place] == 0 and 0.2 < cov[place] < 9.0
        assert plain[place] != 0


def test_a_band_without_tokens_spares_none() -> None:
    tensors = batch()
    loss, stats = clip_cov(*tensors, **(CLIP_COV | {"cov_low": 50.0, "cov_high": 60.0}))
    assert stats.spared == 0
    wanted, _ = clipped(*tensors, clip_low=0.2, clip_high=0.28, dual_clip=None)
    assert torch.equal(loss, wanted)


@pytest.mark.parametrize(
    ("loss", "option", "message"),
    [
        (clip_cov, {"clip_low": 1.1}, r"clip_low is 1.1, expected a number in \[0, 1\]"),
        (clip_cov, {"clip_high": -1.0}, "clip_high is -1.0"),
        (clip_cov, {"share": 0.0}, r"share is 0.0, expected a number in \(0, 1\]"),
        (clip_cov, {"cov_low": 9.0}, "cov_low is 9.0 and cov_high is 9.0"),
        (kl_cov, {"share": 1.1}, "share is 1.1"),
        (kl_cov, {"coef": -1.0}, "coef is -1.0, expected >= 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(loss, option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(*batch(), **((CLIP_COV if loss is clip_cov else KL_COV) | option))
