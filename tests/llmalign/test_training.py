"""The promise of a run: it ends, it stops in good order, and a broken one goes on bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from llmalign.observe import read_metrics
from llmalign.scale.checkpoint import list_checkpoints, load_checkpoint
from llmalign.training import train

TIMED = ("seconds", "tokens_per_second", "slowest")


def timeless(folder):
    """Metrics without what a clock wrote."""
    return [
        {k: v for k, v in row.items() if not k.startswith(TIMED)}
        for row in read_metrics(Path(folder) / "metrics.jsonl")
    ]


def weights(folder):
    return load_checkpoint(list_checkpoints(Path(folder) / "checkpoints")[0])[0]


def assert_same_run(one, other):
    assert timeless(one) == timeless(other)
    a, b = weights(one), weights(other)
    flat_a, flat_b = _flatten(a), _flatten(b)
    assert flat_a.keys() == flat_b.keys()
    for key, value in flat_a.items():
        same = torch.equal(value, flat_b[key]) if torch.is_tensor(value) else value == flat_b[key]
        assert same, key
    for name in ("before", "after"):
        summaries = [json.loads((Path(f) / "summary.json").read_text())[name] for f in (one, other)]
        assert summaries[0] == summaries[1]
    for path in sorted((Path(one) / "samples").iterdir()):
        assert path.read_text() == (Path(other) / "samples" / path.name).read_text()


def _flatten(value, prefix=""):
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {prefix: value}
    return {k: v for key, item in items for k, v in _flatten(item, f"{prefix}/{key}").items()}


def start(recipe, *extra):
    """A run in a process of its own, as a user starts it."""
    path = Path(recipe.output).parent / f"{recipe.name}.yaml"
    path.write_text(recipe.to_yaml())
    command = [sys.executable, "-m", "llmalign.cli", "train", str(path), *extra]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_until(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    raise AssertionError("condition never came true")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_run_leaves_what_it_promises(small):
    recipe = small(
        warm_start={
            "data": {"train": {"generate": "arithmetic", "count": 30}},
            "schedule": {"steps": 3},
        }
    )
    summary = train(recipe)
    folder = Path(recipe.output) / "small"
    assert summary["finished"] and summary["steps"] == 6 and summary["updates"] == 6
    for name in ("before", "after"):
        low, high = summary[name]["ci"]
        assert 0 <= low <= summary[name]["pass@1"] <= high <= 1
    for name in (
        "recipe.yaml", "environment.json", "metrics.jsonl", "summary.json", "report.html",
        "final/config.json", "final/tokenizer.json", "samples", "eval/before.json",
        "warm_start/final/model.safetensors",
    ):  # fmt: skip
        assert (folder / name).exists(), name
    assert len(read_metrics(folder / "metrics.jsonl")) == 6
    assert len(list_checkpoints(folder / "checkpoints")) == 2
    record = json.loads(
        next(iter(sorted((folder / "samples").iterdir()))).read_text().splitlines()[0]
    )
    assert {"prompt", "completion", "verdict", "advantage"} <= record.keys()
    assert {"math", "spread"} <= record["aspects"].keys()


def test_the_same_recipe_runs_the_same_way_twice(small):
    one, two = small(name="one"), small(name="two")
    train(one)
    train(two)
    assert_same_run(Path(one.output) / "one", Path(two.output) / "two")


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    ["in the middle of a step", "while a checkpoint is written", "right after a checkpoint"],
)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm": "dapo", "schedule": {"updates_per_batch": 2, "epochs_per_batch": 2}},
        {
            "algorithm": "reinforce++",
            "kl": {"coef": 0.1},
            "model": {"lora": {"rank": 4, "dropout": 0.1}},
        },
        {
            "algorithm": "ppo",
            "critic": {"kind": "head", "clip": None, "warmup_steps": 1},
            "kl": {"coef": 0.1, "reference": "ema", "every": 2, "target": 0.01, "horizon": 100},
            "sampling": {"replay": {"share": 0.4}, "problems_per_step": 4},
        },
    ],
    ids=["grpo", "dapo", "reinforce++ with lora", "ppo with a moving reference and replay"],
)
def test_a_run_killed_at_any_moment_goes_on_bit_for_bit(small, moment, changes):
    steps = {"schedule": {**changes.get("schedule", {}), "steps": 14, "checkpoint_every": 3}}
    whole = small(name="whole", **{**changes, **steps})
    assert start(whole).wait() == 0
    broken = small(name="broken", **{**changes, **steps})
    folder = Path(broken.output) / "broken"
    process = start(broken)
    conditions = {
        "in the middle of a step": lambda: len(read_lines(folder / "metrics.jsonl")) >= 5,
        "while a checkpoint is written": lambda: any(
            (folder / "checkpoints").glob(".writing-0000000[69]*")
        ),
        "right after a checkpoint": lambda: (folder / "checkpoints" / "step-00000006").exists(),
    }
    assert wait_until(conditions[moment], process), process.stdout.read()
    process.kill()
    process.wait()
    assert not (folder / "summary.json").exists()
    resumed = start(broken, "--resume", "auto")
    output = resumed.communicate()[0]
    assert resumed.returncode == 0, output
    assert "resumed after step" in output
    assert_same_run(Path(whole.output) / "whole", folder)


def read_lines(path):
    return path.read_text().splitlines() if path.is_file() else []


@pytest.mark.slow
def test_sigterm_finishes_the_step_saves_and_exits_with_zero(small):
    recipe = small(schedule={"steps": 300, "checkpoint_every": 100})
    folder = Path(recipe.output) / "small"
    process = start(recipe)
    wait_until(lambda: len(read_lines(folder / "metrics.jsonl")) >= 3, process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "go on with --resume auto" in output
    done = len(read_lines(folder / "metrics.jsonl"))
    newest = list_checkpoints(folder / "checkpoints")[0]
    assert newest.name == f"step-{done:08d}" and 3 <= done < 300


def test_a_corrupted_newest_checkpoint_falls_back_and_the_end_is_the_same(small):
    whole, broken = small(name="whole"), small(name="broken")
    train(whole)
    train(broken)
    folder = Path(broken.output) / "broken"
    newest = list_checkpoints(folder / "checkpoints")[0]
    (newest / "trainable.pt").write_bytes(b"garbage")
    (folder / "summary.json").unlink()
    summary = train(broken, resume="auto")
    assert any("is corrupted" in n and "trying the one before" in n for n in summary["notes"])
    assert_same_run(Path(whole.output) / "whole", folder)


def test_a_folder_with_another_recipes_run_is_left_alone(small):
    train(small(schedule={"steps": 1}))
    with pytest.raises(ValueError, match="holds a run of another recipe .* choose another --name"):
        train(small(seed=5), resume="auto")
    with pytest.raises(ValueError, match="already holds a run of this recipe; go on with --resume"):
        train(small())
    assert train(small(schedule={"steps": 3}), resume="auto")["steps"] == 3
    assert train(small(seed=5, schedule={"steps": 1}), overwrite=True)["finished"]


def test_a_folder_that_is_no_run_is_never_deleted(small):
    recipe = small()
    folder = Path(recipe.output) / "small"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="choose another --name|does not look like a run"):
            train(recipe, overwrite=overwrite)
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_a_finished_run_is_not_run_again(small):
    recipe = small()
    first = train(recipe)
    again = train(recipe, resume="auto")
    assert again["after"] == first["after"] and again["train_seconds"] == first["train_seconds"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": {"path": "./nowhere", "build": None}}, FileNotFoundError, "'./nowhere'"),
        (
            {"data": {"train": {"path": "./no.jsonl", "generate": None}}},
            FileNotFoundError,
            "no.jsonl",
        ),
        ({"data": {"columns": {"problem": "question"}}}, ValueError, "question"),
        ({"data": {"max_prompt_tokens": 2}}, ValueError, "max_prompt_tokens|on_long_prompt"),
    ],
    ids=["model path", "data path", "missing column", "long prompt"],
)
def test_bad_input_is_a_clear_error_before_any_step(small, changes, error, message):
    with pytest.raises(error, match=message):
        train(small(**changes))


def rows_file(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path), "generate": None, "options": {}}


def test_a_gold_that_nobody_can_read_is_listed_with_its_row(small, tmp_path):
    rows = [{"problem": f"1+{i}", "answer": str(1 + i)} for i in range(8)]
    rows[4]["answer"] = ""
    data = {"train": rows_file(tmp_path, rows)}
    with pytest.raises(ValueError, match="(?s)rows-5.*data.on_bad_gold"):
        train(small(data=data))
    recipe = small(name="dropped", data={**data, "on_bad_gold": "drop"})
    summary = train(recipe)
    assert summary["left_out"] == 1
    listed = json.loads((Path(recipe.output) / "dropped" / "left_out.json").read_text())
    assert listed[0]["id"] == "rows-5"


def test_an_empty_data_set_is_an_error(small, tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        train(small(data={"train": rows_file(tmp_path, [])}))


def test_a_run_that_learns_nothing_says_so(small):
    summary = train(small(reward="llmalign_loop_rewards:constant", schedule={"steps": 2}))
    assert summary["updates"] == 0
    assert any(
        "nothing could be learnt from the reward: in all 6 groups" in note
        for note in summary["notes"]
    )


def test_tensorboard_gets_the_metrics_by_name(small):
    recipe = small(observe={"trackers": ["tensorboard"]}, schedule={"steps": 2})
    train(recipe)
    assert list((Path(recipe.output) / "small").rglob("events.out.tfevents*"))


def test_a_monitor_that_stops_a_run_leaves_a_state_to_go_on_from(small):
    limits = {"truncated": {"stop": 0.01}, "patience": 3}
    folder = Path(small().output) / "small"
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"share of samples cut .*\.truncated\.stop 0.01"):
            train(small(monitors=limits), resume="auto")
    assert len(read_metrics(folder / "metrics.jsonl")) == 4  # one more: stopped again at once
    summary = train(small(), resume="auto")
    assert summary["finished"] and summary["steps"] == 6


def test_each_nodes_share_of_the_advantage_is_logged(small):
    train(small(schedule={"steps": 2}))
    for row in read_metrics(Path(small().output) / "small" / "metrics.jsonl"):
        assert row["share/sum"] == pytest.approx(1.0)
        assert row["share/math"] + row["share/spread"] == pytest.approx(1.0)
        assert row["share/spread"] > 0.5
        assert row["disagreement"] is None
