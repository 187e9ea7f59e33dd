"""The command line as a user meets it: in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
import yaml


def llmalign(*arguments, **environment):
    return subprocess.run(
        # -P: an installed script does not see the working directory either
        [sys.executable, "-P", "-m", "llmalign.cli", *arguments],
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


ROWS = [
    {"id": "half", "gold": "1/2", "prediction": "\\boxed{0.5}", "label": True, "category": "a"},
    {"id": "odd", "gold": "3", "prediction": "so\n\x1b[31m\\boxed{3}", "label": False},
    {"id": "two", "gold": "2", "prediction": "\\boxed{3}", "label": "false"},
]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def test_verify_prints_one_json_object(rows):
    done = llmalign("verify", "math", rows, "--json", "--against", "trl")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["rows"], found["false_accepts"], found["disagreements"]) == (3, 1, ["odd"])
    assert found["by_category"]["a"]["accuracy"] == 1.0
    assert found["against"]["kind"] == "trl"


def test_verify_shows_tables_without_what_a_terminal_would_obey(rows):
    done = llmalign("verify", "math", rows)
    assert done.returncode == 0, done.stderr
    for shown in ("math|v", "false accepts", "1 wrong decisions", "odd", "slowest", "by category"):
        assert shown in done.stdout
    assert "\x1b[31m" not in done.stdout
    assert "wrong decisions" not in llmalign("verify", "math", rows, "--disagreements", "0").stdout


def test_verify_fails_by_its_exit_code_where_a_bound_is_missed(rows):
    assert llmalign("verify", "math", rows, "--min-accuracy", "0.6").returncode == 0
    done = llmalign("verify", "math", rows, "--json", "--min-accuracy", "0.9")
    assert done.returncode == 1 and json.loads(done.stdout)["rows"] == 3
    assert done.stderr == (
        "error: accuracy is 0.6667, expected at least 0.9: 0.2333 short, 1 of 3 rows\n"
    )
    done = llmalign("verify", "math", rows, "--max-false-accept", "0.1")
    assert done.returncode == 1 and "false accept rate is 0.5000" in done.stderr


def test_a_reward_of_ones_own_is_found_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "def size(completions, **columns):\n    return [float(len(c)) for c in completions]\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"prompt": "q", "completion": "abc"}')
    (tmp_path / "own.yaml").write_text("reward: own:size")
    monkeypatch.chdir(tmp_path)
    done = llmalign("score", "own.yaml", "rows.jsonl", "--json")
    assert json.loads(done.stdout)["rows"][0]["reward"] == 3.0, done.stderr


def test_verify_takes_options_and_a_function_of_ones_own(rows, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from llmalign.verifiers import Judgement, Verdict\n"
        "def judge(text, gold, *, word, times=1):\n"
        "    right = text.count(word) == times\n"
        "    return Judgement(Verdict.RIGHT if right else Verdict.WRONG, word, '')\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--option", 'word="0.5"', "--option", "times=1"]
    found = llmalign("verify", "mine:judge", rows, "--json", *options)
    assert json.loads(found.stdout)["accuracy"] == 1.0, found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["maths", "ROWS"], "unknown verifier 'maths'; did you mean 'math'"),
        (["math", "none.jsonl"], "rows are 'none.jsonl', expected a JSONL file that exists"),
        (["math", "ROWS", "--option", "form"], "--option is 'form', expected key=value"),
        (["math", "ROWS", "--option", "form=3"], "math.form is 3, expected one of 'response'"),
        (["math", "ROWS", "--workers", "0"], "workers is 0, expected > 0"),
        (["math", "ROWS", "--against", "math-verfy"], "unknown verifier 'math-verfy'"),
    ],
)
def test_verify_names_what_is_wrong_on_one_line(rows, arguments, message):
    done = llmalign("verify", *(rows if a == "ROWS" else a for a in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_list_of_verifiers_shows_signatures():
    shown = llmalign("list", "verifiers").stdout
    assert "math|v" in shown and "Equality of mathematical answers" in shown
    listed = json.loads(llmalign("list", "verifiers", "--json").stdout)
    assert all(row["signature"].startswith(f"{row['name']}|v") for row in listed)


def test_doctor_describes_the_machine():
    done = llmalign("doctor")
    assert done.returncode == 0, done.stderr
    for shown in ("torch 2", "cores", "GiB memory", "sandbox: level", "cannot stop"):
        assert shown in done.stdout
    machine = json.loads(llmalign("doctor", "--json").stdout)["machine"]
    assert machine["cores"] > 0 and machine["sandbox"]["level"] in ("strict", "basic", "none")


def test_doctor_checks_the_golds_of_a_recipe(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"problem": "1+1", "answer": "2"}\n{"problem": "1+2", "answer": ""}\n')
    settings = [f"data.train={{path: {data}}}", "data.eval=null"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    done = llmalign("doctor", "quickstart", *overrides)
    assert done.returncode == 1
    assert "2 train problems, 1 golds cannot be scored" in done.stdout
    assert "data-2" in done.stdout and "gold is ''" in done.stdout


def test_help_names_every_verb():
    out = llmalign("--help").stdout
    for verb in ("train", "eval", "verify", "doctor", "report", "list", "recipe"):
        assert verb in out


def test_score_shows_every_node_and_attack_what_nothing_earns(tmp_path):
    samples, tree = tmp_path / "s.jsonl", tmp_path / "reward.yaml"
    row = {"problem_id": "a", "prompt": "1+1", "answer": "2", "completion": r"\boxed{2}"}
    samples.write_text(json.dumps(row))
    tree.write_text(r"sum: [math, {format: {pattern: '\\boxed\{.+\}', weight: 0.5}}]")
    done = llmalign("score", tree, samples, "--json", "--output", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"][0]["aspects"] == {"math": 1.0, "format": 1.0, "sum": 1.5}
    assert json.loads((tmp_path / "out.jsonl").read_text())["reward"] == 1.5
    done = llmalign("score", tree, samples, "--attack")
    assert done.returncode == 0 and "prompt echo" in done.stdout
    done = llmalign("score", tmp_path / "none.yaml", samples)
    assert done.returncode == 1 and "none.yaml does not exist" in done.stderr
