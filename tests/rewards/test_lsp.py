from collections.abc import Iterator
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, Sample, Score, build_reward
from llmalign.rewards.base import Services
from llmalign.rewards.lsp import code_blocks, diagnose, step_reward
from llmalign.verifiers import GoldError, Judgement, Verdict
from llmalign.verifiers.pool import VerifierPool

# Three diagnostics: two unused imports, one undefined name.
BEFORE = "import os\nimport sys\n\n\ndef f(x):\n    y = x + z\n    return y\n"
BETTER = "import sys\n\n\ndef f(x):\n    y = x + z\n    return y\n"  # two
CLEAN = "def f(x):\n    y = x + 1\n    return y\n"


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with VerifierPool(1, 20.0) as pool:
        yield Services(verify=pool.judge_many)


def fence(*versions: str) -> str:
    return "\n".join(f"Now:\n```python\n{version}```" for version in versions)


def score(services: Services, options: dict[str, Any], *texts: str) -> list[Score]:
    reward = build_reward({"lsp": options})
    problem = Problem("p7", "fix it", {"code": BEFORE})
    reward.check(problem)
    reward.bind(services)
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return reward.score([Group(problem, samples)])[0]


@pytest.mark.parametrize(
    ("versions", "value", "steps"),
    [
        pytest.param([CLEAN], 3.0, [3.0], id="all gone"),
        pytest.param([BETTER, CLEAN], 3.0, [1.0, 2.0], id="in two steps"),
        pytest.param([CLEAN, BEFORE], 0.0, [3.0, -3.0], id="there and back"),
        pytest.param([BEFORE + "import re\n"], -1.0, [-1.0], id="one more"),
        pytest.param(["def f(x:\n"], 0.0, [], id="no Python"),
        pytest.param(["def f(x:\n", CLEAN], 3.0, [3.0], id="no Python is passed over"),
        pytest.param(["x = 1\n"], 0.0, [], id="the function is gone"),
        pytest.param(["def f(x): pass\n"], 0.0, [], id="the function is gutted"),
        pytest.param([], 0.0, [], id="no code"),
    ],
)
def test_steps_are_paid_by_the_diagnostics_that_go(
    services: Services, versions: list[str], value: float, steps: list[float]
) -> None:
    (found,) = score(services, {}, fence(*versions))
    assert found.value == value
    assert [step.value for step in found.steps] == steps
    assert found.aspects["lsp"] == value
    assert found.aspects["lsp.before"] == 3.0
    assert found.aspects["lsp.refused"] == len(versions) - len(steps)
    assert bool(found.note) == (not steps)


def test_steps_point_at_their_code(services: Services) -> None:
    text = fence(BETTER, CLEAN)
    (found,) = score(services, {}, text)
    spans = [text[step.start : step.end] for step in found.steps]
    assert spans == [f"```python\n{BETTER}```", f"```python\n{CLEAN}```"]


def test_weights_are_options(services: Services) -> None:
    (found,) = score(services, {"alpha": 0.5, "beta": 0.25}, fence(BETTER, CLEAN))
    assert found.value == pytest.approx(0.5 * 3 + 2 * 0.25)
    gutted = score(services, {"min_kept": 0.0}, fence("def f(x): pass\n"))[0]
    assert gutted.value == 3.0


def test_a_version_that_takes_too_long_is_not_scorable() -> None:
    def verify(kind: str, pairs: Any, options: Any) -> list[Judgement]:
        known = [diagnose(text, gold) for text, gold in pairs]
        return [*known[:-1], Judgement(Verdict.UNDECIDED, None, "timed out")]

    (found,) = score(Services(verify=verify), {}, fence(CLEAN))
    assert found.value is None


def test_samples_are_scored_apart_and_in_order(services: Services) -> None:
    values = [s.value for s in score(services, {}, "", fence(CLEAN), fence(BETTER, CLEAN), "x")]
    assert values == [0.0, 3.0, 3.0, 0.0]


def test_code_is_read_and_never_run(tmp_path: Any) -> None:
    mark = tmp_path / "ran"
    assert diagnose(f"open({str(mark)!r}, 'w').close()", None).verdict is Verdict.RIGHT
    assert not mark.exists()


@pytest.mark.parametrize("text", ["(" * 10_000, "x = '\0'", "def", "\ud800", "x = = 1", "-" * 5000])
def test_what_is_no_python_is_wrong_and_nothing_worse(services: Services, text: str) -> None:
    found = services.verify("llmalign.rewards.lsp:diagnose", [(text, None)], {})[0]
    assert found.verdict in (Verdict.WRONG, Verdict.UNDECIDED)


def test_blocks_are_python_closed_and_whole() -> None:
    text = "a ```py\nx\n``` b ```\ny\n``` c ```js\nz\n``` d ```python\nw\n"
    found = [(code, text[start:end]) for start, end, code in code_blocks(text)]
    assert found == [("x\n", "```py\nx\n```"), ("y\n", "```\ny\n```")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "problem 'p7': column 'code' is missing"),
        ({"code": "def f(:"}, "problem 'p7': column 'code' is 'def f(:', expected Python"),
        ({"code": None}, "column 'code' is None"),
    ],
)
def test_a_file_that_is_no_python_is_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(GoldError) as raised:
        build_reward("lsp").check(Problem("p7", "q", columns))
    assert message in str(raised.value)


def test_the_diagnostic_part_telescopes() -> None:
    counts = [12, 9, 9, 4, 0]
    steps = [
        step_reward(a, b, safe=False, confidence=1.0, alpha=2.0, beta=1.0, gamma=1.0)
        for a, b in zip(counts, counts[1:], strict=False)
    ]
    assert sum(steps) == 2.0 * (12 - 0)
    unsure = step_reward(3, 3, safe=True, confidence=0.5, alpha=1.0, beta=0.5, gamma=0.2)
    assert unsure == pytest.approx(0.4)


@pytest.mark.parametrize("options", [{"alpha": -1}, {"beta": -1}, {"min_kept": 2}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        build_reward({"lsp": options})
