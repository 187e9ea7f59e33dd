"""The gradient of one optimizer step is the same however its rows go through the model."""

import contextlib
import itertools
import json
import subprocess
import sys

import pytest
import torch
from support import step_gradient
from support.step_gradient import gradient, norm_in_float64, opened
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from llmalign.advantages import group
from llmalign.forward import Forward
from llmalign.inputs import LOSS_INPUTS
from llmalign.losses import LOSSES
from llmalign.policy import load_policy

ENTRIES = {
    e.name: e
    for e in LOSSES.entries()
    if e.traits.get("stage") == "policy" and set(e.inputs) <= LOSS_INPUTS.keys()
}
POLICY_LOSSES = list(ENTRIES)
ADDITIVE = [n for n, e in ENTRIES.items() if not {"whole_batch", "whole_groups"} & e.traits.keys()]
LAYOUTS = {
    "row by row": {"tokens_per_microbatch": 1},
    "small portions": {"tokens_per_microbatch": 40},
    "end to end": {"packing": "always"},
    "end to end, small portions": {"packing": "always", "tokens_per_microbatch": 60},
    "each prompt once": {"share_prompts": "always"},
    "each prompt once, small portions": {"share_prompts": "always", "tokens_per_microbatch": 60},
}
AGGREGATES = ["token_mean", "sequence_mean", "sequence_sum", "constant"]


@pytest.fixture(autouse=True)
def norms_in_float64(monkeypatch):
    monkeypatch.setattr(Qwen3RMSNorm, "forward", norm_in_float64)


@pytest.fixture
def loop_of(small, tmp_path):
    """A function: the online loop of a recipe in float64, and scored samples of one step of it."""
    stack = contextlib.ExitStack()
    numbers = itertools.count()

    def make(**changes):
        changes.setdefault("schedule", {"updates_per_batch": 2})
        return stack.enter_context(opened(small(**changes), tmp_path / f"loop{next(numbers)}"))

    with stack:
        yield make


def choices(kind):
    """What goes with a loss in a recipe."""
    allowed = ENTRIES[kind].traits.get("aggregates") or ("sequence_mean",)
    # Bounds so wide that not every sequence of the made-up old policy lies outside.
    options = {n: 0.5 for n, default in ENTRIES[kind].defaults.items() if default in (3e-4, 4e-4)}
    made = {"loss": {"kind": kind, **options}, "aggregate": allowed[0]}
    if kind in ("pacs", "trajectory_balance"):
        made |= {"advantage": {"kind": "none"}, "reward": "llmalign_loop_rewards:label"}
    return made


def assert_equal(one, other):
    assert one.abs().max() > 0
    assert torch.allclose(one, other, rtol=0, atol=1e-13 * float(one.abs().max()))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("kind", POLICY_LOSSES)
def test_no_loss_depends_on_the_layout_of_the_forward_pass(loop_of, kind, layout):
    loop, experience = loop_of(**choices(kind), kl={"coef": 0.1}, entropy={"bonus": 0.01})
    whole, stats = gradient(loop, experience)
    cut, cut_stats = gradient(loop, experience, **layout)
    assert_equal(whole, cut)
    assert cut_stats == pytest.approx(stats, rel=1e-6)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_no_aggregation_depends_on_the_layout_or_on_dropped_rows(loop_of, aggregate):
    loop, experience = loop_of(aggregate=aggregate)
    experience.adv_BT[:5] = 0.0
    whole, _ = gradient(loop, experience)
    for layout in LAYOUTS.values():
        assert_equal(whole, gradient(loop, experience, **layout)[0])
    everything = list(range(len(experience.reward_B)))
    assert len(loop.learner.active(experience, everything)) < len(everything)
    assert_equal(whole, gradient(loop, experience, active=everything)[0])


@pytest.mark.parametrize("kind", ADDITIVE)
def test_the_parts_of_several_processes_add_up(loop_of, kind):
    loop, experience = loop_of(**choices(kind))
    whole, _ = gradient(loop, experience)
    parts = [gradient(loop, experience, rows=range(r, 12, 3))[0] for r in range(3)]
    assert_equal(whole, sum(parts))


# What a recipe may add to a loss: none of it may depend on how the rows are cut either.
ADDED = {
    "the fifth of the tokens with most entropy": {"token_weights": {"kind": "high_entropy"}},
    "forks, their entropy in a band": {
        "token_weights": {"kind": "fork"},
        "entropy": {"band": {"coef": 0.1}},
    },
    "credit by attention": {"token_weights": {"kind": "attention"}},
    "samples chosen, compared with all": {
        "sampling": {"train_samples": 2, "select": "spread", "baseline": "all"}
    },
    "weights for an engine that is off": {"mismatch": {"kind": "truncated", "high": 1.01}},
    "sequences left out as too far off": {"mismatch": {"off_policy_delta": 0.001}},
    "truncated sampling": {"rollout": {"top_k": 6, "temperature": 0.8}},
    "leaves of a tree": {
        "sampling": {"tree": {"kind": "treerl", "trees": 2, "per_point": 1}},
        "advantage": {"kind": "treerl"},
    },
    "a KL over the whole vocabulary": {
        "loss": {"kind": "superhf", "kl_coef": 0.1},
        "advantage": {"kind": "best_of_batch"},
    },
}


@pytest.mark.parametrize("changes", ADDED.values(), ids=ADDED)
def test_nothing_added_to_a_loss_depends_on_the_layout(loop_of, changes):
    added = {"kl": {"coef": 0.1}, **changes}
    added["entropy"] = {"bonus": 0.01, **changes.get("entropy", {})}
    loop, experience = loop_of(**added)
    whole, stats = gradient(loop, experience)
    for layout in LAYOUTS.values():
        cut, cut_stats = gradient(loop, experience, **layout)
        assert_equal(whole, cut)
        assert cut_stats == pytest.approx(stats, rel=1e-6)


@pytest.mark.parametrize("kind", [n for n in ADDITIVE if ENTRIES[n].traits["level"] == "token"])
def test_a_loss_taken_inside_the_head_has_the_gradient_of_one_taken_outside(
    loop_of, kind, monkeypatch
):
    loop, experience = loop_of(**choices(kind), kl={"coef": 0.1}, entropy={"bonus": 0.01})
    inside, stats = gradient(loop, experience)
    monkeypatch.setattr(type(loop.learner), "_by_token", property(lambda self: False))
    outside, outside_stats = gradient(loop, experience)
    assert_equal(outside, inside)
    assert outside_stats == pytest.approx(stats, rel=1e-6)


@pytest.mark.parametrize("switch", ["drop_idle", "fuse_head"])
def test_what_saves_work_changes_no_gradient(loop_of, switch):
    found = []
    for on in (True, False):
        loop, experience = loop_of(schedule={"updates_per_batch": 2, switch: on})
        experience.adv_BT[:5] = 0.0
        found.append(gradient(loop, experience)[0])
    assert_equal(*found)


@pytest.mark.slow
def test_the_shares_of_two_real_processes_add_up(small, tmp_path):
    """Whole groups are dealt to two processes, gloo adds up their gradients."""
    kinds = [n for n in POLICY_LOSSES if not ENTRIES[n].traits.get("whole_batch")]
    paths = []
    for kind in kinds:
        schedule = {"updates_per_batch": 2}
        recipe = small(**choices(kind), name=kind, schedule=schedule, kl={"coef": 0.1})
        paths.append(tmp_path / f"{kind}.yaml")
        paths[-1].write_text(recipe.to_yaml())
    command = [sys.executable, step_gradient.__file__, str(tmp_path / "rendezvous")]
    running = [
        subprocess.Popen(
            [*command, str(rank), "2", *map(str, paths)], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    off = json.loads(printed[0])
    assert off.keys() == set(kinds)
    assert max(off.values()) < 1e-13, off


def test_a_model_that_cannot_share_prompts_is_computed_row_by_row(loop_of, monkeypatch):
    loop, experience = loop_of()
    whole, _ = gradient(loop, experience)
    monkeypatch.setattr(type(loop.policy), "shares_prompts", lambda self, rows: False)
    with pytest.warns(UserWarning, match="gives other log-probs when a prompt is computed once"):
        assert_equal(whole, gradient(loop, experience, share_prompts="always")[0])


def test_a_wrong_position_or_mask_is_found_by_the_check(loop_of, monkeypatch):
    loop, experience = loop_of()
    rows = experience.rows
    assert loop.policy.shares_prompts(rows)
    from llmalign.batch import SharedBatch

    right = SharedBatch.position_BT.fget
    monkeypatch.setattr(SharedBatch, "position_BT", property(lambda self: right(self) + 1))
    assert not loop.policy.shares_prompts(rows)


def test_prompts_are_shared_where_it_pays_and_never_under_dropout(loop_of):
    loop, experience = loop_of(model={"lora": {"rank": 2, "dropout": 0.1}})
    long = [((1,) * 50, (2, 3)), ((1,) * 50, (4,))] * 4
    schedule = loop.recipe.schedule

    def layouts(policy, rows):
        return {type(b).__name__ for _, b in Forward(policy, schedule).batches(rows, range(8))}

    assert layouts(loop.policy, long) == {"TokenBatch"}
    plain = load_policy(loop.recipe.model.model_copy(update={"lora": None}), seed=0)
    assert layouts(plain, long) == {"SharedBatch"}
    assert layouts(plain, [((1,), (2,) * 30)] * 8) == {"TokenBatch"}


# Faults that other trainers had, made again: each must show as a gradient that depends on the cut.


def own_weights(loop, experience, rows, active, stats):
    """Each micro-batch is normalised by its own tokens, and the parts averaged (trl#5619)."""
    portions = [portion for portion, _ in loop.learner.forward.batches(experience.rows, active)]
    for portion in portions:
        for loss in type(loop.learner).losses(loop.learner, experience, portion, portion, stats):
            yield loss / len(portions)


def one_over_parts(loop, experience, rows, active, stats):
    """What the whole has normalised is divided by the number of parts again (ms-swift#10117)."""
    losses = list(type(loop.learner).losses(loop.learner, experience, rows, active, stats))
    yield from (loss / len(losses) for loss in losses)


@pytest.mark.parametrize("mutant", [own_weights, one_over_parts])
def test_the_known_faults_of_normalisation_are_caught(loop_of, monkeypatch, mutant):
    loop, experience = loop_of(aggregate="token_mean")
    loop.learner.losses = lambda *given: mutant(loop, *given)
    whole, _ = gradient(loop, experience)
    cut, _ = gradient(loop, experience, tokens_per_microbatch=40)
    with pytest.raises(AssertionError):
        assert_equal(whole, cut)


def test_a_std_of_rounding_noise_makes_an_advantage_that_comparing_rewards_does_not():
    # NeMo-RL#4161: the float mean of equal rewards need not equal them.
    reward_B = torch.tensor([0.1] * 7, dtype=torch.float32)
    residue = (reward_B - reward_B.mean()) / reward_B.std().clamp(min=1e-12)
    ones = torch.ones(7, 1, dtype=torch.bool)
    found = group(
        reward_B, torch.zeros(7, dtype=torch.long), ones, torch.zeros(7, 1),
        scale="std", eps=1e-6, ddof=1, lone="zero",
    )  # fmt: skip
    assert residue.abs().max() > 0.1 and (found == 0).all()
