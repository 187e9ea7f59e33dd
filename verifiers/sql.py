"""Does an SQL query give the rows that the gold query gives? Both run on SQLite, read-only.

The rules are those of execution accuracy on Spider with test suites (Zhong et al. 2020,
arXiv:2010.02840): rows are a multiset, or a list where the gold query orders them; columns may
stand in any order; their names do not matter. Different from there: only an ORDER BY of the whole
gold query counts as an order, DISTINCT is kept, and floats are compared with a tolerance.

A query of the model may only read: the file is opened read-only and immutable, an authorizer
refuses everything but SELECT, and time, length of values and number of rows are limited.
"""

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.extract import after_thinking
from llmalign.verifiers.format import fenced, tagged
from llmalign.verifiers.sql_rows import Row, normal_form, same_rows
from llmalign.verifiers.verdict import GoldError, Judgement, Verdict

Source = tuple[str, int, int, str]  # path, its mtime in ns, its size; or "", 0, 0 and a script

MAX_QUERY = 20_000  # characters
MAX_ROWS = 100_000  # of one result
MAX_RESULT = 20_000_000  # characters and bytes of one result, each value counted as 8 more
MAX_VALUE = 200_000  # bytes of one value, on the way too: stops zeroblob(1e9) and its like
MAX_TRIM = 1_000  # characters that trim() may be told to remove: its time is their product
MAX_CTE_USES = 24  # SQLite copies a WITH query once for each use, which can double at each step
DEFAULT_TIMEOUT_S = 2.0  # of a model's query
GOLD_TIMEOUT_S = 10.0  # of a gold query, and of the script that builds its database

_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
# Chance has no place in a verdict; the others reach beyond the query.
_REFUSED_FUNCTIONS = {"random", "randomblob", "load_extension", "fts3_tokenizer", "sqlite_log"}
# One call of these can take minutes, and no time limit interrupts a single call.
_GUARDED_FUNCTIONS = {"printf": -1, "format": -1, "trim": 2, "ltrim": 2, "rtrim": 2}
_WIDE = re.compile(r"%[^A-Za-z%]*(?:\*|[0-9]{4})")

# Comments and quotes that never end run to the end of the text, as SQLite reads them.
_TOKEN = re.compile(
    r"--[^\n]*|/\*(?:.*?\*/|.*)|'[^']*'?|\"[^\"]*\"?|`[^`]*`?|\[[^\]]*\]?|[A-Za-z_]\w*|\s+|.",
    re.DOTALL,
)
_QUERY_START = re.compile(
    r"(?:(?<!\w)SELECT|^[ \t]*(?i:select))(?=[\s*('\"])"
    r"|(?<!\w)(?i:with)\s+(?:(?i:recursive)\s+)?[\"`]?\w+[\"`]?\s*(?:\([^()]*\)\s*)?(?i:as)\s",
    re.MULTILINE,
)
_QUERY_END = re.compile(r"\n[ \t]*\n|```|</?\w+>")


class _Failed(Exception):
    """The query gives no result; the message says why."""


def check_gold(gold: Any) -> None:
    """Raises GoldError unless each database opens and the gold query gives a result on it."""
    query, sources, _ = _read_gold(gold)
    for source in sources:
        _gold_rows(query, source)


def _read_gold(gold: Any) -> tuple[str, list[Source], bool]:
    """The gold query, where its databases come from, and whether the order of rows matters."""
    if not isinstance(gold, Mapping) or ("database" in gold) == ("script" in gold):
        shown = repr(gold)[:80]
        raise GoldError(f"gold is {shown}, expected a mapping with query and database or script")
    query, ordered = gold.get("query"), gold.get("ordered")
    if not isinstance(query, str) or not query.strip():
        raise GoldError(f"query is {repr(query)[:80]}, expected an SQL query")
    if ordered is not None and not isinstance(ordered, bool):
        raise GoldError(f"ordered is {repr(ordered)[:80]}, expected true, false or nothing")
    kind = "script" if "script" in gold else "database"
    given = gold[kind] if isinstance(gold[kind], list | tuple) else [gold[kind]]
    if not given:
        raise GoldError(f"{kind} is an empty list, expected at least one")
    sources = [_from_script(one) if kind == "script" else _from_file(one) for one in given]
    return query, sources, _is_ordered(query) if ordered is None else ordered


def _from_script(script: Any) -> Source:
    if not isinstance(script, str):
        raise GoldError(f"script is {repr(script)[:80]}, expected SQL statements")
    return "", 0, 0, script


def _from_file(path: Any) -> Source:
    if not isinstance(path, str) or not Path(path).is_file():
        raise GoldError(f"database is {repr(path)[:80]}, expected the path of an SQLite file")
    status = Path(path).stat()
    return str(Path(path).resolve()), status.st_mtime_ns, status.st_size, ""


def _is_ordered(query: str) -> bool:
    """Whether the whole query has an ORDER BY: one outside of all brackets."""
    depth, before = 0, ""
    for token in _tokens(query):
        if token in ("(", ")"):
            depth += 1 if token == "(" else -1
        if depth == 0 and (before, token.upper()) == ("ORDER", "BY"):
            return True
        before = token.upper()
    return False


def _tokens(query: str) -> Iterator[str]:
    """The tokens of a query without whitespace and comments."""
    for match in _TOKEN.finditer(query):
        if not match[0].isspace() and not match[0].startswith(("--", "/*")):
            yield match[0]


@lru_cache(maxsize=256)
def _gold_rows(query: str, source: Source) -> tuple[Row, ...]:
    try:
        return tuple(_run(query, source, GOLD_TIMEOUT_S))
    except (_Failed, MemoryError) as error:
        raise GoldError(f"gold query {query[:80]!r} fails: {error}; drop the row") from None


@lru_cache(maxsize=32)
def _image(script: str) -> bytes:
    """The database that a script builds, as the bytes of its file."""
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # VACUUM INTO needs one as well
            _limit_time(connection, GOLD_TIMEOUT_S)
            connection.executescript(script)
            connection.commit()
            return connection.serialize()
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        raise GoldError(f"script {script[:80]!r} fails: {error}; drop the row") from None


def _open(source: Source) -> sqlite3.Connection:
    """A connection that can only read; raises GoldError where there is no database."""
    path, _, _, script = source
    if path:
        connection = sqlite3.connect(f"{Path(path).as_uri()}?mode=ro&immutable=1", uri=True)
    else:
        connection = sqlite3.connect(":memory:")
        connection.deserialize(_image(script))
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        connection.close()
        raise GoldError(f"database {path[:80]!r} is no SQLite file: {error}") from None
    _limit(connection)
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    connection.set_authorizer(_authorize)
    return connection


def _limit(connection: sqlite3.Connection) -> None:
    limits = {
        sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE,
        sqlite3.SQLITE_LIMIT_SQL_LENGTH: 4 * MAX_QUERY,  # bytes
        sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
        sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
        sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
        sqlite3.SQLITE_LIMIT_ATTACHED: 0,
        sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
    }
    for limit, value in limits.items():
        connection.setlimit(limit, value)


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action not in _ALLOWED:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _REFUSED_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _limit_time(connection: sqlite3.Connection, timeout_s: float) -> float:
    deadline = time.monotonic() + timeout_s
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 1_000)
    return deadline


def _run(query: str, source: Source, timeout_s: float) -> list[Row]:
    """All rows of a query; raises _Failed where it fails, or exceeds a limit."""
    if len(query) > MAX_QUERY:
        raise _Failed(f"the query is longer than {MAX_QUERY:,} characters")
    if _cte_uses(query) > MAX_CTE_USES:
        raise _Failed(f"uses WITH queries more than {MAX_CTE_USES} times")
    with closing(_open(source)) as connection, closing(sqlite3.connect(":memory:")) as helper:
        _limit(helper)
        for name, arguments in _GUARDED_FUNCTIONS.items():
            guarded = partial(_call_guarded, helper, name)
            connection.create_function(name, arguments, guarded, deterministic=True)
        deadline = _limit_time(connection, timeout_s)
        try:
            return _fetch(connection.execute(query))
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            if time.monotonic() > deadline:
                raise _Failed(f"takes longer than {timeout_s:g} s") from None
            raise _Failed(str(error)[:200]) from None


def _call_guarded(helper: sqlite3.Connection, name: str, *arguments: Any) -> Any:
    """SQLite's own function, after a look at what makes it slow."""
    limited = str(arguments[-1] if "trim" in name else (*arguments, "")[0])
    if len(limited) > MAX_TRIM if "trim" in name else _WIDE.search(limited):
        raise ValueError("the call would take too long")
    marks = ",".join("?" * len(arguments))
    return helper.execute(f"SELECT {name}({marks})", arguments).fetchone()[0]


def _fetch(cursor: sqlite3.Cursor) -> list[Row]:
    if cursor.description is None:
        raise _Failed("no query: it gives no columns")
    rows: list[Row] = []
    size = 0
    for row in cursor:
        rows.append(row)
        size += sum(8 + (len(v) if isinstance(v, str | bytes) else 0) for v in row)
        if len(rows) > MAX_ROWS or size > MAX_RESULT:
            raise _Failed(f"gives more than {MAX_ROWS:,} rows or {MAX_RESULT:,} bytes")
    return rows


def _cte_uses(query: str) -> int:
    """How often the tables that WITH defines are read."""
    tokens = [token.strip('"`[]').lower() for token in _tokens(query)]
    defined = set()
    for at, (token, after) in enumerate(zip(tokens, tokens[1:], strict=False)):
        if token == "as" and after in ("(", "materialized", "not"):
            head = tokens[:at]
            if head[-1:] == [")"]:  # the names of its columns
                while head and head.pop() != "(":
                    pass
            defined.update(head[-1:])
    pairs = zip(tokens, tokens[1:], strict=False)
    return sum(before in ("from", "join", ",") and name in defined for before, name in pairs)


def find_query(text: str) -> str | None:
    """The query of a response, without its closing semicolon, or None.

    What stands in the last ``<answer>`` is read where there is one, else what follows the
    thinking. There: the last code block marked as SQL, or with a query in a block without mark;
    else the last statement that starts with ``SELECT`` (in capitals, or at the start of a line)
    or ``WITH name AS``, up to a semicolon, an empty line, a fence or a tag; one at the start of
    a line or after a colon goes before one in the middle of a sentence.
    """
    text = after_thinking(text)
    answers = [inside for inside in tagged(text, "answer") if inside.strip()]
    text = answers[-1] if answers else text
    for language, content in reversed(fenced(text)):
        marked = language.startswith("sql")
        if content.strip() and (marked or (not language and _QUERY_START.match(content.strip()))):
            return _bare(content)
    return _last_statement(text)


def _last_statement(text: str) -> str | None:
    found: dict[bool, str] = {}
    at = 0
    while start := _QUERY_START.search(text, at):
        end = _statement_end(text, start.start())
        query = text[start.start() : end]
        before = text[
            text.rfind("\n", max(0, start.start() - 200), start.start()) + 1 : start.start()
        ]
        if before.endswith("`"):
            query = query.partition("`")[0]
        # "The SELECT clause …" at the end of a response is prose after its query.
        found[not before.strip() or before.rstrip()[-1] in ":;`*>-"] = query
        at = max(end, start.end())
    query = found.get(True) or found.get(False) or ""
    return _bare(query)


def _statement_end(text: str, start: int) -> int:
    limit = _QUERY_END.search(text, start)
    end = limit.start() if limit else len(text)
    for token in _TOKEN.finditer(text, start, end):
        if token[0] == ";":
            return token.start()
    return end


def _bare(query: str) -> str | None:
    return query.strip().rstrip("; \t\r\n") or None


def budget_s(gold: Any, options: Mapping[str, Any]) -> float:
    """Seconds one judgement may take: the gold query, once per process, then the model's, on
    each database."""
    _, sources, _ = _read_gold(gold)
    once = GOLD_TIMEOUT_S + float(options.get("timeout_s", DEFAULT_TIMEOUT_S))
    return 2.0 + once * len(sources)


@VERIFIERS.register(
    "sql",
    paper="Zhong et al. 2020, arXiv:2010.02840",
    traits={
        "signature": f"sql|v1|sqlite {sqlite3.sqlite_version}",
        "check_gold": check_gold,
        "preload": ("sqlite3",),
        "budget_s": budget_s,
    },
)
def judge(
    text: str,
    gold: Any,
    *,
    form: Literal["response", "query"] = "response",
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Judgement:
    """Whether a query gives the rows of the gold query, by running both on SQLite, read-only.

    Args:
        text: the whole response, or a bare query. It is never written to the database, and
            whatever it is, it raises nothing.
        gold: ``{"query": "SELECT …", "database": "path/to.sqlite"}``, or with ``"script":
            "CREATE TABLE …; INSERT …"`` for a database. A list of either is a test suite: the
            rows must be equal on each. ``"ordered"`` (bool) says whether the order of rows
            matters, whatever ORDER BY says. Paths count from the working directory.
            Where the gold gives no rows, any query without rows is right: add a database where
            it gives some. ``date('now')`` makes a verdict depend on the day.
        form: ``response``: the query is found as in ``find_query``; ``query``: the text is one.
        timeout_s: what the model's query may take, in seconds; a slower one is wrong.
    Raises:
        GoldError: a database is missing or no SQLite file, or the gold query fails.
        ValueError: ``timeout_s`` is not positive.
    """
    if not timeout_s > 0:
        raise ValueError(f"timeout_s is {timeout_s}, expected a number > 0")
    wanted, sources, ordered = _read_gold(gold)
    expected = [_gold_rows(wanted, source) for source in sources]
    query = find_query(text) if form == "response" else _bare(text)
    if query is None:
        return Judgement(Verdict.NO_ANSWER, None, "no query found")
    answer = None
    for source, wanted_rows in zip(sources, expected, strict=True):
        try:
            rows = _run(query, source, timeout_s)
            same, why = same_rows(wanted_rows, rows, ordered)
        except _Failed as failure:
            return Judgement(Verdict.WRONG, answer, str(failure))
        except MemoryError:
            return Judgement(Verdict.UNDECIDED, answer, "the query runs out of memory")
        answer = answer or normal_form(rows, ordered)
        if not same:
            return Judgement(Verdict.UNDECIDED if same is None else Verdict.WRONG, answer, why)
    return Judgement(Verdict.RIGHT, answer, why)
