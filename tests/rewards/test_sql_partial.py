import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, Sample, Score, build_reward
from llmalign.rewards.base import Message, Services
from llmalign.rewards.sql_partial import (
    bigram_jaccard,
    jaccard,
    schema_items,
    sql_reward,
    syntax_fault,
)
from llmalign.verifiers import Judgement, Verdict
from llmalign.verifiers.pool import VerifierPool

SPIDER = Path(__file__).parents[3] / "shared" / "data" / "spider"
SCRIPT = (
    "CREATE TABLE users (id INTEGER, name TEXT, age INTEGER);"
    "CREATE TABLE orders (id INTEGER, user_id INTEGER, total REAL);"
    "INSERT INTO users VALUES (1, 'a', 30), (2, 'b', 40)"
)
GOLD = {"query": "SELECT name FROM users WHERE age > 30", "script": SCRIPT}
TABLES = {"users": ["id", "name", "age"], "orders": ["id", "user_id", "total"]}
BY_SCRIPT = {"script_column": "script"}


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with VerifierPool(1, 20.0) as pool:
        yield Services(verify=pool.judge_many)


class Scripted:
    def __init__(self, reply: Callable[[str], str | None]) -> None:
        self.reply = reply
        self.asked: list[str] = []

    def __call__(self, chats: Sequence[Sequence[Message]]) -> list[str | None]:
        self.asked += [chat[-1]["content"] for chat in chats]
        return [self.reply(chat[-1]["content"]) for chat in chats]


def response(query: str) -> str:
    return f"<think>so</think>\n<answer>\n```sql\n{query}\n```\n</answer>"


def score(services: Services, options: dict[str, Any], *texts: str) -> list[Score]:
    reward = build_reward({"sql_partial": {**BY_SCRIPT, **options}})
    problem = Problem("p7", "Who is over 30?", GOLD)
    reward.check(problem)
    reward.bind(services)
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return reward.score([Group(problem, samples)])[0]


def parts(score: Score) -> dict[str, float | None]:
    return {name.partition(".")[2]: v for name, v in score.aspects.items() if "." in name}


def test_each_part_is_told_apart(services: Services) -> None:
    right, near, broken, nothing = score(
        services,
        {},
        response(GOLD["query"]),
        response("SELECT name FROM users WHERE age >= 30"),
        response("SELECT name FROM users WHERE WHERE age"),
        "<think>so</think><answer>I do not know</answer>",
    )
    assert right.value == 7.0
    assert near.value == pytest.approx(3 + 5 / 9)  # syntax, schema, form, 5 bigrams of 9
    assert parts(near) == pytest.approx(
        {"execution": 0, "judge": 0, "syntax": 1, "schema": 1, "bigrams": 5 / 9, "form": 1}
    )
    assert parts(broken) == pytest.approx(
        {"execution": 0, "judge": 0, "syntax": 0, "schema": 0, "bigrams": 5 / 8, "form": 1}
    )
    assert nothing.value == 1.0
    assert nothing.judgement is not None
    assert nothing.judgement.verdict is Verdict.NO_ANSWER


def test_a_query_without_the_form_still_counts_for_itself(services: Services) -> None:
    (bare,) = score(services, {}, f"```sql\n{GOLD['query']}\n```")
    assert (bare.value, bare.aspects["sql_partial.form"]) == (6.0, 0.0)


def test_another_way_to_the_same_rows_is_right_but_loses_the_words(services: Services) -> None:
    (found,) = score(services, {}, response("SELECT u.name FROM users u WHERE 30 < u.age"))
    assert found.aspects["sql_partial.execution"] == 1.0
    assert found.aspects["sql_partial.schema"] == 1.0
    assert found.aspects["sql_partial.bigrams"] < 0.5


def test_the_judge_is_asked_only_about_queries_whose_rows_are_wrong(services: Services) -> None:
    judge = Scripted(lambda asked: '{"score": 0.6}')
    judged = Services(verify=services.verify, judge=judge)
    right, near, nothing = score(
        judged,
        {"judge": 2.0},
        response(GOLD["query"]),
        response("SELECT name FROM users WHERE age >= 30"),
        "no query",
    )
    assert right.value == 7.0
    assert near.value == pytest.approx(2 * 0.6 + 3 + 5 / 9)
    assert nothing.value == 0.0
    assert len(judge.asked) == 1
    assert "age >= 30" in judge.asked[0]
    assert "Who is over 30?" in judge.asked[0]


@pytest.mark.parametrize("answer", ["good", None, "1.5"])
def test_a_judge_that_gives_no_number_makes_the_sample_not_scorable(
    services: Services, answer: str | None
) -> None:
    judged = Services(verify=services.verify, judge=Scripted(lambda asked: answer))
    (near,) = score(judged, {"judge": 2.0}, response("SELECT name FROM users"))
    assert near.value is None
    assert "no number from the judge" in near.note


def test_a_judge_is_needed_only_where_it_is_paid_for(services: Services) -> None:
    assert build_reward("sql_partial").need == "pointwise"
    reward = build_reward({"sql_partial": {"judge": 2.0}})
    assert reward.need == "judge"
    with pytest.raises(RuntimeError, match="needs a judge as judge is 2.0"):
        reward.bind(services)


def test_an_undecided_execution_is_not_scorable() -> None:
    def verify(kind: str, pairs: Any, options: Any) -> list[Judgement]:
        verdict = Verdict.UNDECIDED if kind == "sql" else Verdict.RIGHT
        return [Judgement(verdict, "[]", "crashed")] * len(pairs)

    (found,) = score(Services(verify=verify), {}, response(GOLD["query"]))
    assert found.value is None
    assert "crashed" in found.note


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("SELECT 1", ""),
        ("SELECT nothing_known FROM nowhere", ""),
        ("WITH a AS (SELECT 1) SELECT * FROM a", ""),
        ("SELECT FROM users", "syntax error"),
        ("SELECT (1", "incomplete input"),
        ("SELECT 'a", "unrecognized token"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("-- all\nSELECT /* of */ 1", ""),
        ("SELECT " + "(" * 900, "parser stack overflow"),
        ("DROP TABLE users", "another statement"),
        ("WITH a AS (SELECT 1) DELETE FROM sqlite_master", "may not be modified"),
        ("SELECT " + "1 + " * 20_000 + "1", "too long"),
    ],
)
def test_syntax_is_what_sqlite_reads(query: str, fault: str) -> None:
    found = syntax_fault(query)
    assert (fault in found) if fault else found == ""


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ("SELECT name FROM users WHERE age > 30", "users users.name users.age"),
        ("SELECT u.NAME FROM Users AS u", "users users.name"),
        ("SELECT count(*) FROM users", "users"),
        (
            "SELECT name, total FROM users JOIN orders ON users.id = user_id",
            "users orders users.name orders.total users.id orders.user_id",
        ),
        (
            "SELECT name FROM users WHERE id IN (SELECT user_id FROM orders)",
            "users orders users.name users.id orders.user_id",
        ),
        (
            "WITH rich AS (SELECT user_id FROM orders WHERE total > 9) "
            "SELECT name FROM users JOIN rich ON rich.user_id = users.id",
            "users orders users.name users.id orders.user_id orders.total",
        ),
        ("SELECT t.n FROM (SELECT name AS n FROM users) AS t", "users users.name"),
        (
            "SELECT age FROM users UNION SELECT total FROM orders",
            "users orders users.age orders.total",
        ),
        ("SELECT age, count(*) AS n FROM users GROUP BY age ORDER BY n", "users users.age"),
        (
            "SELECT name FROM users u WHERE EXISTS (SELECT 1 FROM orders WHERE user_id = u.id)",
            "users orders users.name orders.user_id users.id",
        ),
        ("SELECT strange FROM users, orders", "users orders strange"),
        ('SELECT name FROM users WHERE age = "old man"', "users users.name users.age"),
        ('SELECT "name" FROM "users"', "users users.name"),
        ("SELECT 1", ""),
        ("SELECT )(", ""),
    ],
)  # fmt: skip
def test_tables_and_columns_are_found_through_their_aliases(query: str, items: str) -> None:
    assert schema_items(query, TABLES) == set(items.split())


def test_without_the_database_a_lone_table_still_owns_its_columns() -> None:
    assert schema_items("SELECT name FROM users", {}) == {"users", "users.name"}


@pytest.mark.parametrize(
    ("left", "right", "value"),
    [("SELECT 1", "select   1 ;", 1.0), ("a b c", "a b d", 1 / 3), ("a", "a", 1.0), ("a", "b", 0.0),
     ("SELECT 'x y'", "SELECT 'x z'", 0.0), ("a>=b", "a >= b", 1.0), ("", "", 1.0)],
)  # fmt: skip
def test_bigrams_are_of_tokens(left: str, right: str, value: float) -> None:
    assert bigram_jaccard(left, right) == pytest.approx(value)


def test_two_empty_sets_agree_and_one_does_not() -> None:
    assert (jaccard([], []), jaccard([], ["a"]), jaccard("ab", "bc")) == (1.0, 0.0, 1 / 3)


def test_the_sum_leaves_out_the_judge_where_rows_agree_and_unpaid_parts() -> None:
    weights = {"execution": 3.0, "judge": 2.0, "syntax": 0.0}
    assert sql_reward({"execution": 1.0, "judge": None, "syntax": None}, weights) == 3.0
    assert sql_reward({"execution": 0.0, "judge": 0.5, "syntax": None}, weights) == 1.0
    assert sql_reward({"execution": 0.0, "judge": None, "syntax": None}, weights) is None
    assert sql_reward({"execution": None, "judge": 0.5, "syntax": 1.0}, weights) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"syntax": -1}, "syntax is -1.0, expected >= 0"), ({"tags": ["a b"]}, "tags holds 'a b'")],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        build_reward({"sql_partial": options})
    assert message in str(raised.value)


@pytest.mark.skipif(not SPIDER.is_dir(), reason="no Spider data next to the tree")
def test_gold_queries_of_spider_are_sql_and_their_schema_exists() -> None:
    columns: dict[str, dict[str, list[str]]] = {}
    for row in map(json.loads, (SPIDER / "dev13.jsonl").open()):
        path = row["database"]
        if path not in columns:
            connection = sqlite3.connect(
                f"{(SPIDER / path).as_uri()}?mode=ro&immutable=1", uri=True
            )
            names = [n for (n,) in connection.execute("SELECT name FROM sqlite_master")]
            columns[path] = {
                n.lower(): [r[1].lower() for r in connection.execute(f'PRAGMA table_info("{n}")')]
                for n in names
            }
            connection.close()
        tables = columns[path]
        known = {*tables, *(f"{t}.{c}" for t, names in tables.items() for c in names)}
        assert syntax_fault(row["query"]) == "", row["query"]
        items = schema_items(row["query"], tables)
        assert items and items <= known, row["query"]
