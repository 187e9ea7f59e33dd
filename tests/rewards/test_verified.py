from collections.abc import Iterator
from typing import Any

import pytest
from support.scoring import group, score

from llmalign.rewards import Problem, RewardHost, build_reward
from llmalign.rewards.base import Services
from llmalign.verifiers import GoldError, Judgement, Verdict
from llmalign.verifiers.pool import VerifierPool


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with VerifierPool(1, 1.0) as pool:
        yield Services(verify=pool.judge_many)


def test_math_pays_right_and_wrong_and_nothing_where_undecided(services: Services) -> None:
    huge = "9^{9^{9^9}}"
    texts = [rf"\boxed{{{huge}}}", r"\boxed{71}", "I have no idea at all", rf"\boxed{{{huge}+1}}"]
    scores = score(services, {"math": {"right": 2, "wrong": -1}}, group({"answer": huge}, *texts))
    assert [s.value for s in scores] == [2.0, -1.0, -1.0, None]
    assert [s.judgement.verdict for s in scores if s.judgement] == [
        Verdict.RIGHT,
        Verdict.WRONG,
        Verdict.NO_ANSWER,
        Verdict.UNDECIDED,
    ]
    assert [s.aspects for s in scores] == [{"math": s.value} for s in scores]
    assert scores[0].note == ""
    assert "cannot be evaluated" in scores[3].note


def test_math_reads_the_column_and_the_forms_it_is_told_to(services: Services) -> None:
    given = group({"solution": "so #### 5", "answer": "9"}, "#### 5", r"\boxed{5}")
    scores = score(services, {"math": {"column": "solution", "markers": ["hashes"]}}, given)
    assert [s.value for s in scores] == [1.0, 0.0]


def test_each_group_is_judged_by_its_own_gold(services: Services) -> None:
    reward = build_reward("math")
    reward.bind(services)
    groups = [group({"answer": gold}, "#### 1", "#### 2") for gold in (1, 2, 3)]
    values = [[s.value for s in scores] for scores in reward.score(groups)]
    assert values == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("spec", "columns", "message"),
    [
        ("math", {"solution": "5"}, "problem 'p7': column 'answer' is missing, expected it among"),
        ("math", {"answer": ""}, "problem 'p7': gold is ''"),
        ("countdown", {"nums": [1]}, "problem 'p7': column 'target' is missing"),
        ("countdown", {"nums": [1], "target": None}, "problem 'p7': target is None"),
    ],
)
def test_check_names_the_problem_whose_gold_is_bad(
    spec: str, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(GoldError) as raised:
        build_reward(spec).check(Problem("p7", "question", columns))
    assert message in str(raised.value)


def test_check_passes_what_can_be_scored() -> None:
    build_reward("math").check(Problem("p", "q", {"answer": 5}))
    build_reward("countdown").check(Problem("p", "q", {"nums": [1, 2], "target": 3}))
    build_reward({"format": "a"}).check(Problem("p", "q"))


def test_countdown_reads_its_two_columns(services: Services) -> None:
    spec = {"countdown": {"nums_column": "numbers", "target_column": "goal"}}
    texts = ["<answer>25+3*7</answer>", "<answer>46</answer>"]
    scores = score(services, spec, group({"numbers": [3, 7, 25], "goal": 46}, *texts))
    assert [s.value for s in scores] == [1.0, 0.0]


def test_format_matches_the_whole_response_or_a_part_of_it(services: Services) -> None:
    texts = ["<a>1\n2</a>", "so <a>1</a>", "1"]
    whole = score(services, {"format": "<a>.*</a>"}, group({}, *texts))
    anywhere = {"format": {"pattern": "<a>.*</a>", "mode": "search"}}
    part = score(services, anywhere, group({}, *texts))
    assert [s.value for s in whole] == [1.0, 0.0, 0.0]
    assert [s.value for s in part] == [1.0, 1.0, 0.0]
    assert [s.judgement for s in whole] == [None, None, None]


def test_a_pattern_that_takes_exponential_time_is_cut_off(services: Services) -> None:
    scores = score(services, {"format": "(a+)+b"}, group({}, "a" * 60, "ab"))
    assert [s.value for s in scores] == [None, 1.0]
    assert "timed out" in scores[0].note


def test_scoring_without_a_host_is_refused() -> None:
    with pytest.raises(RuntimeError, match="'math' is not bound"):
        build_reward("math").score([group({"answer": 1}, "#### 1")])


def test_judgements_are_asked_for_once_for_all_groups() -> None:
    calls: list[int] = []

    def verify(kind: str, pairs: Any, options: Any) -> list[Judgement]:
        calls.append(len(pairs))
        return [Judgement(Verdict.RIGHT, "1", "")] * len(pairs)

    reward = build_reward("math")
    reward.bind(Services(verify=verify))
    reward.score([group({"answer": 1}, "a", "b"), group({"answer": 1}, "c")])
    assert calls == [3]


def test_the_host_runs_it_end_to_end() -> None:
    host = RewardHost(build_reward("math"), workers=1)
    try:
        (scores,) = host.score([group({"answer": 1}, "#### 1")])
    finally:
        host.close()
    assert scores[0].value == 1.0
