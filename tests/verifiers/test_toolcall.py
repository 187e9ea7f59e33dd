# ruff: noqa: E501  (a table reads best with one case a line)
import copy
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.toolcall import check_gold, find_calls, judge

BFCL = Path(__file__).parents[3] / "shared" / "data" / "bfcl"
needs_bfcl = pytest.mark.skipif(not BFCL.is_dir(), reason="no BFCL data next to the tree")

FUNCTIONS = [
    {
        "name": "geo.area",
        "parameters": {
            "type": "dict",
            "properties": {
                "base": {"type": "integer"},
                "height": {"type": "float"},
                "unit": {"type": "string"},
                "exact": {"type": "boolean"},
                "sizes": {"type": "array", "items": {"type": "float"}},
                "range": {"type": "dict", "properties": {"min": {"type": "integer"}}},
                "filters": {"type": "array", "items": {"type": "dict"}},
            },
            "required": ["base", "height"],
        },
    },
    {"name": "ping", "parameters": {"type": "dict", "properties": {}, "required": []}},
]
AREA = {
    "geo.area": {
        "base": [10],
        "height": [5, 5.5],
        "unit": ["Square Metres", ""],
        "exact": [True, ""],
        "sizes": [[1.5, 2], ""],
        "range": [{"min": [3], "max": [4, ""]}, ""],
        "filters": [[{"field": ["age"], "op": [">"]}, {"field": ["job"], "op": ["="]}], ""],
    }
}


def gold(*calls: Any) -> dict[str, Any]:
    return {"functions": FUNCTIONS, "ground_truth": list(calls)}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        pytest.param("geo.area(base=10, height=5)", True, id="python"),
        pytest.param("[geo.area(base=10, height=5)]", True, id="python list"),
        pytest.param("geo_area(base=10, height=5)", True, id="dots as underscores"),
        pytest.param("I call:\n```python\ngeo.area(\n  base=10,\n  height=5,\n)\n```\n", True, id="fence"),
        pytest.param("I call:\ngeo.area(base=10, height=5)", True, id="a line"),
        pytest.param("<think>ping()</think>\ngeo.area(base=10, height=5)", True, id="after the thinking"),
        pytest.param('{"name": "geo.area", "arguments": {"base": 10, "height": 5.0}}', True, id="json"),
        pytest.param('Sure! {"name": "geo.area", "parameters": {"base": 10, "height": 5}} Done.', True, id="json in prose"),
        pytest.param('<tool_call>\n{"name": "geo.area", "arguments": {"base": 10, "height": 5}}\n</tool_call>', True, id="hermes"),
        pytest.param('<tool_call>{"name": "geo.area", "arguments": {"base": 10, "height": 5}}', True, id="hermes cut off"),
        pytest.param('{"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "geo.area", "arguments": "{\\"base\\": 10, \\"height\\": 5}"}}]}', True, id="openai"),
        pytest.param("geo.area(base=10, height=5.5)", True, id="other accepted value"),
        pytest.param("geo.area(height=5, base=10, unit='square-metres.', exact=True)", True, id="strings standardised"),
        pytest.param("geo.area(base=10, height=5, sizes=(1.5, 2.0))", True, id="tuple"),
        pytest.param("geo.area(base=10, height=5, range={'min': 3})", True, id="nested object"),
        pytest.param("geo.area(base=10, height=5, filters=[{'field': 'Age', 'op': '>'}, {'field': 'job', 'op': '='}])", True, id="list of objects"),
        pytest.param("geo.area(base=10, height=5, filters=[{'field': 'job', 'op': '='}, {'field': 'age', 'op': '>'}])", False, id="list order"),
        pytest.param("geo.area(base=10, height=5, filters=[{'field': 'age', 'op': '>'}])", False, id="list length"),
        pytest.param("geo.area(base=10, height=5, range={'max': 4})", False, id="nested key missing"),
        pytest.param("geo.area(base=10, height=5, range={'min': 3, 'x': 1})", False, id="nested key unknown"),
        pytest.param("geo.area(base=10, height=5, range={'min': 3.0})", False, id="nested float for an integer"),
        pytest.param("geo.area(base=10.0, height=5)", False, id="float for an integer"),
        pytest.param("geo.area(base='10', height=5)", False, id="string for an integer"),
        pytest.param("geo.area(base=True, height=5)", False, id="boolean for an integer"),
        pytest.param("geo.area(base=10, height=5, exact=1)", False, id="integer for a boolean"),
        pytest.param("geo.area(base=10, height=5, exact='True')", False, id="string for a boolean"),
        pytest.param("geo.area(base=10, height=5, unit=None)", False, id="null for a string"),
        pytest.param("geo.area(base=10, height=6)", False, id="value"),
        pytest.param("geo.area(base=-10, height=5)", False, id="sign"),
        pytest.param("geo.area(base=10)", False, id="required argument missing"),
        pytest.param("geo.area(base=10, height=5, colour='red')", False, id="unknown argument"),
        pytest.param("geo.area(10, 5)", False, id="positional"),
        pytest.param("geo.area(**{'base': 10, 'height': 5})", False, id="spread"),
        pytest.param("geo.area(base=5+5, height=5)", False, id="arithmetic"),
        pytest.param("geo.area(base=int('10'), height=5)", False, id="nested call"),
        pytest.param("ping()", False, id="other function"),
        pytest.param("unknown(base=10, height=5)", False, id="unknown function"),
        pytest.param("geo.area(base=10, height=5)\ngeo.area(base=10, height=5)", False, id="twice"),
        pytest.param("geo.area(base=10, height=5)\nping()", False, id="one more"),
        pytest.param("<tool_call>not json</tool_call>", False, id="hermes without a call"),
        pytest.param('<tool_call>{"name": "geo.area"}</tool_call>', False, id="hermes without arguments"),
        pytest.param('<tool_call>{"name": "geo.area", "arguments": {"base": 10, "height": 5}} oops</tool_call>', False, id="hermes with prose"),
        pytest.param('<tool_call>{"name": "geo.area", "arguments": {"base": 9, "base": 10, "height": 5}}</tool_call>', False, id="key twice"),
        pytest.param("<tool_call>__import__('os').system(command='true')</tool_call>", False, id="injection"),
        pytest.param("geo.area(base=0x" + "f" * 9000 + ", height=5)", False, id="an integer too long to print"),
        pytest.param("geo.area(base=1e999, height=5)", False, id="infinity"),
    ],
)  # fmt: skip
def test_one_call(text: str, right: bool) -> None:
    assert judge(text, gold(AREA)).verdict is (Verdict.RIGHT if right else Verdict.WRONG)


@pytest.mark.parametrize("text", ["", "The area is 25.", "Use geo.area(base=10, height=5) for this.",
                                  '{"name": "Bob", "age": 5}', "f(", "<tool_call></tool_call>"])  # fmt: skip
def test_no_call_is_no_answer_or_what_was_asked_for(text: str) -> None:
    assert judge(text, gold(AREA)).verdict is Verdict.NO_ANSWER
    assert judge(text, gold()).verdict is Verdict.RIGHT


@pytest.mark.parametrize("text", ["ping()", "geo.area(base=x, height=y)", "<tool_call>{}</tool_call>",
                                  '{"name": "f", "arguments": {}}'])  # fmt: skip
def test_any_call_is_wrong_where_none_is_asked_for(text: str) -> None:
    assert judge(text, gold()).verdict is Verdict.WRONG


def test_parallel_calls_come_in_any_order_and_each_counts_once() -> None:
    # The first call fits both golds, the second only one: a greedy match would fail.
    loose = {"geo.area": {"base": [1, 2], "height": [5]}}
    tight = {"geo.area": {"base": [1], "height": [5]}}
    both = "[geo.area(base=1, height=5), geo.area(base=2, height=5)]"
    assert judge(both, gold(loose, tight)).verdict is Verdict.RIGHT
    assert judge(both, gold(tight, loose)).verdict is Verdict.RIGHT
    assert judge(both, gold(tight, tight)).verdict is Verdict.WRONG
    assert judge("[geo.area(base=1, height=5)]", gold(loose, tight)).verdict is Verdict.WRONG


def test_equal_calls_have_equal_answers() -> None:
    texts = [
        "[ping(), geo.area(base=10, height=5.0, unit='Square Metres')]",
        '<tool_call>{"name": "geo_area", "arguments": {"unit": "square_metres", "height": 5, "base": 10}}'
        '\n{"name": "ping", "parameters": {}}</tool_call>',
    ]
    answers = {judge(text, gold(AREA)).answer for text in texts}
    assert answers == {
        '[["geo.area", {"base": 10, "height": 5, "unit": "squaremetres"}], ["ping", {}]]'
    }


@pytest.mark.parametrize(
    "text",
    ["f(" * 50_000, "f(\n" * 30_000, "[" * 90_000, "{" * 90_000, '{"' * 50_000, '{"a":' * 20_000,
     "<tool_call>" * 9_000, "<tool_call>" + "[" * 90_000, "f(a=" + "-" * 9_000 + "1)",
     "f(a=" + "(" * 5_000 + ")" * 5_000 + ")", "f(a='" + "\\" * 9_000, "ping()\n" * 20_000,
     '{"name": "f", "arguments": {}}' * 3_000, "f(a=\0)", "f(a='\ud800')", "f(\n)" * 9_000,
     "f(a=" + "not " * 2_000 + "1)", '{"a": ' + "1" * 9_000 + "}"],
    ids=lambda text: repr(text[:14]),
)  # fmt: skip
def test_no_text_raises_or_takes_long(text: str) -> None:
    began = time.perf_counter()
    assert judge(text, gold(AREA)).verdict in (Verdict.WRONG, Verdict.NO_ANSWER)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    "bad",
    [
        None,
        {"functions": []},
        {"functions": {}, "ground_truth": []},
        {"functions": [{}], "ground_truth": []},
        {"functions": [{"name": "f", "parameters": {"properties": 3}}], "ground_truth": []},
        {"functions": FUNCTIONS, "ground_truth": ["ping()"]},
        {"functions": FUNCTIONS, "ground_truth": [{"pong": {}}]},
        {"functions": FUNCTIONS, "ground_truth": [{"ping": {"x": [1]}}]},
        {"functions": FUNCTIONS, "ground_truth": [{"geo.area": {"base": 10}}]},
        {"functions": FUNCTIONS, "ground_truth": [{"geo.area": {"base": []}}]},
        {"functions": FUNCTIONS, "ground_truth": [{"ping": {}, "geo.area": {}}]},
    ],
    ids=repr,
)
def test_an_unusable_gold_is_refused(bad: Any) -> None:
    with pytest.raises(GoldError):
        check_gold(bad)


def test_calls_are_found_with_their_values() -> None:
    found = find_calls("[f(a=-1.5, b=[True, None], c={'k': 'v'}), g.h.i()]")
    assert found == [("f", {"a": -1.5, "b": [True, None], "c": {"k": "v"}}), ("g.h.i", {})]


def _bfcl(name: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (BFCL / f"{name}.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("functions", "ground_truth")} for row in rows]


def _plain(accepted: Any) -> Any:
    """The first accepted value; nested objects have a list of values for each key."""
    if isinstance(accepted, dict):
        chosen = {key: _first(values) for key, values in accepted.items()}
        return {key: value for key, value in chosen.items() if value != ""}
    return [_plain(value) for value in accepted] if isinstance(accepted, list) else accepted


def _first(values: list[Any]) -> Any:
    return _plain(next((value for value in values if value != ""), ""))


def _calls(row: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    calls = []
    for call in row["ground_truth"]:
        ((name, answers),) = call.items()
        chosen = {argument: _first(values) for argument, values in answers.items()}
        keep = {a: v for a, v in chosen.items() if v != "" or set(answers[a]) != {""}}
        calls.append((name, keep))
    return calls


def _python(calls: list[tuple[str, dict[str, Any]]]) -> str:
    shown = [f"{name}({', '.join(f'{k}={v!r}' for k, v in a.items())})" for name, a in calls]
    return f"[{', '.join(shown)}]"


def _lines(key: str) -> Callable[[list[tuple[str, dict[str, Any]]]], str]:
    return lambda calls: "\n".join(json.dumps({"name": n, key: a}) for n, a in calls)


SYNTAXES: dict[str, Callable[[list[tuple[str, dict[str, Any]]]], str]] = {
    "python": _python,
    "python fence": lambda calls: f"I do this:\n```python\n{_python(calls)}\n```",
    "python lines": lambda calls: "\n".join(_python([call])[1:-1] for call in calls),
    "json list": lambda calls: json.dumps([{"name": n, "arguments": a} for n, a in calls], indent=1),
    "json lines": _lines("arguments"),
    "hermes": lambda calls: "\n".join(f"<tool_call>\n{_lines('arguments')([call])}\n</tool_call>" for call in calls),
    "toolrl": lambda calls: f"<think> x </think>\n<tool_call>\n{_lines('parameters')(calls)}\n</tool_call>",
    "openai": lambda calls: json.dumps({"tool_calls": [{"type": "function", "function": {"name": n, "arguments": json.dumps(a)}} for n, a in calls]}),
}  # fmt: skip


def _mutations(
    row: dict[str, Any],
) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """Calls that differ from the gold in one argument or name."""
    calls = _calls(row)
    name, arguments = calls[0]
    required = next(f for f in row["functions"] if f["name"] == name)["parameters"]["required"]

    def changed(**edits: Any) -> list[tuple[str, dict[str, Any]]]:
        return [(name, {**copy.deepcopy(arguments), **edits}), *calls[1:]]

    others = {int: lambda v: v + 1013, float: lambda v: v + 1013.5, str: lambda v: v + "zq",
              bool: lambda v: not v, list: lambda v: [*v, *v, "zq"], dict: lambda v: {**v, "zq": 1}}  # fmt: skip
    for argument, value in arguments.items():
        wrong = others[type(value)](value)
        if wrong not in row["ground_truth"][0][name][argument]:
            yield "value", changed(**{argument: wrong})
        yield "type", changed(**{argument: [value] if isinstance(value, str) else f"{value}zq"})
        if argument in required:
            kept = {k: v for k, v in arguments.items() if k != argument}
            yield "missing", [(name, kept), *calls[1:]]
    yield "extra", changed(zz_unknown=1)
    yield "function", [(name + "_x", arguments), *calls[1:]]
    yield "twice", [*calls, calls[0]]


@needs_bfcl
@pytest.mark.parametrize(("name", "count"), [("simple_python", 400), ("multiple", 200)])
def test_golds_of_bfcl_accept_themselves_in_each_syntax_and_no_mutation(
    name: str, count: int
) -> None:
    rows = _bfcl(name)
    assert len(rows) == count
    mutated: Counter[str] = Counter()
    for row in rows:
        check_gold(row)
        for syntax, write in SYNTAXES.items():
            found = judge(write(_calls(row)), row)
            assert found.verdict is Verdict.RIGHT, (syntax, write(_calls(row)), row, found)
        for at, (kind, calls) in enumerate(_mutations(row)):
            text = list(SYNTAXES.values())[at % len(SYNTAXES)](calls)
            assert judge(text, row).verdict is Verdict.WRONG, (kind, text, row)
            mutated[kind] += 1
    assert set(mutated) == {"value", "type", "missing", "extra", "function", "twice"}
    assert min(mutated.values()) >= count / 2


@needs_bfcl
def test_irrelevance_of_bfcl_asks_for_no_call() -> None:
    rows = _bfcl("irrelevance")
    assert len(rows) == 240
    for row in rows:
        check_gold(row)
        assert judge("None of the functions can do this.", row).verdict is Verdict.RIGHT
        for function in row["functions"]:
            for write in SYNTAXES.values():
                assert judge(write([(function["name"], {})]), row).verdict is Verdict.WRONG
