import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, RewardHost, Sample, build_reward


def group(name: str, answer: Any, *texts: str) -> Group:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return Group(Problem(name, "question", {"answer": answer}), samples)


@pytest.fixture(scope="module")
def host() -> Iterator[RewardHost]:
    spec = {"sum": ["math", {"format": {"pattern": "#### .*", "weight": 0.5}}]}
    host = RewardHost(build_reward(spec), workers=2, timeout_s=2.0)
    yield host
    host.close()


def test_scores_come_in_the_order_of_groups_and_samples(host: RewardHost) -> None:
    groups = [group(f"g{i}", i, f"#### {i}", rf"\boxed{{{i}}}", "none") for i in range(20)]
    values = [[score.value for score in scores] for scores in host.score(groups)]
    assert values == [[1.5, 1.0, 0.0]] * 20
    submitted = [host.submit(g) for g in groups]
    assert [[s.value for s in f.result()] for f in submitted] == values


def test_groups_are_scored_while_a_slow_one_still_runs() -> None:
    catastrophic = {"format": {"pattern": "(a+)+b"}}
    host = RewardHost(build_reward(catastrophic), workers=2, timeout_s=2.0)
    slow = host.submit(group("slow", 1, "a" * 64))
    assert host.submit(group("fast", 1, "aab")).result()[0].value == 1.0
    assert not slow.done()
    assert slow.result()[0].value is None
    host.close()


def test_stats_count_and_start_again(host: RewardHost) -> None:
    host.stats()
    huge = "9^{9^{9^9}}"
    host.score(
        [group("a", huge, f"#### {huge}", f"#### {huge}+1"), group("b", 5, "#### 5", "#### 6")]
    )
    stats = host.stats()
    assert (stats.samples, stats.undecided, stats.not_scorable) == (4, 1, 1)
    assert stats.seconds > 0
    assert {(name, index) for name, index, _ in stats.slowest} == {
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
    }
    seconds = [s for _, _, s in stats.slowest]
    assert seconds == sorted(seconds, reverse=True)
    assert host.stats().samples == 0


def test_only_the_slowest_five_are_named(host: RewardHost) -> None:
    host.stats()
    host.score([group("many", 1, *(f"#### 10{i}" for i in range(9)))])
    assert len(host.stats().slowest) == 5


def test_check_lists_the_problems_that_could_never_be_scored(host: RewardHost) -> None:
    answers = ["1", "", "#### 3", None]
    problems = [group(f"p{i}", answer).problem for i, answer in enumerate(answers)]
    bad = host.check(problems)
    assert [problem.id for problem, _ in bad] == ["p1", "p3"]
    assert "problem 'p1': gold is ''" in bad[0][1]


def test_a_whole_data_set_is_checked_in_seconds(host: RewardHost) -> None:
    problems = [group(f"p{i}", f"3+{i} is what? 48/2={i}\n#### {i}").problem for i in range(7500)]
    began = time.perf_counter()
    assert host.check(problems) == []
    assert time.perf_counter() - began < 5.0


def test_a_bad_gold_reaches_the_caller_as_an_error(host: RewardHost) -> None:
    with pytest.raises(ValueError, match="gold is ''"):
        host.submit(group("bad", "", "#### 1")).result()


def test_a_reward_without_verifier_starts_no_process() -> None:
    host = RewardHost(build_reward({"length": {"max_tokens": 1}}))
    before = threading.active_count()
    assert host.score([group("a", 1, "x")])[0][0].value == 0.0
    assert threading.active_count() == before
    host.close()


def test_a_closed_host_refuses() -> None:
    host = RewardHost(build_reward("math"), workers=1)
    host.score([group("a", 1, "#### 1")])
    host.close()
    with pytest.raises(RuntimeError, match="closed"):
        host.score([group("a", 2, "#### 1")])
    with pytest.raises(RuntimeError):
        host.submit(group("a", 1, "#### 1"))
