import sys
from pathlib import Path
from typing import Any

import pytest

from llmalign.catalogue import shipped_rewards
from llmalign.rewards import build_reward
from llmalign.rewards.combine import Sum
from llmalign.rewards.format import Format
from llmalign.rewards.math import Math
from llmalign.verifiers.registry import Entry


@pytest.mark.parametrize("spec", ["math", {"math": None}, {"math": {}}], ids=repr)
def test_a_name_alone_takes_the_defaults(spec: Any) -> None:
    reward = build_reward(spec)
    assert isinstance(reward, Math)
    assert (reward.name, reward.right, reward.wrong, reward.column) == ("math", 1.0, 0.0, "answer")


def test_options_reach_the_reward() -> None:
    reward = build_reward({"math": {"right": 2, "wrong": -1, "markers": ["hashes"], "name": "gsm"}})
    assert isinstance(reward, Math)
    assert (reward.name, reward.right, reward.wrong) == ("gsm", 2.0, -1.0)
    assert reward.verifier_options() == {"markers": ["hashes"]}


def test_a_bare_value_stands_for_the_main_option() -> None:
    reward = build_reward({"format": "a.*"})
    assert isinstance(reward, Format)
    assert (reward.pattern, reward.mode) == ("a.*", "full")


@pytest.mark.parametrize("wrap", [lambda of: of, lambda of: {"of": of}], ids=["short", "long"])
def test_a_sum_holds_its_children_with_their_weights(wrap: Any) -> None:
    children = ["math", {"format": {"pattern": "a", "weight": 0.5}}]
    reward = build_reward({"sum": wrap(children)})
    assert isinstance(reward, Sum)
    assert [(c.reward.name, c.weight) for c in reward.children] == [("math", 1.0), ("format", 0.5)]


def test_names_are_made_unique_throughout_the_tree() -> None:
    spec = {"sum": ["math", "math", {"sum": [{"format": {"pattern": "a", "name": "math"}}]}]}
    outer = build_reward(spec)
    assert isinstance(outer, Sum)
    inner = outer.children[2].reward
    assert isinstance(inner, Sum)
    names = [outer.name, *(c.reward.name for c in outer.children), inner.children[0].reward.name]
    assert names == ["sum", "math", "math_2", "sum_2", "math_3"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("maths", "reward: unknown reward 'maths'; did you mean 'math'?"),
        (
            {"sum": ["math", {"format": {"patern": "a"}}]},
            "reward.sum[1].format: unknown option 'patern'; did you mean 'pattern'?",
        ),
        ({"sum": [{"sum": ["mth"]}]}, "reward.sum[0].sum[0]: unknown reward 'mth'"),
        ({"math": {"right": "a"}}, "reward.math.right is 'a', expected a number"),
        ({"math": {"markers": ["box"]}}, "reward.math.markers is ['box'], expected"),
        ({"math": {"markers": []}}, "reward.math: markers is empty"),
        ({"math": {"right": 0, "wrong": 1}}, "reward.math: right is 0.0 and wrong is 1.0"),
        ({"math": {"name": 3}}, "reward.math.name is 3, expected a string"),
        ({"math": 3}, "reward.math is 3, expected a mapping of options"),
        ({"math": {"weight": 1}}, "reward.math.weight is 1, expected none"),
        ({"sum": ["math"], "math": {}}, "expected a reward's name or a mapping"),
        (None, "reward is None, expected a reward's name"),
        ({}, "reward is {}, expected a reward's name"),
        ({"sum": []}, "reward.sum: of is empty"),
        ({"sum": 3}, "reward.sum.of is 3, expected"),
        ({"clip": {"of": ["math", "math"], "low": 0}}, "reward.clip: of lists 2 rewards"),
        ({"gate": ["math"]}, "reward.gate: of lists one reward"),
        ({"gate": {"of": ["math", "math"], "thresholds": [0, 1]}}, "thresholds has 2 values"),
        ({"product": [{"math": {"weight": 2}}]}, "only a reward below a sum or a gate"),
        ({"schedule": {"of": "math", "points": [[3, 1], [1, 2]]}}, "steps ascending"),
        ({"noise": {"of": "math", "rate": 2}}, "rate is 2.0, expected it in [0, 1]"),
        ({"sum": [{"math": {"weight": float("nan")}}]}, "weight is nan, expected a finite"),
        ({"sum": [{"math": {"weight": "a"}}]}, "reward.sum[0].math.weight is 'a', expected a"),
        ({"format": {}}, "reward.format: format needs option 'pattern'"),
        ({"format": "("}, "reward.format: pattern is '(', expected a regex"),
        ({"soft_overlong": {"buffer_tokens": 0}}, "buffer_tokens is 0, expected > 0"),
        ({"length": {}}, "give at least one"),
        ("no_such_module:f", "reward.call: function is 'no_such_module:f', but: No module named"),
        ({"call": "json:nothing"}, "has no attribute 'nothing'"),
        ({"json:dumps": {"functoin": "x"}}, "reward.call: unknown option 'functoin'"),
    ],
)
def test_an_error_names_its_place_and_what_to_do(spec: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        build_reward(spec)
    assert message in str(raised.value)


def test_the_place_starts_where_the_caller_says() -> None:
    with pytest.raises(ValueError, match="recipe.reward: unknown reward"):
        build_reward("x", where="recipe.reward")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("my_rewards:brief", "brief"),
        ({"call": "my_rewards:brief"}, "brief"),
        ({"call": {"function": "my_rewards:brief", "name": "short"}}, "short"),
        ({"my_rewards:brief": {"name": "short"}}, "short"),
    ],
)
def test_a_function_of_ones_own_is_a_reward(
    spec: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_rewards.py").write_text("def brief(completions):\n    return [0.0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    assert build_reward(spec).name == name
    sys.modules.pop("my_rewards", None)


@pytest.mark.parametrize("entry", shipped_rewards(), ids=lambda entry: entry.name)
def test_every_reward_states_its_range_in_its_help(entry: Entry) -> None:
    assert 20 < len(entry.summary) <= 100
    assert "Range:" in (entry.thing.__doc__ or "")
    assert "name" in entry.options()
