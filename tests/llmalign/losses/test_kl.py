import math

import pytest
import torch

from llmalign.losses import kl_penalty
from llmalign.losses.kl import MAX_K3, MAX_LOG_RATIO

KINDS = ["k1", "k2", "k3", "abs", "k1+", "k3+"]


def one_token(d: float, kind: str) -> tuple[float, float]:
    """Value and gradient with respect to logp at logp_ref - logp = d."""
    logp = torch.tensor([-2.0], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([d - 2.0], dtype=torch.float64)
    value = kl_penalty(logp, ref, torch.tensor([True]), kind=kind)
    value.sum().backward()
    return value.item(), logp.grad.item()


@pytest.mark.parametrize(
    ("kind", "value", "grad"),
    [
        # d = 0.5; d d / d logp = -1
        ("k1", -0.5, 1.0),
        ("abs", 0.5, -1.0),
        ("k2", 0.125, -0.5),  # d^2 / 2, -d
        ("k3", math.exp(0.5) - 1.5, 1 - math.exp(0.5)),
        ("k1+", -0.5, -0.5),  # value of k1, gradient of k2
        ("k3+", math.exp(0.5) - 1.5, -0.5),
    ],
)
def test_one_token_by_hand(kind: str, value: float, grad: float) -> None:
    assert one_token(0.5, kind) == (pytest.approx(value), pytest.approx(grad))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_policies_have_no_kl(kind: str) -> None:
    assert one_token(0.0, kind)[0] == 0


@pytest.mark.parametrize(
    ("kind", "d", "value"),
    [
        ("k1", -1000.0, MAX_LOG_RATIO),
        ("k1", float("-inf"), MAX_LOG_RATIO),
        ("abs", 1000.0, MAX_LOG_RATIO),
        ("k2", 1000.0, MAX_LOG_RATIO**2 / 2),
        ("k3", 5.0, MAX_K3),
        ("k3", 1000.0, MAX_K3),
        ("k3+", 1000.0, MAX_K3),
    ],
)
def test_far_ratios_are_clamped_and_have_no_gradient(kind: str, d: float, value: float) -> None:
    assert one_token(d, kind) == (value, 0.0)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_the_mean_over_samples_estimates_the_kl(kind: str) -> None:
    """Exact expectation over a vocabulary of three; k2 is right to second order only."""
    policy = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    ref = torch.tensor([0.48, 0.31, 0.21], dtype=torch.float64)
    estimate = kl_penalty(policy.log(), ref.log(), torch.ones(3, dtype=torch.bool), kind=kind)
    exact = (policy * (policy / ref).log()).sum()
    torch.testing.assert_close(
        (policy * estimate).sum(), exact, rtol=0.03 if kind == "k2" else 1e-10, atol=0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [float("nan"), float("-inf")])
def test_masked_entries_are_never_read(kind: str, poison: float) -> None:
    logp = torch.tensor([[-1.0, poison], [-0.5, -0.25]], requires_grad=True)
    ref = torch.tensor([[-0.5, poison], [poison, -0.75]])
    mask = torch.tensor([[True, False], [False, True]])
    value = kl_penalty(logp, ref, mask, kind=kind)
    value.sum().backward()
    assert (value[~mask] == 0).all() and (value[mask] != 0).all()
    assert (logp.grad[~mask] == 0).all() and (logp.grad[mask] != 0).all()
    assert value.isfinite().all() and logp.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_carries_no_gradient(kind: str) -> None:
    logp = torch.tensor([-1.0], requires_grad=True)
    ref = torch.tensor([-0.5], requires_grad=True)
    kl_penalty(logp, ref, torch.tensor([True]), kind=kind).sum().backward()
    assert ref.grad is None


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="unknown kl kind 'k4'; known: abs, k1"):
        one_token(0.0, "k4")


def test_a_wrong_shape_is_named() -> None:
    logp, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"logp_ref_BT has shape \(2, 1\), expected \(2, 3\)"):
        kl_penalty(logp, torch.zeros(2, 1), mask, kind="k1")
