from collections.abc import Iterator
from typing import Any

import pytest

import llmalign.rewards.code  # noqa: F401  (registers itself)
from llmalign.rewards import Group, Problem, Sample, build_reward
from llmalign.rewards.base import Services
from llmalign.verifiers import GoldError, Judgement, Verdict
from llmalign.verifiers.code import judge

TESTS = {"type": "asserts", "entry_point": "add", "code": "assert add(1, 2) == 3"}
ROW = {"prompt": "Add.", "entry_point": "add", "tests": "assert add(1, 2) == 3"}


def group(columns: dict[str, Any], *texts: str) -> Group:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return Group(Problem("p7", "question", columns), samples)


class Asked:
    """Judges in this process, and remembers what it was asked."""

    def __init__(self) -> None:
        self.golds: list[Any] = []
        self.options: Any = None

    def verify(self, kind: str, pairs: Any, options: Any) -> list[Judgement]:
        assert kind == "code"
        self.golds, self.options = [gold for _, gold in pairs], options
        return [judge(text, gold, **options) for text, gold in pairs]


@pytest.fixture
def asked() -> Iterator[Asked]:
    found = Asked()
    yield found


def values(spec: Any, asked: Asked, given: Group) -> list[float | None]:
    reward = build_reward(spec)
    reward.bind(Services(verify=asked.verify))
    return [score.value for score in reward.score([given])[0]]


@pytest.mark.parametrize("columns", [ROW, {"tests": TESTS}], ids=["layout", "own"])
def test_programs_that_pass_are_paid(asked: Asked, columns: dict[str, Any]) -> None:
    texts = ["```python\ndef add(a, b): return a + b\n```", "def add(a, b): return 4", "no idea"]
    spec = {"code": {"right": 2, "wrong": -1}}
    judged = judge(texts[0], TESTS)
    if judged.verdict is Verdict.UNDECIDED:
        pytest.skip(judged.why)
    assert values(spec, asked, group(columns, *texts)) == [2.0, -1.0, -1.0]
    assert asked.options == {"level": "strict"}


def test_limits_and_column_are_those_of_the_recipe(asked: Asked) -> None:
    spec = {"code": {"column": "spec", "time_limit_s": 0.5, "memory_limit_mb": 64, "level": "none"}}
    values(spec, asked, group({"spec": TESTS}, "def add(a, b): return 3"))
    assert asked.golds == [TESTS | {"time_limit_s": 0.5, "memory_limit_mb": 64}]
    assert asked.options == {"level": "none"}


@pytest.mark.parametrize(
    ("spec", "columns", "message"),
    [
        ("code", {"answer": "5"}, "problem 'p7': no layout is known for a row with columns answer"),
        ({"code": {"column": "spec"}}, ROW, "problem 'p7': column 'spec' is missing"),
        ({"code": {"layout": "mbpp"}}, ROW, "problem 'p7': layout 'mbpp' does not fit"),
        ("code", {"tests": TESTS | {"code": ""}}, "problem 'p7': code is empty"),
    ],
)
def test_check_names_the_problem_whose_tests_are_bad(
    spec: Any, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(GoldError) as raised:
        build_reward(spec).check(Problem("p7", "question", columns))
    assert message in str(raised.value)


def test_check_passes_what_can_be_judged() -> None:
    build_reward("code").check(Problem("p", "q", ROW))


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="level is 'high'"):
        build_reward({"code": {"level": "high"}})
