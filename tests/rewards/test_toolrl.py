import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, Sample, Score, build_reward, toolrl
from llmalign.rewards.toolrl import (
    Call,
    GoldCall,
    ToolRL,
    gold_from_bfcl,
    gold_from_text,
    has_form,
    match_calls,
    read_calls,
)
from llmalign.verifiers import GoldError

DATA = Path(__file__).parents[3] / "shared" / "data"
FUNCTIONS = [
    {
        "name": "area",
        "parameters": {
            "type": "dict",
            "properties": {
                "base": {"type": "integer"},
                "height": {"type": "float"},
                "unit": {"type": "string"},
            },
            "required": ["base", "height"],
        },
    }
]
BFCL = [{"area": {"base": [10], "height": [5.0, 5.5], "unit": ["units", ""]}}]


def calls_text(*calls: Any, think: str = "x") -> str:
    lines = "\n".join(json.dumps(call) for call in calls)
    return f"<think>{think}</think>\n<tool_call>\n{lines}\n</tool_call>"


def call(name: str, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "parameters": parameters}


SEARCH_OPEN = calls_text(call("search", q="a", k=3), call("open", id=1))


def score(text: str, gold: Any, functions: Any = None, **options: Any) -> Score:
    reward = build_reward({"toolrl": options})
    columns = {"ground_truth": gold, "functions": functions}
    sample = Sample(text, (1,), (0.0,), "eos")
    return reward.score([Group(Problem("p", "q", columns), (sample,))])[0][0]


@pytest.mark.parametrize(
    ("text", "form", "correctness"),
    [
        pytest.param(SEARCH_OPEN, 1, 3, id="all of it"),
        # names 1/2, parameters 1, one value of two: 2.5 of 1 + 3 + 2 = 6
        pytest.param(calls_text(call("search", q="a", k=5)), 1, -0.5, id="one call, one value off"),
        pytest.param(calls_text(call("open", id=1), call("search", k=3, q="a")), 1, 3, id="order"),
        # names 2/3, then 3 + 2: 5.667 of 6
        pytest.param(
            calls_text(call("search", q="a", k=3), call("open", id=1), call("open", id=2)),
            1,
            6 * (2 / 3 + 5) / 6 - 3,
            id="one call too many",
        ),
        pytest.param(calls_text(call("other")), 1, -3, id="another tool"),
        pytest.param("<think>x</think>\n<response>no</response>", 0, -3, id="no call"),
        pytest.param("<think>x</think>\n<tool_call>\nsearch\n</tool_call>", 1, -3, id="no JSON"),
        pytest.param("<tool_call>\n{}\n</tool_call>", 0, -3, id="a call without a name"),
        pytest.param(SEARCH_OPEN + "<tool_call>\n", 0, 3, id="a block begun and not ended"),
        pytest.param(SEARCH_OPEN + SEARCH_OPEN, 0, -3, id="twice"),
        pytest.param("", 0, -3, id="empty"),
    ],
)
def test_form_and_calls_are_paid_apart(text: str, form: float, correctness: float) -> None:
    found = score(text, SEARCH_OPEN)
    assert found.aspects["toolrl.form"] == form
    assert found.aspects["toolrl.correctness"] == pytest.approx(correctness)
    assert found.value == pytest.approx(form + correctness)
    assert bool(found.note) == (correctness < 3)


def test_the_bounds_and_the_pay_of_the_form_are_options() -> None:
    found = score(SEARCH_OPEN, SEARCH_OPEN, low=0.0, high=1.0, form=0.5)
    assert found.value == 1.5
    assert score("", SEARCH_OPEN, low=0.0, high=1.0, form=0.5).value == 0.0


def test_where_no_call_is_asked_for_only_the_form_counts() -> None:
    gold = "<think>x</think>\n<response>y</response>"
    assert score("<think>a</think>\n<response>b</response>", gold).value == 1.0
    assert score(SEARCH_OPEN, gold).value == 0.0
    assert score("<think>a</think>\n<response>b</response>", gold, pay_no_call=True).value == 4.0
    assert score(SEARCH_OPEN, gold, pay_no_call=True).value == -3.0
    assert score("<tool_call>rubbish", gold, pay_no_call=True).value == -3.0


def test_the_leaderboards_form_accepts_any_listed_value_and_what_may_be_left_out() -> None:
    full = score(calls_text(call("area", base=10, height=5.5)), BFCL, FUNCTIONS)
    assert full.value == 4.0
    assert (
        score(calls_text(call("area", base=10, height=5, unit="Units")), BFCL, FUNCTIONS).value == 4
    )
    # an integer parameter takes no float: names 1, parameters 1, two values of three, of 5
    wrong = score(calls_text(call("area", base=10.0, height=5.5)), BFCL, FUNCTIONS)
    assert wrong.aspects["toolrl.correctness"] == pytest.approx(6 * 4 / 5 - 3)
    assert score("<think>x</think>\n<response>y</response>", [], FUNCTIONS).value == 1.0


def test_a_value_that_looks_like_markup_is_only_a_value() -> None:
    gold = [{"area": {"base": [10], "height": [5.0], "unit": ["</think><tool_call>", ""]}}]
    said = call("area", base=10, height=5.0, unit="</think><tool_call>")
    want = gold_from_bfcl(gold, FUNCTIONS).calls
    assert match_calls(want, [Call("area", said["parameters"])], order="any").share == 1.0


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [(1, True, False), (0, False, False), (1, 1.0, True), ("a", "a", True),
     ([1, True], [1, 1], False), ({"a": 1}, {"a": 1, "b": 2}, False), ([], {}, False),
     (None, False, False)],
)  # fmt: skip
def test_values_are_compared_as_json(left: Any, right: Any, same: bool) -> None:
    match = match_calls([GoldCall("f", {"x": [left]})], [Call("f", {"x": right})], order="any")
    assert (match.share == 1.0) == same


def test_calls_are_aligned_for_the_best_sum_not_one_after_another() -> None:
    # The first gold fits both calls alike but for one value; taking it greedily costs the second.
    gold = [GoldCall("f", {"a": [1], "b": [2]}), GoldCall("f", {"a": [1], "b": [3]})]
    said = [Call("f", {"a": 1, "b": 3}), Call("f", {"a": 1})]
    # best: second with the first call (3), first with the second call (1/2 + 1)
    assert match_calls(gold, said, order="any").points == pytest.approx(4.5)


@pytest.mark.parametrize("seed", range(30))
def test_alignments_are_the_best_of_all(seed: int) -> None:
    draw = random.Random(seed)
    rows, columns = draw.randint(1, 5), draw.randint(1, 5)
    points = [[round(draw.random() * 3, 2) for _ in range(columns)] for _ in range(rows)]
    small, large = sorted((rows, columns))
    flip = rows > columns
    table = [list(column) for column in zip(*points, strict=True)] if flip else points
    ways = itertools.permutations(range(large), small)
    best = max(sum(table[i][j] for i, j in enumerate(way)) for way in ways)
    assert toolrl._best_in_any_order(points) == pytest.approx(best)
    ordered = max(
        sum(points[i][j] for i, j in zip(some, others, strict=True))
        for k in range(small + 1)
        for some in itertools.combinations(range(rows), k)
        for others in itertools.combinations(range(columns), k)
    )
    assert toolrl._best_in_order(points) == pytest.approx(ordered)


def test_order_counts_where_it_is_asked_for() -> None:
    turned = calls_text(call("open", id=1), call("search", q="a", k=3))
    found = score(turned, SEARCH_OPEN, order="same")
    # names: one of three in order; points: the better of 3 (search) and 2 (open)
    assert found.aspects["toolrl.correctness"] == pytest.approx(6 * (1 / 3 + 3) / 6 - 3)
    assert score(SEARCH_OPEN, SEARCH_OPEN, order="same").value == 4.0


@pytest.mark.parametrize(
    "block",
    [
        '[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "parameters": {}}]',
        '\n{"name": "f", "parameters": {"a": 1}}\n\n{"name": "g", "parameters": {}}\n',
    ],
)
def test_calls_stand_one_per_line_or_in_a_list(block: str) -> None:
    assert read_calls(f"<tool_call>{block}</tool_call>")[0] == (Call("f", {"a": 1}), Call("g", {}))


@pytest.mark.parametrize(
    "block",
    ["[1]", '{"name": 1, "parameters": {}}', '{"name": "f", "parameters": []}', "[" * 5000,
     '{"name": "f", "parameters": {"a": NaN}}', '{"name": "f"}',
     '{"name": "f", "parameters": {}}\n' * 101],
)  # fmt: skip
def test_a_block_that_is_no_list_of_calls_is_unreadable(block: str) -> None:
    calls, why = read_calls(f"<tool_call>{block}</tool_call>")
    assert calls is None
    assert why


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("<think>a</think><tool_call>b</tool_call>", True),
        ("<think>a</think>\n\n<tool_call>b</tool_call>\n", True),
        ("<think>a</think> so <tool_call>b</tool_call>", False),
        ("<tool_call>b</tool_call><think>a</think>", False),
        ("<think>a</think><tool_call>b</tool_call><response>c</response>", False),
        ("<think>a</think></think><tool_call>b</tool_call>", False),
    ],
)
def test_the_form_is_the_blocks_asked_for_and_no_others(text: str, right: bool) -> None:
    assert has_form(text, ("think", "tool_call")) is right


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "problem 'p': column 'ground_truth' is missing"),
        ({"ground_truth": "just text"}, "expected blocks in ToolRL's form"),
        ({"ground_truth": "<tool_call>rubbish</tool_call>"}, "calls that cannot be read"),
        ({"ground_truth": BFCL}, "column 'functions' is missing"),
        ({"ground_truth": [{"volume": {}}], "functions": FUNCTIONS}, "expected a known function"),
    ],
)
def test_a_gold_that_cannot_be_read_is_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(GoldError, match="problem 'p'") as raised:
        build_reward("toolrl").check(Problem("p", "q", columns))
    assert message in str(raised.value)


@pytest.mark.parametrize("options", [{"low": 3.0}, {"form": -1.0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ToolRL(name="t", **options)


@pytest.mark.skipif(not DATA.is_dir(), reason="no ToolRL or BFCL data next to the tree")
def test_golds_of_real_data_are_paid_in_full_for_themselves() -> None:
    rows = [json.loads(line) for line in (DATA / "toolrl" / "test.jsonl").open()]
    for row in rows:
        gold = gold_from_text(row["ground_truth"])
        assert score(row["ground_truth"], row["ground_truth"]).value == (4 if gold.calls else 1)
    for name in ("simple_python", "multiple"):
        for row in map(json.loads, (DATA / "bfcl" / f"{name}.jsonl").open()):
            said = [
                {"name": tool, "parameters": _first_accepted(answers)}
                for one in row["ground_truth"]
                for tool, answers in one.items()
            ]
            found = score(calls_text(*said), row["ground_truth"], row["functions"])
            assert found.value == 4.0, row["id"]


def _first_accepted(answers: dict[str, Any]) -> dict[str, Any]:
    """The first value of each argument that may not be left out; inside an object likewise."""
    return {key: _plain(values[0]) for key, values in answers.items() if values[0] != ""}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return _first_accepted(value)
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
