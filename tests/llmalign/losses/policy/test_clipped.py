import math

import pytest
import torch
from torch import Tensor

from llmalign.losses import clipped, reinforce, sequence_weights
from llmalign.losses.policy.ratio import MAX_LOG_RATIO

NAN = float("nan")
OPTIONS = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": None}


def one_token(log_rho: float, adv: float, **options):
    """Loss, gradient and statistics of one token whose old log-probability is -1."""
    logp = torch.tensor([[log_rho - 1.0]], dtype=torch.float64, requires_grad=True)
    old, mask = torch.tensor([[-1.0]], dtype=torch.float64), torch.tensor([[True]])
    adv_BT = torch.tensor([[adv]], dtype=torch.float64)
    loss, stats = clipped(logp, old, adv_BT, mask, **{**OPTIONS, **options})
    loss.sum().backward()
    return loss.item(), logp.grad.item(), stats


@pytest.mark.parametrize(
    ("rho", "adv", "dual_clip", "loss", "grad"),
    [
        # loss = -rho A and d loss / d logp = -rho A where nothing clips
        pytest.param(1.1, 2.0, None, -2.2, -2.2, id="inside, good"),
        pytest.param(1.1, -2.0, None, 2.2, 2.2, id="inside, bad"),
        pytest.param(1.5, 2.0, None, -2.56, 0.0, id="above and good: held at 1.28"),
        pytest.param(1.5, -2.0, None, 3.0, 3.0, id="above and bad: pulled back in full"),
        pytest.param(0.5, 2.0, None, -1.0, -1.0, id="below and good: pulled back in full"),
        pytest.param(0.5, -2.0, None, 1.6, 0.0, id="below and bad: held at 0.8"),
        pytest.param(4.0, -2.0, 3.0, 6.0, 0.0, id="dual clip: held at 3"),
        pytest.param(2.9, -2.0, 3.0, 5.8, 5.8, id="under the dual clip"),
        pytest.param(4.0, 2.0, 3.0, -2.56, 0.0, id="dual clip leaves the good alone"),
        pytest.param(1.0, 2.0, None, -2.0, -2.0, id="on policy: the policy gradient"),
    ],
)
def test_one_token_by_hand(rho, adv, dual_clip, loss, grad) -> None:
    found_loss, found_grad, _ = one_token(math.log(rho), adv, dual_clip=dual_clip)
    assert (found_loss, found_grad) == (pytest.approx(loss), pytest.approx(grad, abs=1e-12))


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """logp, logp_old, adv, mask: ratios on all sides of the bounds, and one row without tokens."""
    generator = torch.Generator().manual_seed(seed)
    logp = -torch.rand(5, 6, generator=generator, dtype=torch.float64) * 3
    old = logp + torch.randn(5, 6, generator=generator, dtype=torch.float64)
    adv = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    mask = torch.arange(6)[None, :] < torch.tensor([6, 3, 1, 0, 4])[:, None]
    mask[0, 2] = False  # a hole, as a tool's answer makes
    return logp, old, adv, mask


@pytest.mark.parametrize("dual_clip", [None, 1.5])
def test_agrees_with_plain_python(dual_clip: float | None) -> None:
    logp, old, adv, mask = batch()
    loss, stats = clipped(logp, old, adv, mask, clip_low=0.2, clip_high=0.28, dual_clip=dual_clip)
    low = high = dual = tokens = 0
    kl, log_sum, largest = 0.0, 0.0, 0.0
    for b in range(5):
        for t in range(6):
            if not mask[b, t]:
                assert loss[b, t] == 0
                continue
            a, rho = adv[b, t].item(), math.exp(logp[b, t].item() - old[b, t].item())
            wanted = -min(rho * a, min(max(rho, 0.8), 1.28) * a)
            if dual_clip is not None and a < 0:
                wanted = min(wanted, -dual_clip * a)
                dual += rho > dual_clip
            assert loss[b, t].item() == pytest.approx(wanted, rel=1e-12)
            low, high = low + (a < 0 and rho < 0.8), high + (a > 0 and rho > 1.28)
            tokens, kl, log_sum = tokens + 1, kl + rho - 1 - math.log(rho), log_sum + math.log(rho)
            largest = max(largest, rho)
    assert low and high and (dual or dual_clip is None)
    assert (stats.tokens, stats.clipped_low, stats.clipped_high) == (tokens, low, high)
    assert stats.clipped_dual == dual
    assert stats.kl_old_nats.item() == pytest.approx(kl)
    assert stats.log_rho_nats.item() == pytest.approx(log_sum)
    assert stats.rho_max.item() == pytest.approx(largest)


POLICY_LOSSES = {
    "clipped": lambda *tensors: clipped(*tensors, clip_low=0.2, clip_high=0.28, dual_clip=3.0),
    "reinforce": reinforce,
}
each_loss = pytest.mark.parametrize("loss", POLICY_LOSSES.values(), ids=POLICY_LOSSES.keys())


@each_loss
@pytest.mark.parametrize("poison", [NAN, float("inf"), float("-inf")])
def test_masked_entries_are_never_read(loss, poison: float) -> None:
    logp, old, adv, mask = batch()
    clean = logp.clone().requires_grad_()
    dirty = torch.where(mask, logp, poison).requires_grad_()
    old_dirty, adv_dirty = torch.where(mask, old, poison), torch.where(mask, adv, poison)
    clean_loss, clean_stats = loss(clean, old, adv, mask)
    dirty_loss, dirty_stats = loss(dirty, old_dirty, adv_dirty, mask)
    clean_loss.sum().backward()
    dirty_loss.sum().backward()
    assert torch.equal(clean_loss, dirty_loss)
    assert torch.equal(clean.grad, dirty.grad)
    assert (dirty.grad[~mask] == 0).all() and (dirty.grad[mask] != 0).any()
    assert vars(clean_stats) == vars(dirty_stats)


@each_loss
def test_old_and_advantage_carry_no_gradient(loss) -> None:
    logp, old, adv, mask = batch()
    logp, old, adv = (tensor.requires_grad_() for tensor in (logp, old, adv))
    found, stats = loss(logp, old, adv, mask)
    found.sum().backward()
    assert logp.grad is not None and old.grad is None and adv.grad is None
    assert not any(value.requires_grad for value in vars(stats).values())


@each_loss
@pytest.mark.parametrize(
    "kind", ["token_mean", "sequence_mean", "sequence_sum", "constant", "sum_norm"]
)
@pytest.mark.parametrize("portions", [[[0, 1, 2, 3, 4]], [[3], [0, 4], [2, 1]], [[4, 2, 0], [1]]])
def test_microbatches_add_up_to_the_batch(loss, kind, portions) -> None:
    """In any split and order; row 3, which the last split leaves out, has no token."""
    logp, old, adv, mask = batch()
    weight_B = sequence_weights(mask.sum(1), kind=kind, max_tokens=6, num_sequences=None)

    def gradient(parts: list[list[int]]) -> tuple[float, Tensor]:
        leaf, total = logp.clone().requires_grad_(), 0.0
        for part in parts:
            width = int(mask[part].any(0).nonzero().max()) + 1 if mask[part].any() else 1
            cut = (tensor[part][:, :width] for tensor in (leaf, old, adv, mask))
            loss_BT, _ = loss(*cut)
            part_loss = (weight_B[part][:, None] * loss_BT).sum()
            part_loss.backward()
            total += part_loss.item()
        return total, leaf.grad

    whole_loss, whole_grad = gradient([[0, 1, 2, 3, 4]])
    part_loss, part_grad = gradient(portions)
    assert whole_loss != 0
    assert part_loss == pytest.approx(whole_loss, rel=1e-12)
    torch.testing.assert_close(part_grad, whole_grad, rtol=1e-12, atol=1e-15)


def test_a_ratio_out_of_range_stays_finite_and_has_no_gradient() -> None:
    loss, grad, stats = one_token(1000.0, -1.0)
    assert (loss, grad) == (pytest.approx(math.exp(MAX_LOG_RATIO)), 0.0)
    assert stats.rho_max.item() == pytest.approx(math.exp(MAX_LOG_RATIO))


def test_the_largest_ratio_is_of_tokens_that_count() -> None:
    logp, mask = torch.tensor([[-2.0, 0.0]]), torch.tensor([[True, False]])
    _, stats = clipped(logp, torch.tensor([[-1.0, 0.0]]), torch.ones(1, 2), mask, **OPTIONS)
    assert stats.rho_max.item() == pytest.approx(math.exp(-1))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"clip_low": 1.0}, r"clip_low is 1.0, expected a number in \[0, 1\)"),
        ({"clip_low": -0.1}, "clip_low is -0.1"),
        ({"clip_high": -0.1}, "clip_high is -0.1, expected >= 0"),
        ({"clip_high": NAN}, "clip_high is nan, expected >= 0"),
        ({"dual_clip": 1.2}, r"dual_clip is 1.2, expected > 1 \+ clip_high = 1.28, or None"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_token(0.0, 1.0, **option)


@each_loss
@pytest.mark.parametrize(
    ("position", "value", "error", "message"),
    [
        (0, torch.zeros(5, 6, dtype=torch.int64), TypeError, "logp_BT has dtype torch.int64"),
        (
            1,
            torch.zeros(5),
            ValueError,
            r"logp_old_BT has shape \(5,\), expected \(5, 6\) like logp",
        ),
        (2, torch.zeros(5, 1), ValueError, r"adv_BT has shape \(5, 1\), expected \(5, 6\)"),
        (3, torch.ones(5, 6), TypeError, "mask_BT has dtype torch.float32, expected torch.bool"),
        (3, torch.ones(6, 5, dtype=torch.bool), ValueError, r"mask_BT has shape \(6, 5\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_tensor_is_named(loss, position, value, error, message) -> None:
    tensors = list(batch())
    tensors[position] = value
    with pytest.raises(error, match=message):
        loss(*tensors)
