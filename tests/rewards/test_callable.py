import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, RewardHost, Sample, Score, as_trl, build_reward

MODULE = """
import math
import threading

calls = []

def record(prompts, completions, completion_ids, **columns):
    calls.append((prompts, completions, completion_ids, columns))
    return [float(len(c)) for c in completions]

def brief(completions, answer):
    return [1 if a == "yes" else None for a in answer]

def strange(completions, **columns):
    return [math.nan, math.inf, None, True]

def failing(completions, **columns):
    raise KeyError("inside")

def short(completions, **columns):
    return [1.0]

async def later(completions, **columns):
    return [1.0]

number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "llmalign_test_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("llmalign_test_rewards", None)


def sample(text: str, *token_ids: int) -> Sample:
    return Sample(text, token_ids, (0.0,) * len(token_ids), "eos")


def score(function: str, groups: list[Group]) -> list[list[Score]]:
    return build_reward(f"llmalign_test_rewards:{function}").score(groups)


CHAT = ({"role": "user", "content": "hi"},)


def test_a_function_sees_all_samples_at_once_in_the_form_of_trl() -> None:
    groups = [
        Group(Problem("a", "q1", {"answer": "x"}), (sample("t", 1, 2), sample("uu", 3))),
        Group(Problem("b", CHAT, {"level": 2}), (sample("vvv", 4),)),
    ]
    scores = score("record", groups)
    calls = sys.modules["llmalign_test_rewards"].calls
    assert calls == [
        (
            ["q1", "q1", [{"role": "user", "content": "hi"}]],
            ["t", "uu", [{"role": "assistant", "content": "vvv"}]],
            [[1, 2], [3], [4]],
            {"answer": ["x", "x", None], "level": [None, None, 2]},
        )
    ]
    assert [[s.value for s in row] for row in scores] == [[1.0, 2.0], [1.0]]
    assert scores[0][1].aspects == {"record": 2.0}


def test_a_function_without_a_catch_all_gets_only_what_it_names() -> None:
    columns = {"answer": "yes", "other": 1}
    groups = [Group(Problem("a", "q", columns), (sample("t"),))]
    groups.append(Group(Problem("b", "q", {"answer": "no"}), (sample("t"),)))
    assert [row[0].value for row in score("brief", groups)] == [1.0, None]


def test_what_is_no_finite_number_is_not_scorable_and_says_so() -> None:
    (scores,) = score("strange", [Group(Problem("a", "q"), (sample("t"),) * 4)])
    assert [s.value for s in scores] == [None, None, None, 1.0]
    assert [s.note for s in scores] == [
        "strange: returned nan",
        "strange: returned inf",
        "strange: returned None",
        "",
    ]


def test_an_exception_makes_the_samples_not_scorable_and_is_counted() -> None:
    host = RewardHost(build_reward("llmalign_test_rewards:failing"))
    (scores,) = host.score([Group(Problem("a", "q"), (sample("t"),) * 2)])
    assert [s.value for s in scores] == [None, None]
    assert scores[0].note == "failing: raised KeyError: 'inside'"
    assert host.stats().not_scorable == 2
    host.close()


def test_a_result_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="short returned 1 values, expected 2"):
        score("short", [Group(Problem("a", "q"), (sample("t"),) * 2)])


@pytest.mark.parametrize("function", ["later", "number"])
def test_only_ordinary_functions_are_taken(function: str) -> None:
    with pytest.raises(ValueError, match="expected an ordinary function"):
        build_reward(f"llmalign_test_rewards:{function}")


def test_a_reward_is_a_function_for_trl() -> None:
    function: Any = as_trl(build_reward("math"))
    assert function.__name__ == "math"
    values = function(
        prompts=["p", "p", "q"],
        completions=["#### 1", "#### 2", r"\boxed{9^{9^{9^9}}+1}"],
        completion_ids=[[1], [2], [3]],
        answer=["1", "1", "9^{9^{9^9}}"],
        trainer_state=object(),
    )
    assert values == [1.0, 0.0, None]
    chat = [{"role": "assistant", "content": "#### 5"}]
    assert function([[{"role": "user", "content": "?"}]], [chat], answer=[5]) == [1.0]


def test_consecutive_samples_of_one_problem_are_one_group() -> None:
    class Sizes:
        name, need = "sizes", "groupwise"

        def bind(self, services: Any) -> None:
            pass

        def score(self, groups: Any) -> list[list[Score]]:
            return [[Score(len(g.samples) + 0.0) for _ in g.samples] for g in groups]

    function: Any = as_trl(Sizes())  # type: ignore[arg-type]
    prompts = ["p", "p", "q", "p", "p", "p"]
    answers = [1, 1, 1, 1, 1, 2]
    values = function(prompts=prompts, completions=["x"] * 6, answer=answers)
    assert values == [2.0, 2.0, 1.0, 2.0, 2.0, 1.0]
    assert function(prompts=[], completions=[]) == []


def test_a_reward_that_counts_tokens_needs_them_from_trl() -> None:
    function: Any = as_trl(build_reward({"length": {"max_tokens": 2}}))
    ids = [[1, 2, 3], [1, 2]]
    assert function(["p", "p"], ["abc", "ab"], ids) == [-1.0, 0.0]
    with pytest.raises(ValueError, match="pass completion_ids"):
        function(["p"], ["abc"])
