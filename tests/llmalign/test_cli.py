"""The command line as a user meets it: in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
import yaml


def llmalign(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "llmalign.cli", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
    )


def test_a_fault_is_one_clear_line_without_a_traceback():
    done = llmalign("train", "quickstrat")
    assert done.returncode == 1
    assert done.stderr == (
        "error: unknown recipe 'quickstrat'; did you mean 'quickstart'?; "
        "give a shipped name or a path to a .yaml file\n"
    )


def test_an_unknown_key_in_set_is_named():
    done = llmalign("recipe", "show", "quickstart", "--set", "rollout.temprature=1")
    assert done.returncode == 1
    assert "rollout: unknown key 'temprature'; did you mean 'temperature'" in done.stderr


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("recipes", "quickstart"),
        ("algorithms", "dapo"),
        ("rewards", "soft_overlong"),
        ("verifiers", "math"),
        ("advantages", "leave_one_out"),
        ("losses", "clipped"),
        ("generators", "countdown"),
    ],
)
def test_list_shows_what_there_is(kind, name):
    done = llmalign("list", kind, "--json")
    assert done.returncode == 0, done.stderr
    assert name in {row["name"] for row in json.loads(done.stdout)}
    assert name in llmalign("list", kind).stdout


def test_list_of_an_unknown_kind_names_the_nearest():
    assert "did you mean 'rewards'" in llmalign("list", "reward").stderr


def test_schema_is_json_and_show_is_the_resolved_recipe():
    assert "properties" in json.loads(llmalign("recipe", "schema").stdout)
    shown = yaml.safe_load(llmalign("recipe", "show", "quickstart", "--set", "seed=7").stdout)
    assert shown["seed"] == 7 and shown["loss"]["clip_low"] == 0.2


def test_diff_says_what_differs_and_by_its_exit_code_whether():
    different = llmalign("recipe", "diff", "gsm8k_grpo", "gsm8k_dapo")
    assert different.returncode == 1 and "+algorithm: dapo" in different.stdout
    assert llmalign("recipe", "diff", "quickstart", "quickstart").returncode == 0


def test_train_eval_and_report_work_on_each_others_output(small, tmp_path):
    recipe = small(schedule={"steps": 2})
    path = tmp_path / "mine.yaml"
    path.write_text(recipe.to_yaml())
    done = llmalign("train", str(path), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["finished"] and summary["steps"] == 2
    run = tmp_path / "runs" / "small"
    assert "already holds a run" in llmalign("train", str(path)).stderr
    again = llmalign("train", str(path), "--resume", "auto")
    assert again.returncode == 0 and "is finished" in again.stdout
    found = llmalign("eval", str(run / "final"), "--recipe", str(path), "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["pass@1"] == summary["after"]["pass@1"]
    (run / "report.html").unlink()
    assert llmalign("report", str(run)).returncode == 0 and (run / "report.html").is_file()
    assert "expected a folder with recipe.yaml" in llmalign("report", str(tmp_path)).stderr


def test_help_names_every_verb():
    out = llmalign("--help").stdout
    for verb in ("train", "eval", "report", "list", "recipe"):
        assert verb in out
