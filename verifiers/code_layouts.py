"""Rows of code data sets as gold answers for the verifier ``code``.

Each layout is known by its columns; the first that fits is taken:

    gold           our own: ``tests`` is a mapping with ``type``
    humaneval      HumanEval, HumanEval+: prompt, entry_point, test with ``check(candidate)``
    leetcode       LeetCodeDataset: the same columns, entry_point ``Solution().name``
    mbpp           MBPP, MBPP+: test_list (and test_imports, test_setup_code), or test
    plain          prompt, entry_point, tests as one text; or tests as [{input, output}]
    code_contests  DeepMind CodeContests: public_tests, private_tests, generated_tests
    apps           APPS, TACO, PRIME, DeepCoder: input_output = {inputs, outputs, fn_name?}
    livecodebench  public_test_cases as JSON [{input, output, testtype}], metadata
"""

import ast
import builtins
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmalign.verifiers.verdict import GoldError

Row = Mapping[str, Any]

# Names that problems of these sets take for granted; lent to a program that lacks them.
COMMON_IMPORTS = """\
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cache, cmp_to_key, lru_cache, reduce
from heapq import heapify, heappop, heappush, heappushpop, heapreplace, nlargest, nsmallest
from itertools import accumulate, chain, combinations, permutations, product, zip_longest
from math import ceil, comb, floor, gcd, inf, isqrt, log, log2, sqrt
from typing import Any, Deque, Dict, Iterable, List, Optional, Set, Tuple, Union
"""


def gold_from_row(row: Row, layout: str = "auto") -> dict[str, Any]:
    """The gold answer of one row.

    Args:
        row: its columns.
        layout: name of a layout above; ``auto`` finds it from the columns.
    Raises:
        GoldError: no layout fits, or the row lacks what its layout needs.
    """
    if layout == "auto":
        layout = find_layout(row)
    elif layout not in _LAYOUTS:
        raise GoldError(f"layout is {layout!r}, expected one of {', '.join(_LAYOUTS)} or auto")
    fits, read = _LAYOUTS[layout]
    if not fits(row):
        raise GoldError(f"layout {layout!r} does not fit a row with {_columns(row)}")
    gold = read(row)
    return {key: value for key, value in gold.items() if value not in (None, "")}


def find_layout(row: Row) -> str:
    """The name of the layout a row has; raises GoldError where none fits."""
    for name, (fits, _) in _LAYOUTS.items():
        if fits(row):
            return name
    raise GoldError(f"no layout is known for a row with {_columns(row)}; map a column to tests")


def _columns(row: Row) -> str:
    return "columns " + (", ".join(sorted(map(str, row))) or "none")


def _is_gold(row: Row) -> bool:
    tests = _parsed(row.get("tests"))
    return isinstance(tests, Mapping) and "type" in tests


def _gold(row: Row) -> dict[str, Any]:
    return dict(_parsed(row["tests"]))


def _is_humaneval(row: Row) -> bool:
    return {"prompt", "entry_point", "test"} <= row.keys() and "." not in str(row["entry_point"])


def _humaneval(row: Row) -> dict[str, Any]:
    entry = row["entry_point"]
    code = _with_call(row["test"], entry)
    return {"type": "asserts", "entry_point": entry, "code": code, "prelude": _prelude(row)}


def _is_leetcode(row: Row) -> bool:
    return {"prompt", "entry_point", "test"} <= row.keys() and "." in str(row["entry_point"])


def _leetcode(row: Row) -> dict[str, Any]:
    entry = str(row["entry_point"]).replace("()", "")
    name, _, method = entry.partition(".")
    code = f"{row['test']}\n\ncheck({name}().{method})\n"
    prelude = f"{COMMON_IMPORTS}\n{_prelude(row)}"
    return {"type": "asserts", "entry_point": entry, "code": code, "prelude": prelude}


def _is_mbpp(row: Row) -> bool:
    return "test_list" in row


def _mbpp(row: Row) -> dict[str, Any]:
    asserts = [*row["test_list"], *row.get("challenge_test_list", ())]
    if not asserts:
        raise GoldError("test_list is empty, expected asserts; drop the row")
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or ())
    code = "\n".join([setup, *asserts, row.get("test") or ""])
    return {"type": "asserts", "entry_point": _called(asserts, row.get("code")), "code": code}


def _is_plain(row: Row) -> bool:
    return isinstance(_parsed(row.get("tests")), str | list) and bool(row["tests"])


def _plain(row: Row) -> dict[str, Any]:
    tests = _parsed(row["tests"])
    if isinstance(tests, list):
        return _stdio([(_text(case, "input"), _text(case, "output")) for case in tests])
    entry = row.get("entry_point") or _called([tests], row.get("canonical_solution"))
    prelude = _prelude(row) if "\ndef " in f"\n{row.get('prompt', '')}" else ""
    code = _with_call(tests, entry)
    return {"type": "asserts", "entry_point": entry, "code": code, "prelude": prelude}


def _is_code_contests(row: Row) -> bool:
    return {"public_tests", "private_tests"} <= row.keys()


def _code_contests(row: Row) -> dict[str, Any]:
    pairs: list[tuple[str, str]] = []
    for name in ("public_tests", "private_tests", "generated_tests"):
        tests = row.get(name) or {}
        pairs += zip(tests.get("input", ()), tests.get("output", ()), strict=True)
    limit = row.get("time_limit") or {}
    seconds = limit.get("seconds", 0) + limit.get("nanos", 0) / 1e9
    memory = (row.get("memory_limit_bytes") or 0) // 2**20
    return _stdio(pairs) | {"time_limit_s": seconds or None, "memory_limit_mb": memory or None}


def _is_apps(row: Row) -> bool:
    found = _parsed(row.get("input_output"))
    return isinstance(found, Mapping) and {"inputs", "outputs"} <= found.keys()


def _apps(row: Row) -> dict[str, Any]:
    found = _parsed(row["input_output"])
    inputs, outputs = found["inputs"], found["outputs"]
    if len(inputs) != len(outputs):
        raise GoldError(f"{len(inputs)} inputs and {len(outputs)} outputs; drop the row")
    entry = found.get("fn_name")
    if not entry:
        return _stdio([(_joined(i), _joined(o)) for i, o in zip(inputs, outputs, strict=True)])
    cases = [
        {"args": _arguments(given), "expected": _only(expected)}
        for given, expected in zip(inputs, outputs, strict=True)
    ]
    return _function(_method(entry, row), cases)


def _is_livecodebench(row: Row) -> bool:
    return "public_test_cases" in row


def _livecodebench(row: Row) -> dict[str, Any]:
    cases = list(_parsed(row["public_test_cases"]))
    private = _parsed(row.get("private_test_cases") or [])
    if not isinstance(private, list):
        raise GoldError(
            "private_test_cases is packed with pickle, which could run code when read; "
            "decode it once, where that is safe, and store JSON"
        )
    cases += private
    if not cases or cases[0].get("testtype") != "functional":
        return _stdio([(case["input"], case["output"]) for case in cases])
    metadata = _parsed(row.get("metadata") or {})
    functional = [
        {"args": _lines_of_json(case["input"]), "expected": json.loads(case["output"])}
        for case in cases
    ]
    return _function(_method(metadata["func_name"], row), functional)


_LAYOUTS: dict[str, tuple[Callable[[Row], bool], Callable[[Row], dict[str, Any]]]] = {
    "gold": (_is_gold, _gold),
    "humaneval": (_is_humaneval, _humaneval),
    "leetcode": (_is_leetcode, _leetcode),
    "mbpp": (_is_mbpp, _mbpp),
    "code_contests": (_is_code_contests, _code_contests),
    "apps": (_is_apps, _apps),
    "livecodebench": (_is_livecodebench, _livecodebench),
    "plain": (_is_plain, _plain),
}


def _stdio(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    cases = [{"stdin": given, "stdout": expected} for given, expected in pairs]
    return {"type": "stdio", "cases": cases}


def _function(entry: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "function",
        "entry_point": entry,
        "cases": cases,
        "prelude": COMMON_IMPORTS,
    }


def _parsed(value: Any) -> Any:
    """A column that may hold JSON as text."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def _prelude(row: Row) -> str:
    """The prompt where it is code: imports and helpers that its solution may use."""
    prompt = row.get("prompt") or ""
    with contextlib.suppress(SyntaxError, ValueError):
        ast.parse(prompt)
        return prompt
    return ""


def _with_call(code: str, entry: str) -> str:
    """Test code that also calls the ``check`` it defines, unless it does so itself."""
    tree = _tree(code)
    defines = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    if not defines or "check" in {name for node in tree.body for name in _calls(node)}:
        return code
    return f"{code}\n\ncheck({entry})\n"


def _calls(node: ast.stmt) -> list[str]:
    """Names of the functions that a top-level expression calls."""
    if not isinstance(node, ast.Expr):
        return []
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    return [call.func.id for call in calls if isinstance(call.func, ast.Name)]


def _called(asserts: Sequence[str], code: str | None) -> str:
    """The function that the asserts are about: one they call and the reference defines."""
    called = [
        node.func.id
        for node in ast.walk(_tree("\n".join(asserts)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    defined: list[str] = []
    if code:
        with contextlib.suppress(SyntaxError):
            body = ast.parse(code).body
            defined = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    known = [name for name in called if not hasattr(builtins, name)]
    chosen = [name for name in called if name in defined] or known
    return chosen[0] if chosen else ""


def _tree(code: str) -> ast.Module:
    try:
        return ast.parse(code)
    except SyntaxError as error:
        raise GoldError(f"tests are no Python: {error}: {code[:80]!r}") from None


def _method(name: str, row: Row) -> str:
    """``Solution.name`` where the starter code has it as a method."""
    starter = str(row.get("starter_code") or "")
    return f"Solution.{name}" if "class Solution" in starter else name


def _text(case: Any, key: str) -> str:
    if not isinstance(case, Mapping) or not isinstance(case.get(key), str):
        raise GoldError(f"test is {repr(case)[:80]}, expected texts input and output")
    return case[key]


def _joined(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _arguments(given: Any) -> list[Any]:
    return _lines_of_json(given) if isinstance(given, str) else list(given)


def _lines_of_json(text: str) -> list[Any]:
    try:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise GoldError(
            f"input is {text[:80]!r}, expected one JSON value a line: {error}"
        ) from None


def _only(expected: Any) -> Any:
    """APPS wraps a single result in a list of one; PRIME writes it as JSON text."""
    expected = _parsed(expected)
    return expected[0] if isinstance(expected, list) and len(expected) == 1 else expected
