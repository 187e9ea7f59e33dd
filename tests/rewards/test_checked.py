from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.scoring import group, score

from llmalign.rewards import Problem, build_reward, checked
from llmalign.rewards.base import Services
from llmalign.verifiers import GoldError, Judgement, Verdict
from llmalign.verifiers.pool import VerifierPool

FUNCTIONS = [{"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}]
SCRIPT = "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), (2)"
INSTRUCTIONS = {
    "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
    "kwargs": [{}, {}],
}


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with VerifierPool(1, 5.0) as pool:
        yield Services(verify=pool.judge_many)


@pytest.mark.parametrize(
    ("spec", "columns", "right", "wrong"),
    [
        pytest.param("choice", {"answer": "B"}, "Answer: (B)", "Answer: C", id="choice"),
        pytest.param(
            {"choice": {"options_column": "options"}},
            {"answer": "B", "options": ["five", "six"]},
            "<answer>six</answer>",
            "<answer>five</answer>",
            id="choice by its text",
        ),
        pytest.param("text", {"answer": ["Paris", "Lutetia"]}, "the lutetia.", "Rome", id="text"),
        pytest.param(
            {"text": {"mode": "f1", "threshold": 0.5}}, {"answer": "New York"}, "York", "Rome",
            id="text by F1",
        ),
        pytest.param(
            {"sql": {"script_column": "script"}},
            {"query": "SELECT a FROM t", "script": SCRIPT},
            "```sql\nSELECT a FROM t ORDER BY a DESC\n```",
            "```sql\nSELECT 1\n```",
            id="sql",
        ),
        pytest.param(
            {"sql": {"script_column": "script", "ordered": True}},
            {"query": "SELECT a FROM t", "script": SCRIPT},
            "```sql\nSELECT a FROM t\n```",
            "```sql\nSELECT a FROM t ORDER BY a DESC\n```",
            id="sql in order",
        ),
        pytest.param(
            "toolcall",
            {"functions": FUNCTIONS, "ground_truth": [{"f": {"a": [1]}}]},
            "f(a=1)",
            "f(a=2)",
            id="toolcall",
        ),
        pytest.param(
            "json_schema", {"schema": {"required": ["a"]}}, '{"a": 1}', '{"b": 1}', id="json_schema"
        ),
        pytest.param(
            {"json_schema": {"schema": {"type": "array"}}}, {}, "[1]", '{"b": 1}', id="one schema"
        ),
        pytest.param("quantity", {"answer": "3 h"}, "180 min", "180 s", id="quantity"),
        pytest.param(
            {"quantity": {"unit_column": "unit", "rel_tol": 0.01}},
            {"answer": 9.8, "unit": "m/s^2"},
            "9.81 m/s^2",
            "9.81",
            id="quantity with its unit apart",
        ),
        pytest.param(
            {"quantity": {"unit": "optional"}}, {"answer": "3 h"}, "3", "4", id="unit optional"
        ),
        pytest.param("ifeval", INSTRUCTIONS, "all is well", "all, Is well", id="ifeval"),
        pytest.param(
            {"ifeval": {"mode": "loose"}}, INSTRUCTIONS, "Sure, here:\nall is well", "a, b",
            id="ifeval loose",
        ),
    ],
)  # fmt: skip
def test_each_leaf_hands_its_verifier_the_right_gold(
    services: Services, spec: Any, columns: dict[str, Any], right: str, wrong: str
) -> None:
    reward = build_reward(spec)
    reward.check(Problem("p7", "q", columns))
    scores = score(services, spec, group(columns, right, wrong))
    assert [s.value for s in scores] == [1.0, 0.0]
    assert [s.aspects for s in scores] == [{reward.name: 1.0}, {reward.name: 0.0}]


def test_instructions_can_be_paid_by_their_share(services: Services) -> None:
    spec = {"ifeval": {"pay": "fraction", "wrong": -1.0}}
    texts = ["all is well", "All is well", "All, is well", ""]
    scores = score(services, spec, group(INSTRUCTIONS, *texts))
    assert [s.value for s in scores] == [1.0, 0.0, -1.0, -1.0]
    assert "1 of 2 followed; 0 of 1 followed; not change_case" in scores[1].note
    assert scores[0].judgement is not None
    assert scores[0].judgement.verdict is Verdict.RIGHT


def test_a_share_with_an_undecided_instruction_is_not_scorable() -> None:
    def verify(kind: str, pairs: Any, options: Any) -> list[Judgement]:
        return [
            Judgement(Verdict.RIGHT, None, ""),
            Judgement(Verdict.UNDECIDED, None, "timed out after 1 s"),
        ]

    found = score(
        Services(verify=verify), {"ifeval": {"pay": "fraction"}}, group(INSTRUCTIONS, "a")
    )
    assert found[0].value is None
    assert found[0].aspects == {"ifeval": None}
    assert "timed out" in found[0].note


def test_a_database_is_found_below_its_root(services: Services, tmp_path: Path) -> None:
    import sqlite3

    connection = sqlite3.connect(tmp_path / "t.sqlite")
    connection.executescript(SCRIPT)
    connection.close()
    columns = {"query": "SELECT sum(a) FROM t", "database": "t.sqlite"}
    spec = {"sql": {"root": str(tmp_path)}}
    build_reward(spec).check(Problem("p", "q", columns))
    assert score(services, spec, group(columns, "```sql\nSELECT 3\n```"))[0].value == 1.0
    listed = columns | {"database": ["t.sqlite", "t.sqlite"]}
    assert score(services, spec, group(listed, "```sql\nSELECT 4\n```"))[0].value == 0.0
    with pytest.raises(GoldError, match="'p': database is 't.sqlite', expected the path"):
        build_reward("sql").check(Problem("p", "q", columns))


@pytest.mark.parametrize(
    ("spec", "columns", "message"),
    [
        ("choice", {"answer": "5"}, "gold letter is '5'"),
        ({"choice": {"options_column": "options"}}, {"answer": "A"}, "column 'options' is missing"),
        ("text", {"answer": ""}, "gold holds ''"),
        ("sql", {"query": "SELECT 1"}, "column 'database' is missing"),
        ("toolcall", {"functions": [], "ground_truth": [{"f": {}}]}, "expected a known function"),
        ("json_schema", {"schema": {"type": "text"}}, "the schema is invalid"),
        ("quantity", {"answer": "much"}, "expected a number with a unit"),
        ("ifeval", {"instruction_id_list": ["x"], "kwargs": [{}]}, "unknown instruction"),
    ],
)
def test_a_bad_gold_names_its_problem(spec: Any, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(GoldError, match="problem 'p7': ") as raised:
        build_reward(spec).check(Problem("p7", "q", columns))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"text": {"threshold": 0}}, "threshold is 0.0, expected a number in"),
        ({"text": {"mode": "fuzzy"}}, "reward.text.mode is 'fuzzy', expected one of 'exact'"),
        ({"sql": {"timeout_s": 0}}, "timeout_s is 0.0, expected > 0"),
        ({"quantity": {"rel_tol": -1}}, "rel_tol is -1.0, expected >= 0"),
        ({"ifeval": {"pay": "some"}}, "reward.ifeval.pay is 'some', expected one of 'all'"),
        ({"choice": {"right": 0}}, "right is 0.0 and wrong is 0.0"),
    ],
)
def test_options_out_of_range_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        build_reward(spec)
    assert message in str(raised.value)


def test_a_share_is_not_scored_without_a_host() -> None:
    reward = checked.IfEval(name="ifeval", pay="fraction")
    with pytest.raises(RuntimeError, match="'ifeval' is not bound"):
        reward.score([group(INSTRUCTIONS, "a")])
