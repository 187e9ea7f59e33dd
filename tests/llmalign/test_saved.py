import json

import pytest

from llmalign.saved import attack, read_reward, score

ROWS = [
    {"problem_id": "a", "prompt": "1+1", "answer": "2", "completion": r"\boxed{2}"},
    {"problem_id": "b", "prompt": "1+2", "answer": "3", "completion": r"\boxed{4}"},
    {"problem_id": "a", "prompt": "1+1", "answer": "2", "completion": "I do not know it at all"},
]


def test_every_node_is_shown_for_every_sample_in_order() -> None:
    found = score({"sum": ["math", {"format": {"pattern": r"\\boxed\{.*\}", "weight": 0.5}}]}, ROWS)
    assert [row["reward"] for row in found.rows] == [1.5, 0.5, 0.0]
    assert [row["verdict"] for row in found.rows] == ["right", "wrong", "no_answer"]
    assert found.rows[1]["completion"] == r"\boxed{4}"
    assert found.summary()["math"] == {
        "mean": pytest.approx(1 / 3), "min": 0.0, "max": 1.0, "not_scorable": 0.0,
    }  # fmt: skip


def test_rows_of_one_problem_are_one_group() -> None:
    found = score({"normalize": {"of": "math", "eps": 0}}, ROWS)
    assert [row["reward"] for row in found.rows] == pytest.approx([0.707107, 0.0, -0.707107])


def test_files_are_read_and_faults_name_their_place(tmp_path) -> None:
    samples, tree = tmp_path / "samples.jsonl", tmp_path / "reward.yaml"
    samples.write_text("\n".join(json.dumps(row) for row in ROWS))
    tree.write_text("reward: {math: {right: 2}}\n")
    assert [row["reward"] for row in score(tree, samples).rows] == [2.0, 0.0, 0.0]
    assert read_reward(tree) == {"math": {"right": 2}}
    samples.write_text(json.dumps(ROWS[0]) + "\n{")
    with pytest.raises(ValueError, match=r"samples.jsonl, line 2: no JSON"):
        score(tree, samples)
    samples.write_text('{"answer": 1}')
    with pytest.raises(ValueError, match="line 1: expected an object with one of completion"):
        score(tree, samples)
    samples.write_text('{"completion": null}')
    with pytest.raises(ValueError, match="line 1: the completion is None, expected a text"):
        score(tree, samples)
    tree.write_text("scale: {of: math, factor: 1e-3}")
    assert read_reward(tree)["scale"]["factor"] == 0.001
    samples.write_text("")
    with pytest.raises(ValueError, match="holds no rows"):
        score(tree, samples)
    with pytest.raises(FileNotFoundError, match="nothing.yaml does not exist"):
        score(tmp_path / "nothing.yaml", samples)
    with pytest.raises(ValueError, match="cannot be scored; the first: problem '0': column"):
        score("math", [{"completion": "5"}])
    with pytest.raises(ValueError, match="unknown reward 'maths'"):
        score("maths", ROWS)


def test_the_math_reward_pays_no_attack_on_a_question_in_words() -> None:
    asked = [row | {"prompt": f"What is {row['prompt']}?"} for row in ROWS]
    found = attack("math", asked)
    assert max(row["reward"] for row in found.rows) == 0.0
    assert len({row["attack"] for row in found.rows}) == 15


@pytest.mark.parametrize(
    ("reward", "row", "hole"),
    [
        ({"math": {"markers": ["last_number"]}}, ROWS[0] | {"answer": "9"}, "gold among others"),
        ("math", ROWS[0], "prompt echo"),  # "1+1" equals 2: such a task needs a marker
    ],
)
def test_a_hole_is_found_and_stands_first(reward, row, hole) -> None:
    found = attack(reward, [row])
    assert (found.rows[0]["attack"], found.rows[0]["reward"]) == (hole, 1.0)
