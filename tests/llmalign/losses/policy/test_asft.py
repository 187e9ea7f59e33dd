import math

import pytest
import torch
from torch import Tensor

from llmalign.losses.policy.asft import asft, dft, forward_kl, sft_kl

NAN, INF = float("nan"), float("inf")


def leaf(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64, requires_grad=True)


def test_one_token_by_hand() -> None:
    # p = 1/2: dft = p ln 2, gradient -p; asft adds 0.1 * 0.3, gradient 0.1 on the KL
    logp, kl, mask = leaf(-math.log(2)), leaf(0.3), torch.tensor([[True]])
    assert dft(logp, mask).item() == pytest.approx(math.log(2) / 2)
    loss = asft(logp, mask, kl, kl_coef=0.1)
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(2) / 2 + 0.03)
    assert (logp.grad.item(), kl.grad.item()) == (pytest.approx(-0.5), pytest.approx(0.1))
    assert sft_kl(logp, mask, kl, kl_coef=0.1).item() == pytest.approx(math.log(2) + 0.03)


@pytest.mark.parametrize("poison", [NAN, INF, -INF])
@pytest.mark.parametrize("loss", [asft, sft_kl])
def test_masked_entries_are_never_read(loss, poison: float) -> None:
    mask = torch.tensor([[True, False]])
    logp, kl = leaf(-1.0, poison), leaf(0.3, poison)
    found = loss(logp, mask, kl, kl_coef=0.1)
    found.sum().backward()
    assert found[0, 0] != 0 and found[0, 1] == 0
    assert logp.grad[0, 0] != 0 and logp.grad[0, 1] == 0 and kl.grad[0].tolist() == [0.1, 0.0]


def test_the_divergence_agrees_with_plain_python() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, ref = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    found = forward_kl(logits, ref)
    for n in range(4):
        p, q = ([math.exp(x) for x in row[n].tolist()] for row in (logits, ref))
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        wanted = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
        assert found[n].item() == pytest.approx(wanted, rel=1e-12)
    torch.autograd.gradcheck(lambda x: forward_kl(x, ref), logits.requires_grad_())


def test_a_padded_vocabulary_adds_nothing_to_the_divergence() -> None:
    logits = torch.tensor([[0.3, -0.2, -INF], [0.3, -0.2, 7.0]], dtype=torch.float64)
    ref = torch.tensor([[0.1, 0.4, -INF]], dtype=torch.float64).expand(2, 3)
    logits.requires_grad_()
    found = forward_kl(logits, ref)
    found.sum().backward()
    short = forward_kl(logits[:1, :2], ref[:1, :2])
    assert found[0].item() == pytest.approx(short.item())
    assert found[1] > found[0] and not logits.grad.isnan().any()


def test_the_reference_carries_no_gradient() -> None:
    logits, ref = leaf(0.3, -0.2), leaf(0.1, 0.4)
    forward_kl(logits, ref).sum().backward()
    assert logits.grad is not None and ref.grad is None


@pytest.mark.parametrize("loss", [asft, sft_kl])
def test_a_wrong_argument_is_named(loss) -> None:
    logp, mask = leaf(-1.0), torch.tensor([[True]])
    with pytest.raises(ValueError, match="kl_coef is -1.0, expected >= 0"):
        loss(logp, mask, logp, kl_coef=-1.0)
    with pytest.raises(ValueError, match=r"ref_kl_BT has shape \(1, 2\), expected \(1, 1\)"):
        loss(logp, mask, leaf(0.0, 0.0), kl_coef=0.1)
    with pytest.raises(TypeError, match=r"mask_BT has dtype torch.int64"):
        loss(logp, mask.long(), logp, kl_coef=0.1)
    with pytest.raises(ValueError, match=r"ref_logits_NV has shape \(1, 1\), expected \(1, 2\)"):
        forward_kl(leaf(0.0, 0.0), logp)
