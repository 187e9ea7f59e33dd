import json
from pathlib import Path

import pytest
import torch

from llmalign.losses.preference.dpo import sigmoid
from llmalign.observe import read_metrics
from llmalign.offline import open_offline
from llmalign.policy import load_policy
from llmalign.run import RunFolder
from llmalign.training import train

PAIRS = [
    {"prompt": f"{i}+1=", "chosen": f" {i + 1} yes", "rejected": f" {i} no"} for i in range(12)
]


def write_rows(tmp_path, rows):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def offline(small, tmp_path):
    """A function: an offline recipe on the pairs, with changes."""

    def make(rows=PAIRS, algorithm="dpo", **changes):
        source = {"path": write_rows(tmp_path, rows), "generate": None, "options": {}}
        base = {
            "algorithm": algorithm,
            "reward": None,
            "data": {"train": source, "eval": None},
            "schedule": {"steps": 6, "batch_size": 5, "checkpoint_every": 2},
        }
        return small(**{**base, **changes})

    return make


@pytest.fixture
def loop_of(tmp_path):
    opened = []

    def make(recipe):
        folder = RunFolder(tmp_path / f"loop{len(opened)}")
        folder.path.mkdir()
        opened.append(open_offline(recipe, folder, load_policy(recipe.model, seed=recipe.seed)))
        return opened[-1].__enter__()

    yield make
    for manager in opened:
        manager.__exit__(None, None, None)


@pytest.mark.parametrize("algorithm", ["dpo", "ipo"])
def test_the_margin_of_chosen_over_rejected_grows(offline, algorithm):
    recipe = offline(algorithm=algorithm, schedule={"steps": 30, "batch_size": 6})
    assert train(recipe)["updates"] == 30
    rows = read_metrics(folder_of(recipe) / "metrics.jsonl")
    assert rows[0]["margin"] == pytest.approx(0, abs=1e-6)  # policy and reference are one at first
    assert rows[-1]["margin"] > 0.1 and rows[-1]["accuracy"] == 1.0


def folder_of(recipe):
    return Path(recipe.output) / recipe.name


def test_the_first_loss_is_that_of_equal_policies_also_with_label_smoothing(offline, loop_of):
    loop = loop_of(offline(loss={"kind": "dpo", "beta": 0.1, "label_smoothing": 0.3}))
    assert loop.step(0)["loss"] == pytest.approx(0.6931, abs=1e-3)  # log 2 whatever the smoothing


def test_the_gradient_is_the_losss_own_whatever_the_microbatch(offline, loop_of):
    loop = loop_of(offline())
    with torch.no_grad():  # leave the reference, so that the pairs differ in weight
        for p in loop.policy.trainable.values():
            p.mul_(1.1)
    chosen = list(range(6))
    found = []
    for tokens in (1, 60, 10_000):
        schedule = loop.recipe.schedule.model_copy(update={"tokens_per_microbatch": tokens})
        loop.recipe = loop.recipe.model_copy(update={"schedule": schedule})
        loop.policy.model.zero_grad()
        for loss in loop._pair_losses(chosen, {}):
            loss.backward()
        found.append([p.grad.clone() for p in loop.policy.trainable.values()])
    loop.policy.model.zero_grad()
    logp_N2 = loop._pair_logprobs([loop.examples[i] for i in chosen], loop.policy)
    length_N2 = torch.tensor([[len(c) for _, c in loop.examples[i]] for i in chosen])
    whole, _ = sigmoid(
        *logp_N2.unbind(1),
        *loop._reference[chosen].unbind(1),
        *length_N2.to(logp_N2).unbind(1),
        beta=0.1,
        label_smoothing=0.0,
    )
    whole.mean().backward()
    expected = [p.grad.clone() for p in loop.policy.trainable.values()]
    for grads in found:
        for a, b in zip(grads, expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def test_reference_logprobs_are_computed_once_and_kept(offline, tmp_path):
    recipe = offline()
    folder = RunFolder(tmp_path / "kept")
    folder.path.mkdir()
    with open_offline(recipe, folder, load_policy(recipe.model, seed=0)) as loop:
        first = loop._reference.clone()
    other = load_policy(recipe.model, seed=99)  # other weights: what is read cannot be recomputed
    with open_offline(recipe, folder, other) as loop:
        assert torch.equal(loop._reference, first)


def test_a_pair_that_teaches_nothing_is_an_error_or_listed(offline):
    rows = [*PAIRS, {"prompt": "x", "chosen": "same", "rejected": "same"}]
    with pytest.raises(
        ValueError, match="1 of 13 pairs cannot be used, first pairs-13.*on_bad_row"
    ):
        train(offline(rows))
    kept = offline(rows, name="dropped")
    kept = kept.model_copy(update={"data": kept.data.model_copy(update={"on_bad_row": "drop"})})
    assert train(kept)["left_out"] == 1


def test_a_row_longer_than_the_context_is_an_error_with_the_way_out(offline):
    rows = [*PAIRS, {"prompt": "x" * 600, "chosen": "a", "rejected": "b"}]
    with pytest.raises(ValueError, match="1 of 13 rows have more than .* data.on_long_prompt=drop"):
        train(offline(rows))


def test_supervised_loss_falls_and_its_reward_judges_held_out_problems(small):
    recipe = small(
        algorithm="sft",
        data={"template": "{problem}\n"},
        schedule={"steps": 40, "batch_size": 16},
        optimizer={"lr": 1e-2},
    )
    summary = train(recipe)
    rows = read_metrics(folder_of(recipe) / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert summary["before"]["problems"] == summary["after"]["problems"] == 6


def test_pairs_that_are_no_problems_are_judged_on_problems_of_their_own(offline, tmp_path):
    held_out = {"generate": "arithmetic", "count": 5, "options": {"terms": 2}}
    source = {"path": write_rows(tmp_path, PAIRS), "generate": None, "options": {}}
    reward = {"sum": [{"math": {"markers": ["last_number"]}}]}
    recipe = offline(data={"train": source, "eval": held_out}, reward=reward)
    assert train(recipe)["after"]["problems"] == 5
    assert (folder_of(recipe) / "eval" / "after.json").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": "math"}, "reward is 'math' and data.eval is missing"),
        ({"data": {"eval": None, "holdout": 3}}, "data.holdout is 3, but dpo"),
    ],
    ids=["reward without problems", "holdout"],
)
def test_what_an_offline_run_cannot_use_is_refused(offline, changes, message):
    with pytest.raises(ValueError, match=message):
        offline(**changes)
