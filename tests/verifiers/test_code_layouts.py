import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from llmalign.verifiers import GoldError, Verdict, sandbox
from llmalign.verifiers.code import check_gold, judge
from llmalign.verifiers.code_layouts import COMMON_IMPORTS, find_layout, gold_from_row

PROMPT = "from typing import List\n\ndef first(xs: List[int]) -> int:\n    '''The first.'''\n"
CHECK = "def check(candidate):\n    assert candidate([4, 5]) == 4\n"
ROWS: dict[str, dict[str, Any]] = {
    "gold": {
        "tests": {"type": "asserts", "entry_point": "first", "code": "assert first([4]) == 4"}
    },
    "humaneval": {"prompt": PROMPT, "entry_point": "first", "test": CHECK},
    "leetcode": {
        "prompt": "from typing import *\nclass Node: pass\n",
        "entry_point": "Solution().first",
        "test": CHECK,
    },
    "mbpp": {
        "text": "The first.",
        "code": "def first(xs):\n    return xs[0]",
        "test_setup_code": "data = [4, 5]",
        "test_list": ["assert first(data) == 4", "assert first([[1]])[0] == 1"],
        "challenge_test_list": [],
    },
    "plain": {"prompt": "The first.", "entry_point": "first", "tests": "assert first([4]) == 4"},
    "code_contests": {
        "public_tests": {"input": ["4 5\n"], "output": ["4\n"]},
        "private_tests": {"input": ["7\n"], "output": ["7\n"]},
        "generated_tests": {"input": [], "output": []},
        "time_limit": {"seconds": 2, "nanos": 500_000_000},
        "memory_limit_bytes": 256 * 2**20,
    },
    "apps": {"input_output": json.dumps({"inputs": ["4 5\n"], "outputs": ["4\n"]})},
    "livecodebench": {
        "public_test_cases": json.dumps([{"input": "4 5", "output": "4", "testtype": "stdin"}]),
        "private_test_cases": json.dumps([{"input": "7", "output": "7", "testtype": "stdin"}]),
        "metadata": "{}",
    },
}
FUNCTION = "def first(xs):\n    return xs[0]"
RIGHT = {
    "leetcode": "class Solution:\n    def first(self, xs: List[int]):\n        return xs[0]",
    "code_contests": "print(input().split()[0])",
    "apps": "print(input().split()[0])",
    "livecodebench": "print(input().split()[0])",
}


def strict() -> bool:
    with contextlib.suppress(sandbox.SandboxError):
        return sandbox.probe().level == "strict"
    return False


needs_strict = pytest.mark.skipif(not strict(), reason="this machine forbids the strict level")


@pytest.mark.parametrize("layout", ROWS)
def test_a_row_is_known_by_its_columns_and_gives_a_usable_gold(layout: str) -> None:
    assert find_layout(ROWS[layout]) == layout
    gold = gold_from_row(ROWS[layout])
    check_gold(gold)
    assert gold_from_row(ROWS[layout], layout) == gold


@needs_strict
@pytest.mark.parametrize("layout", ROWS)
def test_a_right_program_passes_and_a_wrong_one_does_not(layout: str) -> None:
    gold = gold_from_row(ROWS[layout])
    right = RIGHT.get(layout, FUNCTION)
    assert judge(right, gold, form="program").verdict is Verdict.RIGHT
    wrong = right.replace("[0]", "[-1]").replace("4", "5")
    if layout in ("gold", "plain"):
        wrong = "def first(xs): return None"
    assert judge(wrong, gold, form="program").verdict is Verdict.WRONG


def test_limits_of_a_contest_are_kept() -> None:
    gold = gold_from_row(ROWS["code_contests"])
    assert (gold["time_limit_s"], gold["memory_limit_mb"]) == (2.5, 256)
    assert len(gold["cases"]) == 2


def test_calls_of_a_check_are_added_once() -> None:
    assert gold_from_row(ROWS["humaneval"])["code"].count("check(first)") == 1
    called = {**ROWS["humaneval"], "test": CHECK + "\ncheck(first)\n"}
    assert gold_from_row(called)["code"].count("check(first)") == 1


def test_the_tested_function_is_found_in_the_reference() -> None:
    assert gold_from_row(ROWS["mbpp"])["entry_point"] == "first"
    row = {"tests": "assert set(sum([1], 2)) == {1}", "canonical_solution": "def sum(a, b): pass"}
    assert gold_from_row(row)["entry_point"] == "sum"
    assert "entry_point" not in gold_from_row({"tests": "assert len([1]) == 1"})


@pytest.mark.parametrize(
    ("given", "entry", "cases"),
    [
        ({"inputs": [[[4, 5], 0]], "outputs": [[4]], "fn_name": "f"}, "f", [[[4, 5], 0], 4]),
        ({"inputs": ["[4, 5]\n0"], "outputs": ["4"], "fn_name": "f"}, "f", [[[4, 5], 0], 4]),
    ],
    ids=["values", "texts"],
)
def test_calls_of_apps_rows(given: dict[str, Any], entry: str, cases: list[Any]) -> None:
    gold = gold_from_row({"input_output": json.dumps(given)})
    assert (gold["type"], gold["entry_point"]) == ("function", entry)
    assert gold["cases"] == [{"args": cases[0], "expected": cases[1]}]
    starter = {"starter_code": "class Solution:\n    def f(self, xs, i):"}
    assert (
        gold_from_row({"input_output": json.dumps(given)} | starter)["entry_point"] == "Solution.f"
    )


def test_calls_of_livecodebench_rows() -> None:
    case = {"input": "[4, 5]\n1", "output": "5", "testtype": "functional"}
    row = {
        "public_test_cases": json.dumps([case]),
        "metadata": json.dumps({"func_name": "pick"}),
        "starter_code": "class Solution:",
    }
    gold = gold_from_row(row)
    assert gold["entry_point"] == "Solution.pick"
    assert gold["cases"] == [{"args": [[4, 5], 1], "expected": 5}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "no layout is known for a row with columns none"),
        ({"prompt": "x"}, "no layout is known for a row with columns prompt"),
        ({"test_list": []}, "test_list is empty"),
        ({"tests": [{"input": 1}]}, "expected texts input and output"),
        ({"tests": "def check(c:\n", "entry_point": "f"}, "tests are no Python"),
        ({"input_output": '{"inputs": [1], "outputs": []}'}, "1 inputs and 0 outputs"),
        ({"public_test_cases": "[]", "private_test_cases": "eJxr"}, "packed with pickle"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(GoldError) as raised:
        gold_from_row(row)
    assert message in str(raised.value)


def test_a_layout_that_does_not_fit_or_exist_is_refused() -> None:
    with pytest.raises(GoldError, match="layout 'mbpp' does not fit a row with columns"):
        gold_from_row(ROWS["apps"], "mbpp")
    with pytest.raises(GoldError, match="layout is 'magic', expected one of gold, humaneval"):
        gold_from_row(ROWS["apps"], "magic")


def test_the_names_lent_to_programs_exist() -> None:
    space: dict[str, Any] = {}
    exec(compile(COMMON_IMPORTS, "imports", "exec"), space)
    assert {"List", "inf", "heappush", "Counter", "bisect"} <= space.keys()


# Published data sets beside the repository: (references that must pass, all of them, known slow).
DATA = Path(__file__).parents[2].parent / "shared" / "data"
REFERENCES = [
    "humaneval/test", "humaneval_plus/test", "mbpp/prompt", "mbpp/train", "mbpp/validation",
    "mbpp/test", "mbpp_sanitized/all", "mbpp_plus/test",
]  # fmt: skip
# Their reference returns a list or tuple in the order of a set of strings, which differs from
# one interpreter to another.
BY_CHANCE = {("mbpp_plus/test", f"mbpp/{number}") for number in (2, 249, 579, 769)}


def rows_of(name: str) -> list[dict[str, Any]]:
    path = DATA / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"data set {name} is not here; it lies beside the repository")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@needs_strict
@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_references_of_published_sets_pass_and_empty_programs_do_not(name: str) -> None:
    failures = []
    for row in rows_of(name):
        gold = gold_from_row(row) | {"time_limit_s": 20.0}
        prompt = row["prompt"] if name.startswith("humaneval") else ""
        found = judge(prompt + row["canonical_solution"], gold, form="program")
        if found.verdict is not Verdict.RIGHT and (name, row["id"]) not in BY_CHANCE:
            failures.append((row["id"], found.why))
        empty = f"def {gold['entry_point']}(*a, **k): return None"
        if judge(empty, gold, form="program").verdict is not Verdict.WRONG:
            failures.append((row["id"], "an empty program passes"))
    assert failures == []


@needs_strict
@pytest.mark.slow
def test_contest_rows_accept_a_program_that_prints_the_answers_and_no_prefix_of_it() -> None:
    for row in rows_of("code_contests/test")[:40]:
        gold = gold_from_row(row) | {"time_limit_s": 20.0}
        answers = {case["stdin"]: case["stdout"] for case in gold["cases"]}
        program = f"import sys\nprint({answers!r}[sys.stdin.read()])"
        assert judge(program, gold, form="program").verdict is Verdict.RIGHT, row["id"]
        cut = f"import sys\nprint({answers!r}[sys.stdin.read()].strip()[:-1])"
        assert judge(cut, gold, form="program").verdict is Verdict.WRONG, row["id"]
