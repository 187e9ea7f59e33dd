from typing import Any

import pytest

from llmalign.rewards import Group, Problem, RewardHost, Sample, build_reward
from llmalign.rewards.shares import advantage_shares


def shares(spec: Any, *texts_by_group: list[str], std: bool = True) -> dict[str, float]:
    """Of GRPO's advantage, divided by the group's standard deviation unless ``std`` is False."""
    groups = [
        Group(
            Problem(str(g), "q", {"answer": "1"}),
            tuple(Sample(text, tuple(range(len(text))), (), "eos") for text in texts),
        )
        for g, texts in enumerate(texts_by_group)
    ]
    host = RewardHost(build_reward(spec), workers=1)
    scores = host.score(groups)
    host.close()
    advantages = []
    for row in scores:
        known = [s.value for s in row if s.value is not None]
        mean = sum(known) / len(known)
        spread = (sum((v - mean) ** 2 for v in known) / len(known)) ** 0.5 if std else 1.0
        advantages.append([0.0 if s.value is None else (s.value - mean) / spread for s in row])
    return advantage_shares(host.reward, scores, advantages)


def by_length(name: str, **options: Any) -> Any:
    return {"length": {"name": name, "per_token": 1.0, **options}}


RIGHT, WRONG, LONG = "#### 1", "#### 2", "#### 1" + " " * 30


def test_the_shares_of_a_sum_add_up_to_one() -> None:
    spec = {"sum": ["math", by_length("length", weight=0.02)]}
    found = shares(spec, [RIGHT, WRONG, LONG], [WRONG + "  ", RIGHT])
    assert found["sum"] == pytest.approx(1.0)
    assert found["math"] + found["length"] == pytest.approx(1.0)
    assert 0 < found["length"] < found["math"]


def test_a_child_that_pulls_the_other_way_has_a_negative_share() -> None:
    spec = {"sum": ["math", by_length("length", weight=-0.02)]}
    found = shares(spec, [LONG, WRONG])
    assert found["length"] < 0 and found["math"] > 1
    assert found["math"] + found["length"] == pytest.approx(1.0)


def test_what_is_only_logged_has_no_share() -> None:
    spec = {"sum": ["math", by_length("length", weight=0)]}
    assert shares(spec, [LONG, WRONG, RIGHT]) == pytest.approx(
        {"sum": 1.0, "math": 1.0, "length": 0.0}
    )


def test_a_closed_gate_gives_the_lower_level_no_share() -> None:
    spec = {"gate": ["math", by_length("length", weight=0.02)]}
    assert shares(spec, [WRONG, WRONG + " " * 30, RIGHT])["length"] == pytest.approx(
        shares(spec, [WRONG, WRONG, RIGHT])["length"]
    )
    opened = shares(spec, [WRONG, RIGHT, LONG])
    assert opened["length"] > 0.1
    assert opened["math"] + opened["length"] == pytest.approx(1.0)


def test_an_only_child_takes_all_and_other_nodes_divide_by_correlation() -> None:
    spec = {"clip": {"of": {"product": ["math", by_length("length")]}, "high": 20}}
    found = shares(spec, [RIGHT, WRONG, LONG])
    assert found["clip"] == found["product"] == pytest.approx(1.0)
    assert found["math"] + found["length"] == pytest.approx(1.0)
    assert min(found["math"], found["length"]) > 0


def test_a_baseline_over_the_batch_leaves_a_part_that_no_node_explains_within_groups() -> None:
    groups = [
        Group(Problem(n, "q", {"answer": "1"}), (Sample(t, (1,), (), "eos"),) * 2)
        for n, t in (("a", RIGHT), ("b", WRONG))
    ]
    host = RewardHost(build_reward("math"), workers=1)
    scores = host.score(groups)
    host.close()
    assert advantage_shares(host.reward, scores, [[1.0, 1.0], [-1.0, -1.0]]) == {"math": 0.0}


def test_without_any_advantage_there_is_no_share() -> None:
    assert shares("math", [RIGHT, RIGHT], std=False) == {}


def test_samples_that_nobody_could_score_are_left_out() -> None:
    huge = "9^{9^{9^9}}"
    texts = (f"#### {huge}", WRONG, f"#### {huge}+1")
    samples = tuple(Sample(text, (1,), (), "eos") for text in texts)
    groups = [Group(Problem("a", "q", {"answer": huge}), samples)]
    host = RewardHost(build_reward("math"), workers=1)
    scores = host.score(groups)
    host.close()
    assert scores[0][2].value is None
    assert advantage_shares(host.reward, scores, [[1.0, -1.0, 0.0]]) == {"math": 1.0}
