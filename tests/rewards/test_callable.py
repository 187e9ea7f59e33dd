import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmalign.rewards import (
    Group,
    Problem,
    RewardHost,
    Sample,
    Score,
    StepScore,
    as_trl,
    build_reward,
)
from llmalign.verifiers import GoldError, Verdict

Scored = Callable[[str, list[Group]], list[list[Score]]]

MODULE = """
import json
import math
import os
import time

def record(prompts, completions, completion_ids, **columns):
    return [float(len(c)) for c in completions]

def seen(**arguments):
    raise ValueError(json.dumps(arguments, sort_keys=True))

def picky(completions, **columns):
    if "hang" in completions:
        time.sleep(60)
    if "die" in completions:
        os._exit(3)
    return [1.0 for _ in completions]

def counting(completions, **columns):
    global calls
    calls += 1
    return [float(calls)] * len(completions)

calls = 0

def brief(completions, answer):
    return [1 if a == "yes" else None for a in answer]

def strange(completions, **columns):
    return [math.nan, math.inf, None, True]

def failing(completions, **columns):
    raise KeyError("inside")

def none(completions, **columns):
    pass

def short(completions, **columns):
    return [1.0]

def stepwise(completions, **columns):
    return [
        {"value": 0.5, "steps": [[0, 2, 1], (2, 5, -0.5)]}, {"value": None, "steps": []}, 1,
        {"value": 2.0},
    ]

def bad_step(completions, **columns):
    return [{"value": 1.0, "steps": [[3, 1, 0.5]]}]

def bad_key(completions, **columns):
    return [{"vlaue": 1.0}]

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


@pytest.fixture(params=[False, True], ids=["in a worker", "in process"])
def score(request: pytest.FixtureRequest) -> Iterator[Scored]:
    opened: list[RewardHost] = []

    def scored(function: str, groups: list[Group]) -> list[list[Score]]:
        path = f"llmalign_test_rewards:{function}"
        reward = build_reward({"call": {"function": path, "in_process": request.param}})
        opened.append(RewardHost(reward, workers=1))
        return opened[-1].score(groups)

    yield scored
    for host in opened:
        host.close()


CHAT = ({"role": "user", "content": "hi"},)


def test_a_function_sees_one_group_at_a_time_in_the_form_of_trl(score: Scored) -> None:
    groups = [
        Group(Problem("a", "q1", {"answer": "x"}), (sample("t", 1, 2), sample("uu", 3))),
        Group(Problem("b", CHAT, {"level": 2}), (sample("vvv", 4),)),
    ]
    (first, second) = score("record", groups)
    assert [s.value for s in first] == [1.0, 2.0]
    assert first[1].aspects == {"record": 2.0}
    assert [s.value for s in second] == [1.0]
    (row,) = score("seen", groups[:1])
    assert row[0].note.endswith(
        '{"answer": ["x", "x"], "completion_ids": [[1, 2], [3]], "completions": ["t", "uu"], '
        '"prompts": ["q1", "q1"]}'
    )
    (row,) = score("seen", groups[1:])
    assert row[0].note.endswith(
        '{"completion_ids": [[4]], "completions": [[{"content": "vvv", "role": "assistant"}]], '
        '"level": [2], "prompts": [[{"content": "hi", "role": "user"}]]}'
    )


def test_a_function_without_a_catch_all_gets_only_what_it_names(score: Scored) -> None:
    columns = {"answer": "yes", "other": 1}
    groups = [Group(Problem("a", "q", columns), (sample("t"),))]
    groups.append(Group(Problem("b", "q", {"answer": "no"}), (sample("t"),)))
    assert [row[0].value for row in score("brief", groups)] == [1.0, None]


def test_what_is_no_finite_number_is_not_scorable_and_says_so(score: Scored) -> None:
    (scores,) = score("strange", [Group(Problem("a", "q"), (sample("t"),) * 4)])
    assert [s.value for s in scores] == [None, None, None, 1.0]
    assert [s.note for s in scores] == [
        "strange: returned nan",
        "strange: returned inf",
        "strange: returned None",
        "",
    ]


@pytest.mark.parametrize(
    ("function", "note"),
    [
        ("failing", "failing: raised KeyError: 'inside'"),
        ("short", "short: raised TypeError: returned 1 values, expected 2: one per completion"),
        ("none", "none: raised TypeError: returned None, expected one value per completion"),
    ],
)
def test_a_call_that_fails_leaves_its_samples_undecided_with_the_reason(
    score: Scored, function: str, note: str
) -> None:
    (scores,) = score(function, [Group(Problem("a", "q"), (sample("t"),) * 2)])
    assert [(s.value, s.note) for s in scores] == [(None, note)] * 2
    assert scores[0].judgement is not None
    assert scores[0].judgement.verdict is Verdict.UNDECIDED


def test_a_call_that_hangs_or_dies_is_killed_and_costs_only_itself() -> None:
    spec = {"call": {"function": "llmalign_test_rewards:picky", "per_sample": True}}
    texts = ["ok", "hang", "ok", "die", "ok"]
    with contextlib.closing(RewardHost(build_reward(spec), workers=1, timeout_s=0.5)) as host:
        (scores,) = host.score([Group(Problem("a", "q"), tuple(map(sample, texts)))])
        assert [s.value for s in scores] == [1.0, None, 1.0, None, 1.0]
        assert scores[1].note == "picky: timed out after 0.5 s"
        assert scores[3].note == "picky: crashed: exit status 3"
        stats = host.stats()
        assert (stats.undecided, stats.slowest[0][:2]) == (2, ("a", 1))


def test_the_run_stops_with_the_commonest_reason_where_too_many_are_undecided() -> None:
    reward = build_reward("llmalign_test_rewards:failing")
    with contextlib.closing(RewardHost(reward, workers=1, max_undecided=0.5)) as host:
        host.score([Group(Problem("a", "q"), (sample("t"),) * 2)])
        with pytest.raises(RuntimeError, match="2 times because: failing: raised KeyError"):
            host.stats()


def test_a_function_that_remembers_is_called_again_for_the_same_samples() -> None:
    with contextlib.closing(RewardHost(build_reward("llmalign_test_rewards:counting"))) as host:
        host.score([Group(Problem("a", "q"), (sample("t"),))])
        values = {host.score([Group(Problem("a", "q"), (sample("t"),))])[0][0].value for _ in "abc"}
    assert values != {1.0}


def test_a_column_that_no_worker_can_read_is_refused_before_training() -> None:
    problem = Problem("a", "q", {"image": object()})
    reward = build_reward("llmalign_test_rewards:record")
    with pytest.raises(GoldError, match=r"'a': column 'image' is <object.*in_process: true"):
        reward.check(problem)
    build_reward("llmalign_test_rewards:brief").check(problem)  # never sees that column


@pytest.mark.parametrize("function", ["later", "number"])
def test_only_ordinary_functions_are_taken(function: str) -> None:
    with pytest.raises(ValueError, match="expected an ordinary function"):
        build_reward(f"llmalign_test_rewards:{function}")


def test_a_function_of_the_script_itself_cannot_be_called_in_a_worker() -> None:
    with pytest.raises(ValueError, match="a worker cannot import.*in_process: true"):
        build_reward("__main__:f")


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
    with pytest.raises(RuntimeError, match="pass completion_ids"):
        function(["p"], ["abc"])


def test_a_function_may_score_steps_too(score: Scored) -> None:
    group = Group(Problem("p", "?", {}), tuple(sample("abcde") for _ in range(4)))
    found = score("stepwise", [group])[0]
    assert [one.value for one in found] == [0.5, None, 1.0, 2.0]
    assert found[0].steps == (StepScore(0, 2, 1.0), StepScore(2, 5, -0.5))
    assert [one.steps for one in found[1:]] == [(), (), ()]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("bad_step", r"returned step \[3, 1, 0.5\], expected \[start, end, number\]"),
        ("bad_key", "returned key 'vlaue', expected value and steps"),
    ],
)
def test_what_is_no_step_score_leaves_the_sample_undecided(
    score: Scored, function: str, why: str
) -> None:
    group = Group(Problem("p", "?", {}), (sample("abcde"),))
    found = score(function, [group])[0][0]
    assert found.value is None and re.search(why, found.note)
