import math

import pytest
import torch

from llmalign.losses import LOSSES, reinforce


def test_one_token_by_hand() -> None:
    # loss = -2 * -0.5 = 1, gradient -2, whatever the old policy was: rho = exp(0.5)
    logp = torch.tensor([[-0.5]], requires_grad=True)
    mask = torch.tensor([[True]])
    loss, stats = reinforce(logp, torch.tensor([[-1.0]]), torch.tensor([[2.0]]), mask)
    loss.sum().backward()
    assert (loss.item(), logp.grad.item()) == (1.0, -2.0)
    assert stats.kl_old_nats.item() == pytest.approx(math.exp(0.5) - 1.5)
    assert stats.rho_max.item() == pytest.approx(math.exp(0.5))


def test_agrees_with_plain_python() -> None:
    generator = torch.Generator().manual_seed(1)
    logp, old, adv = torch.randn(3, 3, 4, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [False] * 4, [True] * 4])
    loss, stats = reinforce(logp, old, adv, mask)
    for b in range(3):
        for t in range(4):
            wanted = -adv[b, t].item() * logp[b, t].item() if mask[b, t] else 0.0
            assert loss[b, t].item() == pytest.approx(wanted, rel=1e-12)
    assert stats.tokens == 7


def test_policy_losses_are_called_alike() -> None:
    tensors = torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[True]])
    policy = [entry for entry in LOSSES.entries() if entry.traits["stage"] == "policy"]
    entries = [entry for entry in policy if len(entry.inputs) == 4]
    assert {entry.name for entry in entries} >= {"clipped", "reinforce"}
    for entry in entries:
        _, stats = entry.thing(*tensors, **entry.resolve({}, "loss"))
        assert {"tokens", "kl_old_nats"} <= vars(stats).keys()
