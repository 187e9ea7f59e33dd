# ruff: noqa: E501  (a table reads best with one case a line)
import hashlib
import itertools
import json
import re
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.sql import budget_s, check_gold, find_query, judge

SPIDER = Path(__file__).parents[3] / "shared" / "data" / "spider"
needs_spider = pytest.mark.skipif(not SPIDER.is_dir(), reason="no Spider data next to the tree")

SCRIPT = """
CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, height REAL, note BLOB);
INSERT INTO singer VALUES (1, 'Ann', 30, 1.5, NULL), (2, 'Bob', 40, 1.75, x'00ff'),
                          (3, 'Ann', 50, 1.5, NULL), (4, '30', 40, 0.3, NULL);
"""


def gold(query: str, **rest: Any) -> dict[str, Any]:
    return {"query": query, "script": SCRIPT, **rest}


def verdict(query: str, wanted: str, **rest: Any) -> Verdict:
    return judge(query, gold(wanted, **rest), form="query").verdict


@pytest.mark.parametrize(
    ("query", "wanted", "right"),
    [
        pytest.param("select name from singer", "SELECT name FROM singer", True, id="case"),
        pytest.param("SELECT name x FROM singer;", "SELECT name FROM singer", True, id="names"),
        pytest.param("SELECT age, name FROM singer", "SELECT name, age FROM singer", True, id="columns swapped"),
        pytest.param("SELECT age, age FROM singer", "SELECT name, age FROM singer", False, id="a column twice"),
        pytest.param("SELECT name, age, id FROM singer", "SELECT name, age FROM singer", False, id="a column more"),
        pytest.param("SELECT DISTINCT name FROM singer", "SELECT name FROM singer", False, id="rows are a multiset"),
        pytest.param("SELECT name FROM singer ORDER BY age DESC", "SELECT name FROM singer", True, id="order is free"),
        pytest.param("SELECT id FROM singer ORDER BY id DESC", "SELECT id FROM singer ORDER BY id", False, id="order asked"),
        pytest.param("SELECT id FROM singer ORDER BY id DESC", "SELECT id FROM (SELECT id FROM singer ORDER BY id)", True, id="order inside"),
        pytest.param("SELECT id FROM singer ORDER BY id DESC", "SELECT id, 'ORDER BY' FROM singer -- ORDER BY id", False, id="columns, not the comment"),
        pytest.param("SELECT 1.0", "SELECT 1", True, id="an integer is a float"),
        pytest.param("SELECT '1'", "SELECT 1", False, id="text is no number"),
        pytest.param("SELECT 0.1 + 0.2", "SELECT 0.3", True, id="float noise"),
        pytest.param("SELECT 0.30001", "SELECT 0.3", False, id="more than noise"),
        pytest.param("SELECT 10000001", "SELECT 10000000", False, id="integers are exact"),
        pytest.param("SELECT 9007199254740993", "SELECT 9007199254740992", False, id="integers beyond floats"),
        pytest.param("SELECT 9e999", "SELECT 9e999", True, id="infinity"),
        pytest.param("SELECT 9e999", "SELECT 1.5", False, id="infinity is no number's neighbour"),
        pytest.param("SELECT NULL", "SELECT NULL", True, id="null is null"),
        pytest.param("SELECT NULL", "SELECT 0", False, id="null is no zero"),
        pytest.param("SELECT ''", "SELECT NULL", False, id="null is no empty text"),
        pytest.param("SELECT note FROM singer WHERE id=2", "SELECT x'00ff'", True, id="bytes"),
        pytest.param("SELECT CAST(x'00ff' AS TEXT)", "SELECT x'00ff'", False, id="bytes are no text"),
        pytest.param("SELECT 'ann'", "SELECT 'Ann'", False, id="case of text"),
        pytest.param("SELECT 1 WHERE 0", "SELECT name FROM singer WHERE age > 99", True, id="both empty"),
        pytest.param("SELECT name FROM singer WHERE age > 99", "SELECT name FROM singer", False, id="empty"),
        pytest.param("WITH a AS (SELECT * FROM singer) SELECT count(*) FROM a", "SELECT 4", True, id="with"),
        pytest.param("SELECT printf('%.2f|%s', age / 3.0, trim(' xx ')) || trim('xax', 'x') FROM singer WHERE id=1", "SELECT '10.00|xxa'", True, id="printf"),
        pytest.param("SELECT ltrim(5155, 5), rtrim(NULL, 'x'), printf(NULL)", "SELECT '155', NULL, NULL", True, id="trim"),
        pytest.param("VALUES (1), (2)", "SELECT 2 UNION ALL SELECT 1", True, id="values"),
        pytest.param("SELECT nothing FROM singer", "SELECT 1", False, id="no such column"),
        pytest.param("SELEC 1", "SELECT 1", False, id="syntax"),
        pytest.param("SELECT 1; SELECT 1", "SELECT 1", False, id="two statements"),
        pytest.param("SELECT 1 /* open", "SELECT 1", True, id="a comment without end"),
        pytest.param("-- nothing", "SELECT 1", False, id="only a comment"),
        pytest.param("SELECT 'a\0b'", "SELECT 1", False, id="nul character"),
        pytest.param("SELECT '\ud800'", "SELECT 1", False, id="lone surrogate"),
    ],
)  # fmt: skip
def test_rows_decide(query: str, wanted: str, right: bool) -> None:
    assert verdict(query, wanted) is (Verdict.RIGHT if right else Verdict.WRONG)


def test_the_gold_may_say_itself_whether_order_matters() -> None:
    backward = "SELECT id FROM singer ORDER BY id DESC"
    assert verdict(backward, "SELECT id FROM singer", ordered=True) is Verdict.WRONG
    assert verdict(backward, "SELECT id FROM singer ORDER BY id", ordered=False) is Verdict.RIGHT


def test_columns_are_tied_by_their_rows() -> None:
    # Each column has the same values, but they meet in other rows.
    wanted = "SELECT 1, 2, 5 UNION ALL SELECT 2, 1, 6"
    assert verdict("SELECT 2, 1, 5 UNION ALL SELECT 1, 2, 6", wanted) is Verdict.RIGHT
    assert verdict("SELECT 1, 1, 5 UNION ALL SELECT 2, 2, 6", wanted) is Verdict.WRONG


def test_near_floats_do_not_disturb_the_order_of_rows() -> None:
    wanted = "SELECT 0.1 + 0.2, 'b' UNION ALL SELECT 0.3, 'a'"
    assert verdict("SELECT 0.3, 'b' UNION ALL SELECT 0.3, 'a'", wanted) is Verdict.RIGHT
    assert verdict("SELECT 0.3, 'b' UNION ALL SELECT 0.3, 'b'", wanted) is Verdict.WRONG


def test_equal_results_have_equal_answers() -> None:
    queries = ["SELECT id, age FROM singer ORDER BY age", "SELECT id, age * 1.0 FROM singer"]
    answers = {judge(query, gold("SELECT 1"), form="query").answer for query in queries}
    assert answers == {"[[1,30],[2,40],[3,50],[4,40]]".replace(",", ", ").replace("], [", "],[")}


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("```sql\nSELECT 1;\n```", "SELECT 1"),
        ("First ```sql\nSELECT 1\n``` no, better:\n```sql\nSELECT 2\n```\nDone.", "SELECT 2"),
        ("```SQL\nselect 1\n```", "select 1"),
        ("```\nselect 1\n```\n```python\nprint(2)\n```", "select 1"),
        ("```sql\nDROP TABLE singer\n```", "DROP TABLE singer"),
        ("```sql\nSELECT 1", "SELECT 1"),
        ("The query is: SELECT a FROM b WHERE c IN (SELECT d FROM e);  It lists.", "SELECT a FROM b WHERE c IN (SELECT d FROM e)"),
        ("SELECT a\nFROM b\nUNION\nSELECT c\nFROM d\n\nThis SELECTs a.", "SELECT a\nFROM b\nUNION\nSELECT c\nFROM d"),
        ("SELECT ';' FROM b; SELECT 2;", "SELECT 2"),
        ("Use `SELECT 1` here", "SELECT 1"),
        ("With this in mind we select all:\nwith x as (select 1) select * from x", "with x as (select 1) select * from x"),
        ("<think>SELECT 1;</think>SELECT 2", "SELECT 2"),
        ("SELECT 1; <answer>SELECT 2</answer>", "SELECT 2"),
        ("<answer>```sql\nSELECT 3\n```</answer>", "SELECT 3"),
        ("SELECT a FROM b;\n\nThe SELECT clause picks a.", "SELECT a FROM b"),
        ("Run SELECT a FROM b; and you see.", "SELECT a FROM b"),
        ("You should select the name.", None),
        ("", None),
        ("```sql\n```", None),
    ],
)  # fmt: skip
def test_the_query_of_a_response(text: str, query: str | None) -> None:
    assert find_query(text) == query


def test_a_list_of_databases_is_a_test_suite_where_all_must_agree() -> None:
    # On the first the two queries agree by chance.
    wanted = "SELECT name FROM singer WHERE age = 30"
    other = SCRIPT + "INSERT INTO singer VALUES (5, 'Eve', 20, 1, NULL);"
    suite = {"query": wanted, "script": [SCRIPT, other]}
    for query, single, both in (
        ("SELECT name FROM singer WHERE age < 40", Verdict.RIGHT, Verdict.WRONG),
        (wanted, Verdict.RIGHT, Verdict.RIGHT),
    ):
        assert verdict(query, wanted) is single
        assert judge(query, suite, form="query").verdict is both
    check_gold(suite)
    assert budget_s(suite, {"timeout_s": 5}) > budget_s(suite, {}) > budget_s(gold(wanted), {}) > 12


def test_a_time_limit_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout_s is 0"):
        judge("SELECT 1", gold("SELECT 1"), timeout_s=0)


def test_no_query_is_no_answer() -> None:
    assert judge("I cannot tell.", gold("SELECT 1")).verdict is Verdict.NO_ANSWER


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "it's 100%.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCRIPT)
    return path


@pytest.mark.parametrize(
    "attack",
    [
        "INSERT INTO singer (name) VALUES ('Eve')",
        "UPDATE singer SET age = 0",
        "DELETE FROM singer",
        "DROP TABLE singer",
        "CREATE TABLE t (x)",
        "CREATE TEMP TABLE t AS SELECT 1",
        "WITH a AS (SELECT 1) DELETE FROM singer",
        "ALTER TABLE singer RENAME TO s",
        "VACUUM",
        "REINDEX",
        "ANALYZE",
        "BEGIN",
        "SAVEPOINT x",
        "VACUUM INTO '{folder}/stolen'",
        "ATTACH '{folder}/stolen' AS s",
        "DETACH main",
        "PRAGMA writable_schema = ON",
        "PRAGMA user_version = 7",
        "SELECT * FROM pragma_table_info('singer')",
        "SELECT load_extension('x')",
        "SELECT writefile('{folder}/stolen', 'x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT * FROM singer; DROP TABLE singer",
        "EXPLAIN SELECT 1",
    ],
)
def test_whatever_does_not_only_read_is_refused_and_the_file_stays(
    attack: str, database: Path
) -> None:
    before = hashlib.sha256(database.read_bytes()).digest(), database.stat().st_mtime_ns
    wanted = {"query": "SELECT * FROM singer", "database": str(database)}
    found = judge(attack.format(folder=database.parent), wanted, form="query")
    assert found.verdict is Verdict.WRONG
    assert (hashlib.sha256(database.read_bytes()).digest(), database.stat().st_mtime_ns) == before
    assert list(database.parent.iterdir()) == [database]
    assert judge("SELECT * FROM singer", wanted, form="query").verdict is Verdict.RIGHT


def _doubling(steps: int) -> str:
    chain = "".join(
        f", a{i} AS (SELECT count(*) n FROM a{i - 1} x, a{i - 1} y)" for i in range(1, steps)
    )
    return f"WITH a0 AS (SELECT 1 n){chain} SELECT * FROM a{steps - 1}"


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c", "takes longer"),
        ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c", "takes longer|more than"),
        ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT zeroblob(190000)||x FROM c ORDER BY 1", "takes longer"),
        ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT zeroblob(190000) FROM c", "more than"),
        ("SELECT zeroblob(1000000000)", "too big"),
        ("SELECT printf('%.*c', 1000000000, 'x')", "function raised"),
        ("SELECT format('%1000000000d', 1)", "function raised"),
        ("SELECT trim(hex(zeroblob(90000)), replace(hex(zeroblob(20000)), '0', '1') || '0')", "function raised"),
        ("SELECT randomblob(10)", "not authorized"),
        ("SELECT * FROM singer ORDER BY random()", "not authorized"),
        (_doubling(60), "uses WITH"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "overflow|depth|large"),
        ("SELECT " + "-" * 15000 + "1", "no query|incomplete|depth"),
        ("SELECT " + "1," * 5000 + "1", "too many columns"),
        ("SELECT 1" + " UNION ALL SELECT 1" * 900, "too many terms"),
        ("SELECT 1 " + " " * 30000, "4"),
        ("SELECT '" + "x" * 30000 + "'", "longer than"),
        ("/*" * 9000, "syntax"),
    ],
    ids=lambda value: value[:60],
)  # fmt: skip
def test_a_query_that_would_hang_or_grow_is_wrong_within_its_time(attack: str, why: str) -> None:
    began = time.perf_counter()
    found = judge(attack, gold("SELECT * FROM singer"), form="query", timeout_s=0.3)
    assert time.perf_counter() - began < 3
    assert found.verdict is Verdict.WRONG
    assert re.search(why, found.why)


@pytest.mark.parametrize(
    "text",
    ["SELECT a " * 20_000, "with a as " * 20_000, "`" * 90_000, "```sql\n" * 20_000, "(" * 90_000,
     "SELECT '" * 20_000, "\n\n" * 50_000, "WITH " + "a" * 90_000, "with a (" * 12_000,
     "/*" * 50_000 + "SELECT 1", "</answer>" * 20_000, "<answer>" * 20_000,
     "WITH" + " " * 90_000, "SELECT\n" * 20_000],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_finding_the_query_takes_linear_time(text: str) -> None:
    began = time.perf_counter()
    judge(text, gold("SELECT 1"), timeout_s=0.3)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "SELECT 1",
        {"query": "SELECT 1"},
        {"query": "SELECT 1", "script": "", "database": "x"},
        {"query": "", "script": ""},
        {"query": 1, "script": ""},
        {"query": "SELECT 1", "script": 3},
        {"query": "SELECT 1", "script": "CREATE TABLE"},
        {"query": "SELECT 1", "script": "ATTACH 'stolen' AS s"},
        {"query": "SELECT a FROM b", "script": ""},
        {"query": "SELECT random()", "script": ""},
        {"query": "SELECT 1", "script": "", "ordered": "yes"},
        {"query": "SELECT 1", "database": "no/such/file.sqlite"},
        {"query": "SELECT 1", "database": ""},
        {"query": "SELECT 1", "database": []},
        {"query": "SELECT a FROM b", "script": ["CREATE TABLE b (a)", ""]},
        {"query": "SELECT 1", "database": __file__},
        {"query": "SELECT 1", "database": str(Path(__file__).parent)},
    ],
    ids=repr,
)
def test_an_unusable_gold_is_refused(bad: Any) -> None:
    with pytest.raises(GoldError):
        check_gold(bad)
    with pytest.raises(GoldError):
        judge("SELECT 1", bad)


def test_a_changed_file_is_read_again(database: Path) -> None:
    wanted = {"query": "SELECT count(*) FROM singer", "database": str(database)}
    assert judge("SELECT 4", wanted, form="query").verdict is Verdict.RIGHT
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM singer WHERE id = 1")
        connection.commit()
    assert judge("SELECT 3", wanted, form="query").verdict is Verdict.RIGHT


FRAMES = ("{}", "```sql\n{};\n```", "The query is:\n\n{};", "<think>x</think><answer>{}</answer>")


def _spider() -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (SPIDER / "dev13.jsonl").read_text().splitlines()]
    return [{"query": r["query"], "database": str(SPIDER / r["database"])} for r in rows]


@needs_spider
def test_every_gold_of_spider_accepts_itself() -> None:
    golds = _spider()
    assert len(golds) == 572
    for row in golds:
        check_gold(row)
        for frame in FRAMES:
            form: Literal["response", "query"] = "query" if frame == "{}" else "response"
            found = judge(frame.format(row["query"]), row, form=form)
            assert found.verdict is Verdict.RIGHT, (row, frame, found)


@needs_spider
def test_mutations_of_spider_golds_are_judged_by_their_rows() -> None:
    seen: Counter[tuple[str, bool]] = Counter()
    connections: dict[str, sqlite3.Connection] = {}
    for row in _spider():
        if row["database"] not in connections:
            connections[row["database"]] = sqlite3.connect(row["database"])
        connection = connections[row["database"]]
        for kind, query in _mutations(row["query"]):
            try:
                same = _same_by_force(connection, row["query"], query)
            except sqlite3.Error:
                same = False
            found = judge(query, row, form="query")
            assert (found.verdict is Verdict.RIGHT) == same, (kind, query, row, found)
            seen[kind, same] += 1
    for connection in connections.values():
        connection.close()
    kinds = {"constant", "no where", "column", "aggregate", "limit", "direction"}
    assert {kind for kind, same in seen if not same} == kinds
    assert sum(n for (_, same), n in seen.items() if not same) > 900


def _mutations(query: str) -> list[tuple[str, str]]:
    swaps = [
        ("constant", r"(?i)(?<=[=<>] )(\d+)", lambda m: str(int(m[1]) * 2 + 7)),
        ("constant", r"""(?<=[=<>])\s*(['"])(.*?)\1""", lambda m: " 'zzz'"),
        ("no where", r"(?i)\bWHERE\b.*?(?=\bGROUP\b|\bORDER\b|\)|$)", lambda m: ""),
        ("column", r"(?i)(?<=SELECT )\s*(?!count|avg|sum|min|max|distinct)[\w.*]+", lambda m: "'x'"),
        ("aggregate", r"(?i)\bcount\(", lambda m: "1 + count("),
        ("aggregate", r"(?i)\b(?:avg|sum|max)\(", lambda m: "min("),
        ("limit", r"(?i)\bLIMIT\s+(\d+)", lambda m: f"LIMIT {int(m[1]) + 1}"),
        ("direction", r"(?i)\bDESC\b", lambda m: "ASC"),
        ("direction", r"(?i)\bASC\b", lambda m: "DESC"),
    ]  # fmt: skip
    found = [(kind, re.sub(old, new, query, count=1)) for kind, old, new in swaps]
    return [(kind, changed) for kind, changed in found if changed != query]


def _same_by_force(connection: sqlite3.Connection, wanted: str, query: str) -> bool:
    """Every order of columns tried, rows compared as they are: slow and plain."""
    left, right = (connection.execute(q).fetchall() for q in (wanted, query))
    if len(left) != len(right):
        return False
    if not left:
        return True
    if len(left[0]) != len(right[0]):
        return False
    ordered = re.search(r"(?i)order\s+by", re.sub(r"\([^()]*\)", "", wanted))
    for order in itertools.permutations(range(len(left[0]))):
        turned = [tuple(row[i] for i in order) for row in right]
        if turned == left if ordered else Counter(turned) == Counter(left):
            return True
    return False
