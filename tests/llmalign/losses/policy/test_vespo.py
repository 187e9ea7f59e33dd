import math

import pytest
import torch

from llmalign.losses.policy.vespo import gamma_weight, vespo

OPTIONS = {"k_pos": 2.0, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0}


def test_two_tokens_by_hand() -> None:
    # log-ratios ln 2 and ln 0.75: w = 1.5; phi = e^3 1.5^2 e^-4.5 = 2.25 e^-1.5; A = 2
    gaps = torch.tensor([[2.0, 0.75]], dtype=torch.float64).log()
    logp = torch.tensor([[-1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    loss, stats = vespo(
        logp, logp.detach() - gaps, torch.full((1, 2), 2.0), torch.ones(1, 2).bool(), **OPTIONS
    )
    loss.sum().backward()
    phi = 2.25 * math.exp(-1.5)
    assert loss[0].tolist() == pytest.approx([2 * phi, 4 * phi])
    assert logp.grad[0].tolist() == pytest.approx([-2 * phi, -2 * phi])
    assert stats.weight.item() == pytest.approx(2 * phi)


def test_agrees_with_plain_python() -> None:
    generator = torch.Generator().manual_seed(2)
    logp, noise, adv = torch.randn(3, 6, 4, generator=generator, dtype=torch.float64)
    old, mask = logp - 0.5 * noise, torch.rand(6, 4, generator=generator) < 0.7
    loss, _ = vespo(logp, old, adv, mask, **OPTIONS)
    for b in range(6):
        w = math.exp(sum((logp - old)[b, t].item() for t in range(4) if mask[b, t]))
        for t in range(4):
            a = adv[b, t].item()
            k, decay = (2.0, 3.0) if a >= 0 else (3.0, 2.0)
            phi = math.exp(decay) * w**k * math.exp(-decay * w)
            wanted = -phi * a * logp[b, t].item() if mask[b, t] else 0.0
            assert loss[b, t].item() == pytest.approx(wanted, rel=1e-12)


def test_the_weight_is_one_on_policy_and_dies_out_on_both_sides() -> None:
    log_w = torch.tensor([0.0, -1000.0, 1000.0], dtype=torch.float64)
    on, low, high = gamma_weight(log_w, k=2.0, decay=3.0).tolist()
    assert on == 1.0
    assert 0 < low < 1e-14 and high == 0.0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"k_pos": -1.0}, "k is -1.0, expected >= 0"),
        ({"lambda_neg": 0.0}, "lambda is 0.0, expected > 0"),
        ({"lambda_pos": float("nan")}, "lambda is nan"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    zero = torch.zeros(1, 1)
    with pytest.raises(ValueError, match=message):
        vespo(zero, zero, zero, zero == 0, **(OPTIONS | option))
