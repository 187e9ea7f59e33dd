import math

import pytest
import torch
from torch import Tensor

from llmalign.losses.policy.gspo import gspo, gspo_token

both = pytest.mark.parametrize("loss", [gspo, gspo_token])


def batch(constant: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logp, noise, adv = torch.randn(3, 6, 4, generator=generator, dtype=torch.float64)
    mask = torch.arange(4)[None, :] < torch.tensor([4, 3, 2, 1, 0, 4])[:, None]
    mask[0, 1] = False
    return logp, logp - 0.3 * noise, adv[:, :1].expand(6, 4) if constant else adv, mask


@both
@pytest.mark.parametrize(
    ("mean", "adv", "value", "grad"),
    [
        # two tokens of log-ratio mean +- 0.1: s = exp(mean); d/dlogp_t of the row's mean = -A s / 2
        pytest.param(math.log(1.1), 2.0, -2.2, -1.1, id="inside"),
        pytest.param(math.log(1.5), 2.0, -2.4, 0.0, id="above and good: held at 1.2"),
        pytest.param(math.log(1.5), -2.0, 3.0, 1.5, id="above and bad"),
        pytest.param(math.log(0.5), -2.0, 1.6, 0.0, id="below and bad: held at 0.8"),
    ],
)
def test_two_tokens_by_hand(loss, mean: float, adv: float, value: float, grad: float) -> None:
    logp = torch.tensor([[mean + 0.1, mean - 0.1]], dtype=torch.float64, requires_grad=True)
    old, adv_BT, mask = torch.zeros(1, 2), torch.full((1, 2), adv), torch.ones(1, 2).bool()
    loss_BT, stats = loss(logp, old, adv_BT, mask, clip_low=0.2, clip_high=0.2)
    loss_BT.mean().backward()
    assert loss_BT[0].tolist() == pytest.approx([value, value])
    assert logp.grad[0].tolist() == pytest.approx([grad, grad], abs=1e-12)
    assert int(stats.clipped_low + stats.clipped_high) == (2 if grad == 0 else 0)


@both
@pytest.mark.parametrize("constant", [True, False])
def test_agrees_with_plain_python(loss, constant: bool) -> None:
    logp, old, adv, mask = batch(constant)
    found, _ = loss(logp, old, adv, mask, clip_low=0.05, clip_high=0.1)
    for b in range(6):
        places = [t for t in range(4) if mask[b, t]]
        gaps = [logp[b, t].item() - old[b, t].item() for t in places]
        s = math.exp(sum(gaps) / max(len(gaps), 1))
        for t in places:
            a = adv[b, t].item()
            wanted = -min(s * a, min(max(s, 0.95), 1.1) * a)
            assert found[b, t].item() == pytest.approx(wanted, rel=1e-12)


def test_the_token_form_has_the_gradient_of_its_own_advantage_alone() -> None:
    def gradient(loss, adv: Tensor) -> Tensor:
        leaf = logp.clone().requires_grad_()
        loss(leaf, old, adv, mask, clip_low=0.9, clip_high=9.0)[0].sum().backward()
        return leaf.grad

    logp, old, adv, mask = batch()
    torch.testing.assert_close(gradient(gspo, adv), gradient(gspo_token, adv))
    only = torch.zeros_like(adv)
    only[0, 0] = 1.0
    assert (gradient(gspo, only)[0][mask[0]] != 0).all()
    assert gradient(gspo_token, only).nonzero().tolist() == [[0, 0]]


def test_gradcheck_inside_the_bounds() -> None:
    logp, old, adv, mask = batch(constant=False)
    torch.autograd.gradcheck(
        lambda x: gspo(x, old, adv, mask, clip_low=0.99, clip_high=99.0)[0],
        logp.requires_grad_(),
    )


@both
def test_a_ratio_out_of_range_stays_finite_and_has_no_gradient(loss) -> None:
    logp = torch.full((1, 2), 15.0, dtype=torch.float64, requires_grad=True)
    zero, mask = torch.zeros(1, 2), torch.ones(1, 2).bool()
    loss_BT, _ = loss(logp, zero, zero - 1, mask, clip_low=0.2, clip_high=0.2)
    loss_BT.sum().backward()
    assert loss_BT[0, 0].item() == pytest.approx(math.exp(10))
    assert (logp.grad == 0).all()


@both
@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (1.0, 0.1, r"clip_low is 1.0, expected a number in \[0, 1\)"),
        (float("nan"), 0.1, "clip_low is nan"),
        (0.1, -0.1, "clip_high is -0.1, expected >= 0"),
    ],
)
def test_a_wrong_bound_is_named(loss, low: float, high: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(*batch(), clip_low=low, clip_high=high)


@both
def test_a_row_is_a_sequence(loss) -> None:
    flat = [tensor.flatten() for tensor in batch()]
    with pytest.raises(ValueError, match=r"expected \(B, T\)"):
        loss(*flat, clip_low=0.2, clip_high=0.2)
