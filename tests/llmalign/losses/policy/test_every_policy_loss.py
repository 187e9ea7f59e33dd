"""What holds for every policy loss, whatever its formula."""

import pytest
import torch
from torch import Tensor

from llmalign.losses.aggregate import sequence_weights
from llmalign.losses.policy.cispo import cispo
from llmalign.losses.policy.cov import clip_cov, kl_cov
from llmalign.losses.policy.gmpo import gmpo
from llmalign.losses.policy.gspo import gspo, gspo_token
from llmalign.losses.policy.imitation import raft, superhf
from llmalign.losses.policy.luspo import luspo
from llmalign.losses.policy.pacs import pacs
from llmalign.losses.policy.ratio_norm import ratio_norm
from llmalign.losses.policy.sapo import sapo
from llmalign.losses.policy.stable_reinforce import stable_reinforce
from llmalign.losses.policy.trajectory_balance import subtrajectory_balance, trajectory_balance
from llmalign.losses.policy.vespo import vespo
from llmalign.losses.registry import LOSSES

NAN, INF = float("nan"), float("inf")
FUNCTIONS = (
    cispo,
    clip_cov,
    gmpo,
    gspo,
    gspo_token,
    kl_cov,
    luspo,
    pacs,
    raft,
    ratio_norm,
    sapo,
    stable_reinforce,
    subtrajectory_balance,
    superhf,
    trajectory_balance,
    vespo,
)
# Options under which every branch acts on the few tokens of ``batch``.
VISIBLE = {
    "clip_cov": {"share": 0.2, "cov_low": 0.0},
    "kl_cov": {"share": 0.3},
    "ratio_norm": {"bucket_tokens": 2},
    "superhf": {"kl_coef": 0.3},
    "gspo": {"clip_low": 0.1, "clip_high": 0.2},
    "gspo_token": {"clip_low": 0.1, "clip_high": 0.2},
    "luspo": {"clip_low": 0.1, "clip_high": 0.2},
}
ENTRIES = {entry.name: entry for entry in LOSSES.entries() if entry.thing in FUNCTIONS}
each_loss = pytest.mark.parametrize("name", sorted(ENTRIES))


def batch(name: str) -> dict[str, Tensor]:
    """Ratios on all sides of the bounds, a hole in row 0 and no token in row 3."""
    generator = torch.Generator().manual_seed(0)
    shape = (6, 5)
    logp = -torch.rand(shape, generator=generator, dtype=torch.float64) * 3
    old = logp + 0.6 * torch.randn(shape, generator=generator, dtype=torch.float64)
    adv = torch.randn(shape, generator=generator, dtype=torch.float64)
    extra = torch.rand(shape, generator=generator, dtype=torch.float64)
    if name == "pacs":
        adv = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)[:, None].expand(
            shape
        )
    mask = torch.arange(5)[None, :] < torch.tensor([5, 3, 1, 0, 4, 2])[:, None]
    mask[0, 2] = False
    known = {
        "logp_BT": logp,
        "logp_old_BT": old,
        "adv_BT": adv,
        "mask_BT": mask,
        "seed": torch.tensor(0),
        "group_B": torch.tensor([7, 7, 7, 2, 2, 2]),
        "ref_kl_BT": extra,
        "logp_end_BT": -1 - extra,
    }
    return {one: known[one] for one in ENTRIES[name].inputs}


def call(name: str, tensors: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    entry = ENTRIES[name]
    options = entry.resolve(VISIBLE.get(name, {}), "loss")
    given = [int(v) if key == "seed" else v for key, v in tensors.items()]
    loss_BT, stats = entry.thing(*given, **options)
    return loss_BT, vars(stats)


def test_all_are_registered_and_say_how_they_may_be_summed() -> None:
    assert len(ENTRIES) == len(FUNCTIONS)
    for entry in ENTRIES.values():
        assert entry.traits["stage"] == "policy"
        assert entry.traits["level"] in ("token", "sequence")
        lengths = torch.tensor([2, 1])
        for kind in entry.traits["aggregates"]:
            sequence_weights(lengths, kind=kind, max_tokens=2, num_sequences=None)


@each_loss
@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_masked_entries_are_never_read(name: str, poison: float) -> None:
    clean, dirty = batch(name), batch(name)
    mask = clean["mask_BT"]
    for key, value in dirty.items():
        if value.is_floating_point():
            dirty[key] = torch.where(mask, value, poison)
    found = []
    for tensors in (clean, dirty):
        tensors["logp_BT"] = tensors["logp_BT"].clone().requires_grad_()
        loss, stats = call(name, tensors)
        loss.sum().backward()
        found.append((loss, tensors["logp_BT"].grad, stats))
    (loss, grad, stats), (dirty_loss, dirty_grad, dirty_stats) = found
    assert torch.equal(loss, dirty_loss) and torch.equal(grad, dirty_grad)
    assert stats == dirty_stats
    assert (loss[~mask] == 0).all() and (grad[~mask] == 0).all()
    assert (loss[mask] != 0).any() and (grad[mask] != 0).any()


@each_loss
def test_only_what_says_so_carries_a_gradient(name: str) -> None:
    tensors = batch(name)
    for key, value in tensors.items():
        if value.is_floating_point():
            tensors[key] = value.clone().requires_grad_()
    loss, stats = call(name, tensors)
    loss.sum().backward()
    with_gradient = {key for key, value in tensors.items() if value.grad is not None}
    assert with_gradient == {"logp_BT"} | {"ref_kl_BT"} & tensors.keys()
    assert not any(value.requires_grad for value in stats.values())


@each_loss
def test_statistics_are_of_the_tokens_that_count(name: str) -> None:
    tensors = batch(name)
    mask, log_rho = tensors["mask_BT"], tensors["logp_BT"] - tensors["logp_old_BT"]
    _, stats = call(name, tensors)
    assert stats["tokens"] == 14
    assert stats["log_rho_nats"].item() == pytest.approx(log_rho[mask].sum().item())
    assert stats["rho_max"].item() == pytest.approx(log_rho[mask].max().exp().item())


@each_loss
def test_micro_batches_of_whole_groups_add_up(name: str) -> None:
    traits = ENTRIES[name].traits
    parts = [[0, 1, 2], [3, 4, 5]] if traits.get("whole_groups") else [[3], [0, 4], [2, 1, 5]]
    if traits.get("whole_batch"):
        pytest.skip("its statistics are of all rows")
    tensors = batch(name)
    for kind in traits["aggregates"]:
        weight_B = sequence_weights(
            tensors["mask_BT"].sum(1), kind=kind, max_tokens=5, num_sequences=None
        )
        gradients = []
        for split in (parts, [list(range(6))]):
            leaf = tensors["logp_BT"].clone().requires_grad_()
            for part in split:
                cut = {
                    key: value[part] if value.dim() else value
                    for key, value in (tensors | {"logp_BT": leaf}).items()
                }
                (weight_B[part][:, None] * call(name, cut)[0]).sum().backward()
            gradients.append(leaf.grad)
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


@each_loss
def test_rows_without_any_token_and_no_rows_are_fine(name: str) -> None:
    tensors = batch(name)
    tensors["mask_BT"] = torch.zeros_like(tensors["mask_BT"])
    assert (call(name, tensors)[0] == 0).all()
    empty = {key: value[:0] if value.dim() else value for key, value in tensors.items()}
    assert call(name, empty)[0].shape == (0, 5)


@each_loss
def test_float32_stays_float32(name: str) -> None:
    tensors = {
        key: value.float() if value.is_floating_point() else value
        for key, value in batch(name).items()
    }
    wide = call(name, batch(name))[0]
    narrow = call(name, tensors)[0]
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=1e-5)


@each_loss
@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("logp_BT", torch.zeros(6, 5, dtype=torch.int64), TypeError, "logp_BT has dtype"),
        ("logp_old_BT", torch.zeros(5), ValueError, r"logp_old_BT has shape \(5,\)"),
        ("adv_BT", torch.zeros(6, 1), ValueError, r"adv_BT has shape \(6, 1\)"),
        ("mask_BT", torch.ones(6, 5), TypeError, "mask_BT has dtype torch.float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_tensor_is_named(name: str, key: str, value, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call(name, batch(name) | {key: value})
