import math

import pytest
import torch

from llmalign.advantages import batch_whitened, gae, gae_and_returns, value_loss

NAN = math.nan
MASK = torch.tensor([[True, True, False, True], [True, False, False, False]])
REWARD = torch.tensor([[0.0, -0.1, NAN, 1.0], [0.5, NAN, NAN, NAN]], dtype=torch.float64)
VALUE = torch.tensor([[0.2, 0.4, NAN, 0.6], [0.1, NAN, NAN, NAN]], dtype=torch.float64)


def oracle(gamma: float, lam: float) -> list[list[float]]:
    """A_t as the sum of (gamma * lam)^n * delta over the tokens that count."""
    found = []
    for b in range(2):
        place = [t for t in range(4) if MASK[b, t]]
        values = [float(VALUE[b, t]) for t in place] + [0.0]
        delta = [
            float(REWARD[b, t]) + gamma * values[i + 1] - values[i] for i, t in enumerate(place)
        ]
        row = [0.0] * 4
        for i, t in enumerate(place):
            row[t] = sum((gamma * lam) ** (j - i) * delta[j] for j in range(i, len(place)))
        found.append(row)
    return found


def test_two_tokens_by_hand() -> None:
    # deltas: 0 + 0.5 * 0.4 - 0.2 = 0; 1 - 0.4 = 0.6; A_0 = 0 + 0.5 * 0.8 * 0.6 = 0.24
    mask_BT = torch.ones(1, 2, dtype=torch.bool)
    adv_BT, return_BT = gae_and_returns(
        torch.tensor([[0.0, 1.0]]), torch.tensor([[0.2, 0.4]]), mask_BT, gamma=0.5, lam=0.8
    )
    assert adv_BT[0].tolist() == pytest.approx([0.24, 0.6])
    assert return_BT[0].tolist() == pytest.approx([0.44, 1.0])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.95), (1.0, 0.0)])
def test_agrees_with_plain_python_and_reads_nothing_under_the_mask(
    gamma: float, lam: float
) -> None:
    adv_BT, return_BT = gae_and_returns(REWARD, VALUE, MASK, gamma=gamma, lam=lam)
    assert adv_BT.tolist() == [pytest.approx(row) for row in oracle(gamma, lam)]
    assert torch.equal(return_BT, adv_BT + torch.where(MASK, VALUE, 0.0))
    assert (return_BT[~MASK] == 0).all()


def test_without_values_the_advantage_is_the_whitened_return() -> None:
    reward_B, group_B = torch.tensor([1.0, 0.0, NAN]), torch.tensor([0, 0, 0])
    mask_BT = torch.tensor([[True, True], [True, False], [True, True]])
    penalty_BT = torch.tensor([[0.1, 0.0], [-0.2, NAN], [9.0, 9.0]]).double()
    inputs = reward_B, group_B, mask_BT, penalty_BT
    found_BT = gae(*inputs, torch.zeros(3, 2), gamma=0.9, lam=1.0, whiten=True, eps=1e-8)
    expected_BT = batch_whitened(*inputs, gamma=0.9, eps=1e-8, baseline="none")
    assert torch.allclose(found_BT, expected_BT, rtol=1e-12)
    raw_BT = gae(*inputs, torch.zeros(3, 2), gamma=0.9, lam=1.0, whiten=False, eps=1e-8)
    assert raw_BT.tolist() == [
        pytest.approx([0.1 + 0.9, 1.0]), pytest.approx([-0.2, 0.0]), [0.0, 0.0]
    ]  # fmt: skip


def one_value(value: float, old: float, target: float, clip: float | None) -> tuple[float, float]:
    value_BT = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    others = torch.tensor([[old]]).double(), torch.tensor([[target]]).double()
    loss_BT, _ = value_loss(value_BT, *others, torch.ones(1, 1, dtype=torch.bool), clip=clip)
    loss_BT.sum().backward()
    return float(loss_BT.detach()), float(value_BT.grad)


@pytest.mark.parametrize(
    ("value", "clip", "loss", "grad"),
    [
        # near = 0 + 0.2; errors (0.5 - 1)^2 = 0.25 and (0.2 - 1)^2 = 0.64: clipped, no gradient
        pytest.param(0.5, 0.2, 0.32, 0.0, id="moved too far towards the return"),
        pytest.param(-0.5, 0.2, 1.125, -1.5, id="moved away: the unclipped error is larger"),
        pytest.param(0.1, 0.2, 0.405, -0.9, id="near"),
        pytest.param(0.5, None, 0.125, -0.5, id="no clipping"),
    ],
)
def test_one_value_by_hand(value: float, clip: float | None, loss: float, grad: float) -> None:
    assert one_value(value, 0.0, 1.0, clip) == pytest.approx((loss, grad))


def test_the_value_loss_agrees_with_plain_python_and_reads_nothing_under_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    value_BT, old_BT, return_BT = (
        torch.randn(2, 4, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    value_BT = torch.where(MASK, value_BT, NAN).requires_grad_()
    old_BT, return_BT = torch.where(MASK, old_BT, NAN), torch.where(MASK, return_BT, NAN)
    loss_BT, stats = value_loss(value_BT, old_BT, return_BT, MASK, clip=0.3)
    clipped = 0
    for b, t in MASK.nonzero().tolist():
        v, old, target = (float(x[b, t].detach()) for x in (value_BT, old_BT, return_BT))
        near = old + min(max(v - old, -0.3), 0.3)
        assert float(loss_BT[b, t].detach()) == pytest.approx(
            max((v - target) ** 2, (near - target) ** 2) / 2
        )
        clipped += (near - target) ** 2 > (v - target) ** 2
    assert (loss_BT[~MASK] == 0).all()
    assert (int(stats.tokens), int(stats.clipped)) == (4, clipped)
    loss_BT.sum().backward()
    assert value_BT.grad.isfinite().all() and (value_BT.grad[~MASK] == 0).all()


def test_the_gradient_of_the_value_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    value_BT = torch.randn(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    others = [torch.randn(2, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    torch.autograd.gradcheck(lambda v: value_loss(v, *others, MASK, clip=0.5)[0], value_BT)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"gamma": 1.1}, ValueError, "gamma is 1.1, expected a number in"),
        ({"lam": -0.1}, ValueError, "lam is -0.1, expected a number in"),
        ({"value_BT": VALUE[:, :2]}, ValueError, r"value_BT has shape \(2, 2\), expected \(2, 4\)"),
        ({"mask_BT": MASK.float()}, TypeError, "mask_BT has dtype torch.float32"),
    ],
)
def test_a_wrong_input_is_named(change: dict, error: type, message: str) -> None:
    good = {"token_BT": REWARD, "value_BT": VALUE, "mask_BT": MASK, "gamma": 1.0, "lam": 1.0}
    with pytest.raises(error, match=message):
        gae_and_returns(**{**good, **change})


def test_a_clip_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="clip is 0.0, expected > 0 or None"):
        value_loss(VALUE, VALUE, VALUE, MASK, clip=0.0)
    with pytest.raises(ValueError, match="eps is 0.0, expected > 0"):
        inputs = torch.zeros(2), torch.zeros(2, dtype=torch.int64), MASK, REWARD, VALUE
        gae(*inputs, gamma=1.0, lam=1.0, whiten=True, eps=0.0)
