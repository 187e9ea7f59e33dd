import math

import pytest
import torch
from torch import Tensor

from llmalign.losses import clipped
from llmalign.losses.mismatch import (
    divergence_mask,
    mean_one,
    mismatch_weights,
    off_policy_mask,
)

NAN, INF = float("nan"), float("inf")
KINDS, LEVELS = ["truncated", "masked", "rejected"], ["token", "sequence", "geometric"]


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("ratio", "truncated", "masked", "rejected"),
    [
        pytest.param(1.0, 1.0, 1.0, 1.0, id="no mismatch"),
        pytest.param(1.7, 1.7, 1.7, 1.0, id="inside"),
        pytest.param(3.0, 2.0, 0.0, 0.0, id="above: held, or dropped"),
        pytest.param(0.2, 0.5, 0.0, 0.0, id="below: held, or dropped"),
        pytest.param(INF, 2.0, 0.0, 0.0, id="the engine says impossible"),
        pytest.param(0.0, 0.5, 0.0, 0.0, id="the trainer says impossible"),
    ],
)
def test_one_token_by_hand(ratio, truncated, masked, rejected) -> None:
    logp = row(-1.0 if ratio else -INF)
    sampled = row(-1.0 - math.log(ratio) if ratio else -1.0)
    for kind, wanted in zip(KINDS, (truncated, masked, rejected), strict=True):
        weight, stats = mismatch_weights(
            logp, sampled, row(1) > 0, kind=kind, low=0.5, high=2.0, level="token"
        )
        assert weight.item() == pytest.approx(wanted, rel=1e-12)
        assert stats.masked == (wanted == 0)
        assert stats.truncated == (kind == "truncated" and not 0.5 <= ratio <= 2)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """logp, logp_sampled, mask: ratios on all sides of the bounds, holes, and an empty row."""
    generator = torch.Generator().manual_seed(0)
    logp = -torch.rand(6, 5, generator=generator, dtype=torch.float64) * 3
    spread = torch.tensor([0.8, 0.8, 0.8, 0.8, 0.8, 0.1])[:, None]
    sampled = logp + spread * torch.randn(6, 5, generator=generator, dtype=torch.float64)
    mask = torch.arange(5)[None, :] < torch.tensor([5, 3, 1, 0, 4, 5])[:, None]
    mask[0, 2] = False
    return logp, sampled, mask


def aggregated(logs: list[float], level: str) -> list[float]:
    if level == "token" or not logs:
        return logs
    total = sum(logs) / (len(logs) if level == "geometric" else 1)
    return [total] * len(logs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", LEVELS)
def test_agrees_with_plain_python(kind: str, level: str) -> None:
    logp, sampled, mask = batch()
    weight, stats = mismatch_weights(logp, sampled, mask, kind=kind, low=0.7, high=1.5, level=level)
    total = square = kl = log_sum = largest = truncated = masked = emptied = 0.0
    for b in range(6):
        at = [t for t in range(5) if mask[b, t]]
        logs = [logp[b, t].item() - sampled[b, t].item() for t in at]
        found = []
        for t, log_w in zip(at, aggregated(logs, level), strict=True):
            w, inside = math.exp(log_w), 0.7 <= math.exp(log_w) <= 1.5
            outside = min(max(w, 0.7), 1.5) if kind == "truncated" else 0.0
            wanted = (1.0 if kind == "rejected" else w) if inside else outside
            assert weight[b, t].item() == pytest.approx(wanted, rel=1e-12)
            truncated += kind == "truncated" and not inside
            found.append(wanted)
        total, square = total + sum(found), square + sum(w * w for w in found)
        masked, emptied = masked + found.count(0.0), emptied + (bool(at) and not any(found))
        kl, log_sum = kl + sum(math.exp(x) - 1 - x for x in logs), log_sum + sum(logs)
        largest = max([largest, *map(math.exp, logs)])
    assert (weight[~mask] == 0).all() and (truncated or masked)
    assert {k: v.item() for k, v in vars(stats).items()} == pytest.approx(
        {
            "tokens": int(mask.sum()),
            "weight": total,
            "weight_square": square,
            "truncated": truncated,
            "masked": masked,
            "masked_sequences": emptied,
            "unknown": 0,
            "kl_engine_nats": kl,
            "log_ratio_nats": log_sum,
            "ratio_max": largest,
        }
    )


@pytest.mark.parametrize("kind", ["k2", "k3"])
@pytest.mark.parametrize("level", ["token", "sequence_sum", "sequence_mean", "sequence_max"])
def test_divergences_agree_with_plain_python(kind: str, level: str) -> None:
    logp, sampled, mask = batch()
    keep = divergence_mask(logp, sampled, mask, kind=kind, level=level, high=0.2)
    for b in range(6):
        at = [t for t in range(5) if mask[b, t]]
        logs = [logp[b, t].item() - sampled[b, t].item() for t in at]
        ks = [x * x / 2 if kind == "k2" else math.exp(x) - 1 - x for x in logs]
        reduce = {"sequence_sum": sum, "sequence_max": max}.get(level, lambda v: sum(v) / len(v))
        for t, k in zip(at, ks, strict=True):
            assert keep[b, t] == ((k if level == "token" else reduce(ks)) <= 0.2)
    assert not keep[~mask].any() and keep.any() and not keep[mask].all()


def test_a_divergence_does_not_cancel_where_a_ratio_does() -> None:
    logp, sampled, mask = row(-1.0, -3.0), row(-2.0, -2.0), row(1, 1) > 0  # log r = 1, -1
    geometric = {"kind": "rejected", "low": 0.999, "high": 1.001, "level": "geometric"}
    assert mismatch_weights(logp, sampled, mask, **geometric)[0].tolist() == [[1.0, 1.0]]
    keep = divergence_mask(logp, sampled, mask, kind="k3", level="sequence_mean", high=0.01)
    assert not keep.any()


def test_an_asymmetric_band_is_of_trainer_over_engine() -> None:
    # verl's token_k1 with 0.5_5.0 does the opposite: it keeps 0.27 and rejects 3.32
    logp, sampled, mask = row(-2.0, -1.5), row(-3.2, -0.2), row(1, 1) > 0
    icepop = {"kind": "rejected", "low": 0.5, "high": 5.0, "level": "token"}
    assert mismatch_weights(logp, sampled, mask, **icepop)[0].tolist() == [[1.0, 0.0]]


def test_only_the_product_depends_on_length() -> None:
    # 1.02 at every token: 1.02^10 = 1.22 stays below 2, 1.02^100 = 7.2 does not
    for length, kept in ((10, True), (100, False)):
        logp, mask = torch.zeros(1, length), torch.ones(1, length, dtype=torch.bool)
        sampled = logp - math.log(1.02)
        band = {"kind": "masked", "low": 0.5, "high": 2.0}
        product, _ = mismatch_weights(logp, sampled, mask, **band, level="sequence")
        mean, _ = mismatch_weights(logp, sampled, mask, **band, level="geometric")
        assert bool((product > 0).all()) == kept == bool((product > 0).any())
        assert mean.flatten().tolist() == pytest.approx([1.02] * length, rel=1e-5)


def everything(logp: Tensor, sampled: Tensor, mask: Tensor) -> list[Tensor]:
    """What every function of the module returns."""
    adv = torch.where(torch.arange(len(logp))[:, None] % 2 == 0, 1.0, -1.0).expand_as(logp)
    adv = torch.where(mask, adv, logp)  # poison where the others have it
    band = {"low": 0.7, "high": 1.5}
    found = [off_policy_mask(logp, sampled, adv, mask, delta=0.1)]
    for level in ("token", "sequence_sum", "sequence_mean", "sequence_max"):
        found.append(divergence_mask(logp, sampled, mask, kind="k3", level=level, high=0.2))
    for kind in KINDS:
        for level in LEVELS:
            weight, stats = mismatch_weights(logp, sampled, mask, kind=kind, level=level, **band)
            found += [weight, *vars(stats).values()]
            dirty = torch.where(mask, weight, logp)
            found += [mean_one(dirty, mask, level=name) for name in LEVELS]
    return found


@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_masked_entries_are_never_read(poison: float) -> None:
    logp, sampled, mask = batch()
    clean = everything(logp, sampled, mask)
    dirty = everything(torch.where(mask, logp, poison), torch.where(mask, sampled, poison), mask)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))


@pytest.mark.parametrize("poison", [NAN, INF])
def test_the_gradient_is_the_weight_times_that_of_the_loss(poison: float) -> None:
    logp, sampled, mask = batch()
    old = logp + 0.05
    adv = torch.ones_like(logp)
    options = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None}

    def gradient(weighted: bool, outside: float) -> Tensor:
        leaf = torch.where(mask, logp, outside).requires_grad_()
        q = torch.where(mask, sampled, outside).requires_grad_()
        loss, _ = clipped(leaf, old, adv, mask, **options)
        if weighted:
            # of the very leaf: the weight must not carry a gradient even then
            found = mismatch_weights(
                leaf, q, mask, kind="truncated", low=0.0, high=2.0, level="token"
            )
            assert not any(value.requires_grad for value in (found[0], *vars(found[1]).values()))
            loss = loss * found[0]
        loss.sum().backward()
        assert q.grad is None
        return leaf.grad

    weight, _ = mismatch_weights(
        logp, sampled, mask, kind="truncated", low=0.0, high=2.0, level="token"
    )
    torch.testing.assert_close(gradient(True, poison), weight * gradient(False, 0.0))
    assert (gradient(True, poison)[~mask] == 0).all()


@pytest.mark.parametrize("side", ["trainer", "engine"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_token_without_a_log_probability_is_rejected(kind: str, side: str) -> None:
    logp, sampled = torch.full((2, 3), -1.0), torch.full((2, 3), -1.0)
    (logp if side == "trainer" else sampled)[0, 1] = NAN
    mask = torch.ones(2, 3, dtype=torch.bool)
    band = {"kind": kind, "low": 0.5, "high": 2.0}
    token, stats = mismatch_weights(logp, sampled, mask, **band, level="token")
    assert token.tolist() == [[1, 0, 1], [1, 1, 1]]
    assert (stats.unknown, stats.masked, stats.masked_sequences) == (1, 1, 0)
    for level in ("sequence", "geometric"):
        whole, stats = mismatch_weights(logp, sampled, mask, **band, level=level)
        assert whole.tolist() == [[0, 0, 0], [1, 1, 1]]
        assert (stats.unknown, stats.masked, stats.masked_sequences) == (1, 3, 1)
        assert stats.ratio_max == 1 and stats.kl_engine_nats == 0
    keep = divergence_mask(logp, sampled, mask, kind="k3", level="token", high=1.0)
    assert keep.tolist() == [[True, False, True], [True] * 3]


def test_parts_add_up_to_the_batch() -> None:
    logp, sampled, mask = batch()
    options = {"kind": "masked", "low": 0.5, "high": 2.0, "level": "sequence"}
    whole, stats = mismatch_weights(logp, sampled, mask, **options)
    total: dict[str, float] = {}
    for part in ([4, 0, 2], [3], [5, 1]):
        weight, of_part = mismatch_weights(logp[part], sampled[part], mask[part], **options)
        assert torch.equal(weight, whole[part])
        for name, value in vars(of_part).items():
            before = total.get(name, 0.0)
            total[name] = (
                max(before, value.item()) if name == "ratio_max" else before + value.item()
            )
    assert total == pytest.approx({name: value.item() for name, value in vars(stats).items()})


def test_weights_over_their_mean_by_hand() -> None:
    weight = torch.tensor([[1.0, 3.0, 9.0], [2.0, NAN, NAN], [NAN, NAN, NAN]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False] * 3])
    # tokens: (1 + 3 + 2) / 3 = 2; sequences: ((1 + 3) / 2 + 2) / 2 = 2
    for level in LEVELS:
        found = mean_one(weight, mask, level=level)
        assert found.tolist() == [[0.5, 1.5, 0], [1, 0, 0], [0, 0, 0]]
    longer = torch.tensor([[True, True, True], [True, False, False], [False] * 3])
    # tokens: (1 + 3 + 9 + 2) / 4 = 3.75; sequences: (13 / 3 + 2) / 2 = 19 / 6
    assert mean_one(weight, longer, level="token")[1, 0].item() == pytest.approx(2 / 3.75)
    for level in ("sequence", "geometric"):
        assert mean_one(weight, longer, level=level)[1, 0].item() == pytest.approx(12 / 19)


def test_nothing_kept_stays_nothing() -> None:
    mask = torch.ones(2, 2, dtype=torch.bool)
    assert mean_one(torch.zeros(2, 2), mask, level="token").tolist() == [[0, 0], [0, 0]]
    for shape in ((0, 3), (2, 0)):
        empty, none = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
        assert all(value.sum() == 0 for value in everything(empty, empty, none))


def test_punishment_of_what_the_policy_left_behind_is_dropped() -> None:
    # mean(sampled - logp): 0.15, 0.05, 0.15; the first and last are too far, the last is good
    logp = torch.tensor([[-1.2, -1.1], [-1.1, -1.0], [-1.2, -1.1], [-1.3, NAN], [NAN, NAN]])
    sampled = torch.full((5, 2), -1.0)
    adv, mask = torch.tensor([-1.0, -1.0, 1.0, -1.0, -1.0]), torch.ones(5, 2, dtype=torch.bool)
    keep = off_policy_mask(logp, sampled, adv[:, None].expand(5, 2), mask, delta=0.1)
    # row 3 is judged by the one token known, 0.3; of row 4 none is
    assert keep[:, 0].tolist() == [False, True, True, False, False]
    assert (keep[:, 0] == keep[:, 1]).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"kind": "clipped"}, "unknown mismatch kind 'clipped'"),
        ({"level": "batch"}, "unknown mismatch level 'batch'"),
        ({"low": -0.1}, "low is -0.1, expected a number >= 0"),
        ({"low": NAN}, "low is nan"),
        ({"low": INF}, "low is inf"),
        ({"high": 0.5}, "high is 0.5, expected > low = 0.5"),
        ({"high": NAN}, "high is nan, expected > low"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_named(option: dict, message: str) -> None:
    options = {"kind": "masked", "low": 0.5, "high": 2.0, "level": "token"} | option
    with pytest.raises(ValueError, match=message):
        mismatch_weights(*batch(), **options)


def test_a_wrong_option_of_the_others_is_named() -> None:
    logp, sampled, mask = batch()
    options = {"kind": "k3", "level": "token", "high": 0.1}
    for wrong, message in (
        ({"kind": "k1"}, "unknown divergence 'k1'"),
        ({"level": "sequence"}, "unknown divergence level 'sequence'"),
        ({"high": 0.0}, "high is 0.0, expected > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            divergence_mask(logp, sampled, mask, **(options | wrong))
    with pytest.raises(ValueError, match="delta is -1, expected >= 0"):
        off_policy_mask(logp, sampled, logp, mask, delta=-1)
    with pytest.raises(ValueError, match="unknown mismatch level 'batch'"):
        mean_one(logp, mask, level="batch")


def test_a_wrong_tensor_is_named() -> None:
    logp, sampled, mask = batch()
    options = {"kind": "masked", "low": 0.5, "high": 2.0, "level": "token"}
    with pytest.raises(ValueError, match=r"logp_sampled_BT has shape \(6, 4\), expected \(6, 5\)"):
        mismatch_weights(logp, sampled[:, :4], mask, **options)
    with pytest.raises(TypeError, match="mask_BT has dtype torch.float64, expected torch.bool"):
        mismatch_weights(logp, sampled, mask.double(), **options)
    with pytest.raises(ValueError, match=r"adv_BT has shape \(6,\)"):
        off_policy_mask(logp, sampled, logp[:, 0], mask, delta=0.1)
