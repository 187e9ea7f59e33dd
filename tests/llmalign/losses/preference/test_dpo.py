import math

import pytest
import torch
from torch import Tensor

from llmalign.losses import LOSSES, sigmoid

LENGTHS = torch.ones(1), torch.ones(1)


def pairs(num: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Four sums of log-probabilities and two lengths."""
    generator = torch.Generator().manual_seed(seed)
    logps = -torch.rand(4, num, generator=generator, dtype=torch.float64) * 30
    lengths = torch.randint(1, 20, (2, num), generator=generator).double()
    return *logps, *lengths


def test_one_pair_by_hand() -> None:
    # h_w = -10 + 12 = 2, h_l = -15 + 14 = -1, z = 0.1 * 3 = 0.3
    # loss = log(1 + exp(-0.3)) = 0.5543552; d loss / d chosen = -0.1 * sigmoid(-0.3) = -0.0425557
    chosen = torch.tensor([-10.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-15.0], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([-12.0]).double(), torch.tensor([-14.0]).double()
    loss, stats = sigmoid(chosen, rejected, *ref, *LENGTHS, beta=0.1, label_smoothing=0.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.5543552, abs=1e-7)
    assert chosen.grad.item() == pytest.approx(-0.0425557, abs=1e-7)
    assert rejected.grad.item() == pytest.approx(0.0425557, abs=1e-7)
    assert stats.margin.item() == pytest.approx(0.3)
    assert stats.chosen_reward.item() == pytest.approx(0.2)
    assert stats.rejected_reward.item() == pytest.approx(-0.1)
    assert stats.accuracy == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_agrees_with_plain_python(smoothing: float) -> None:
    inputs = pairs(6)
    loss_N, stats = sigmoid(*inputs, beta=0.2, label_smoothing=smoothing)
    right, margin = 0, 0.0
    for n in range(6):
        w, el, rw, rl = (tensor[n].item() for tensor in inputs[:4])
        z = 0.2 * ((w - rw) - (el - rl))
        wanted = (1 - smoothing) * math.log1p(math.exp(-z)) + smoothing * math.log1p(math.exp(z))
        assert loss_N[n].item() == pytest.approx(wanted, rel=1e-12)
        right, margin = right + (z > 0), margin + z
    assert 0 < right < 6
    assert (stats.accuracy, stats.margin.item()) == (right, pytest.approx(margin))


PREFERENCE = [entry for entry in LOSSES.entries() if entry.traits["stage"] == "preference"]
each_loss = pytest.mark.parametrize("entry", PREFERENCE, ids=lambda entry: entry.name)


@each_loss
def test_parts_of_a_batch_add_up(entry) -> None:
    inputs, options = pairs(5), entry.resolve({}, "loss")
    loss_N, stats = entry.thing(*inputs, **options)
    parts = [entry.thing(*(t[part] for t in inputs), **options) for part in ([0, 3], [1, 2, 4])]
    torch.testing.assert_close(sum(part.sum() for part, _ in parts), loss_N.sum())
    for name, value in vars(stats).items():
        torch.testing.assert_close(sum(vars(part)[name] for _, part in parts), value)


@each_loss
def test_only_the_policy_carries_a_gradient(entry) -> None:
    tensors = [tensor.requires_grad_() for tensor in pairs(3)[:4]]
    loss_N, stats = entry.thing(*tensors, *pairs(3)[4:], **entry.resolve({}, "loss"))
    loss_N.sum().backward()
    assert [tensor.grad is not None for tensor in tensors] == [True, True, False, False]
    assert not any(value.requires_grad for value in vars(stats).values())


@each_loss
@pytest.mark.parametrize(
    ("position", "name"),
    list(enumerate(
        ["chosen_logp_N", "rejected_logp_N", "ref_chosen_logp_N", "ref_rejected_logp_N",
         "chosen_len_N", "rejected_len_N"]
    ))[1:],
)  # fmt: skip
def test_a_wrong_shape_is_named(entry, position: int, name: str) -> None:
    tensors = list(pairs(3))
    tensors[position] = torch.zeros(2)
    with pytest.raises(ValueError, match=rf"{name} has shape \(2,\), expected \(N,\)"):
        entry.thing(*tensors, **entry.resolve({}, "loss"))


@each_loss
@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan")])
def test_a_beta_that_is_not_positive_is_refused(entry, beta: float) -> None:
    with pytest.raises(ValueError, match=f"beta is {beta}, expected > 0"):
        entry.thing(*pairs(3), **entry.resolve({"beta": beta}, "loss"))


@pytest.mark.parametrize("smoothing", [0.5, -0.1])
def test_a_label_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    with pytest.raises(
        ValueError, match=rf"label_smoothing is {smoothing}, expected .* \[0, 0.5\)"
    ):
        sigmoid(*pairs(3), beta=0.1, label_smoothing=smoothing)
