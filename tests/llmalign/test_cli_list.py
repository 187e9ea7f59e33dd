"""`llmalign list`: kinds in short, one thing in full."""

import json

import pytest
import yaml

from llmalign import cli
from llmalign.rewards import REWARDS, build_reward


@pytest.fixture
def llmalign(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["llmalign", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return run


def test_rewards_are_listed_with_summary_paper_need_range_and_options(llmalign):
    code, out, _ = llmalign("list", "rewards")
    assert code == 0
    block = out[out.index("\nbleu ") :].strip().splitlines()[:4]
    assert [" ".join(line.split()) for line in block] == [
        "bleu Smoothed sentence BLEU of the answer against reference answers.",
        "BLEUBERI: BLEU is a surprisingly effective reward for instruction following",
        "need: pointwise · range: [0, 1]",
        "column, min_reference_tokens",
    ]
    names = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert names == [entry.name for entry in REWARDS.entries()]


def test_one_reward_is_shown_with_types_defaults_and_an_example_to_copy(llmalign):
    code, out, _ = llmalign("list", "rewards", "gate")
    assert code == 0
    assert "R = sum_i w_i r_i" in out and "need: of its children" in out
    assert "  of: a reward, or a list of rewards; required\n" in out
    assert "  thresholds: a list, each a number; default [0.0]\n" in out
    copied = yaml.safe_load(out.partition("example:\n")[2])
    assert copied == {"reward": REWARDS.get("gate", "").traits["example"]}
    assert build_reward(copied["reward"]).name == "gate"


def test_json_holds_all_of_it_for_all_rewards_and_for_one(llmalign):
    rows = {row["name"]: row for row in json.loads(llmalign("list", "rewards", "--json")[1])}
    assert set(rows) == {entry.name for entry in REWARDS.entries()}
    one = json.loads(llmalign("list", "rewards", "bleu", "--json")[1])
    assert one == rows["bleu"]
    assert one["options"][1] == {
        "name": "min_reference_tokens",
        "type": "an integer",
        "default": 8,
        "required": False,
        "help": "what the shortest reference must have.",
    }
    assert one["doc"].startswith(one["summary"]) and one["example"] == {
        "bleu": {"column": "references"}
    }


def test_other_kinds_are_listed_as_before_and_one_of_them_in_full(llmalign):
    row = next(r for r in json.loads(llmalign("list", "verifiers", "--json")[1]))
    assert set(row) == {"name", "summary", "signature", "paper", "options"}
    _, out, _ = llmalign("list", "losses", "clipped")
    assert "  clip_high: a number; default 0.2\n" in out and "example:" not in out
    _, out, _ = llmalign("list", "verifiers", "math")
    assert "signature: math|v" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rewards", "blue"], "list rewards: unknown reward 'blue'; did you mean 'bleu'?"),
        (["reward"], "did you mean 'rewards'"),
        (["recipes", "quickstart"], "name is 'quickstart', expected none after recipes; see"),
    ],
)
def test_a_wrong_name_is_one_clear_line(llmalign, arguments, message):
    code, _, err = llmalign("list", *arguments)
    assert code == 1 and message in err and err.count("\n") == 1
