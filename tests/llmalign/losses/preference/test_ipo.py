import pytest
import torch

from llmalign.losses import ipo


def test_one_pair_by_hand() -> None:
    # h_w = (-10 + 12) / 4 = 0.5, h_l = (-15 + 14) / 2 = -0.5, aim 1 / (2 * 0.1) = 5
    # loss = (0.5 + 0.5 - 5)^2 = 16; d loss / d chosen = 2 * -4 / 4 = -2, d rejected = 8 / 2 = 4
    chosen = torch.tensor([-10.0], requires_grad=True)
    rejected = torch.tensor([-15.0], requires_grad=True)
    ref = torch.tensor([-12.0]), torch.tensor([-14.0])
    loss, stats = ipo(chosen, rejected, *ref, torch.tensor([4]), torch.tensor([2]), beta=0.1)
    loss.sum().backward()
    assert loss.item() == pytest.approx(16.0)
    assert (chosen.grad.item(), rejected.grad.item()) == (pytest.approx(-2.0), pytest.approx(4.0))
    assert stats.margin.item() == pytest.approx(0.1)
    assert stats.accuracy == 1


def test_agrees_with_plain_python() -> None:
    generator = torch.Generator().manual_seed(0)
    logps = -torch.rand(4, 5, generator=generator, dtype=torch.float64) * 30
    lengths = torch.randint(1, 9, (2, 5), generator=generator)
    loss_N, _ = ipo(*logps, *lengths, beta=0.25)
    for n in range(5):
        w, el, rw, rl = logps[:, n].tolist()
        wanted = ((w - rw) / lengths[0, n].item() - (el - rl) / lengths[1, n].item() - 2.0) ** 2
        assert loss_N[n].item() == pytest.approx(wanted, rel=1e-12)


def test_an_empty_answer_counts_as_one_token() -> None:
    one, zero = torch.tensor([1]), torch.tensor([0])
    logps = [torch.tensor([value]) for value in (-1.0, 0.0, -2.0, 0.0)]
    assert torch.equal(ipo(*logps, one, zero, beta=0.1)[0], ipo(*logps, one, one, beta=0.1)[0])
