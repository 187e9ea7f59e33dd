# ruff: noqa: E501  (a table reads best with one case a line)
import json
import socket
import time
from typing import Any

import pytest

from llmalign.verifiers import GoldError, Verdict
from llmalign.verifiers.json_schema import check_gold, find_json, judge

pytest.importorskip("jsonschema")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "uniqueItems": True},
        "parent": {"$ref": "#"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
    "$defs": {"tag": {"enum": ["a", "b"]}},
}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"name": "Ann", "age": 5}', Verdict.RIGHT),
        ('{"name": "Ann", "age": 5.0}', Verdict.RIGHT),  # 5.0 is an integer since draft 6
        ('```json\n{"name": "Ann", "age": 5}\n```', Verdict.RIGHT),
        ('Here it is: {"name": "Ann", "age": 5}. Bye.', Verdict.RIGHT),
        ('{"name": "Bob"} no: {"name": "Ann", "age": 5, "tags": ["a", "b"]}', Verdict.RIGHT),
        ('<think>{"name": 1}</think><answer>{"name": "Ann", "age": 5}</answer>', Verdict.RIGHT),
        ('{"name": "Ann", "age": 5, "parent": {"name": "Eve", "age": 30}}', Verdict.RIGHT),
        (r'Use $\frac{1}{2}$ and {"name": "Ann", "age": 5}', Verdict.RIGHT),
        ('{"name": "Ann", "age": 5, "parent": {"name": "Eve"}}', Verdict.WRONG),
        ('{"name": "Ann", "age": 5.5}', Verdict.WRONG),
        ('{"name": "Ann", "age": true}', Verdict.WRONG),
        ('{"name": "Ann", "age": -1}', Verdict.WRONG),
        ('{"name": "Ann", "age": "5"}', Verdict.WRONG),
        ('{"name": "", "age": 5}', Verdict.WRONG),
        ('{"name": "Ann"}', Verdict.WRONG),
        ('{"name": "Ann", "age": 5, "x": 1}', Verdict.WRONG),
        ('{"name": "Ann", "age": 5, "tags": ["a", "c"]}', Verdict.WRONG),
        ('{"name": "Ann", "age": 5, "tags": ["a", "a"]}', Verdict.WRONG),
        ('[{"name": "Ann", "age": 5}]', Verdict.WRONG),
        ('{"name": "Ann", "age": 4, "age": 5}', Verdict.WRONG),
        ('{"name": "Ann", "age": NaN}', Verdict.WRONG),
        ('{"name": "Ann", "age": Infinity}', Verdict.WRONG),
        ('{"name": "Ann", "age": 1e999}', Verdict.WRONG),
        ("{'name': 'Ann', 'age': 5}", Verdict.WRONG),
        ('{"name": "Ann", "age": 5,}', Verdict.WRONG),
        ('{"name": "Ann", /* x */ "age": 5}', Verdict.WRONG),
        ('```json\n{"name": "Ann"\n```', Verdict.WRONG),
        ("null", Verdict.WRONG),
        ('{"parent": ' * 70 + "1" + "}" * 70, Verdict.WRONG),
        ('{"name": "' + "x" * 100_000 + '", "age": 5}', Verdict.UNDECIDED),
        ("No JSON here.", Verdict.NO_ANSWER),
        ("", Verdict.NO_ANSWER),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_judge(text: str, verdict: Verdict) -> None:
    found = judge(text, PERSON)
    assert found.verdict is verdict, found


def test_the_reason_names_the_place() -> None:
    found = judge('{"name": "Ann", "age": 5, "parent": {"name": "Eve", "age": "x"}}', PERSON)
    assert found.why.startswith("parent/age: 'x' is not of type 'integer'")


def test_equal_json_has_equal_answers() -> None:
    texts = ['{"name": "Ann", "age": 5}', '```json\n{"age":5.0,\n"name":"\\u0041nn"}\n```']
    assert {judge(text, PERSON).answer for text in texts} == {'{"age": 5, "name": "Ann"}'}


def test_scalars_are_json_too() -> None:
    assert judge("5", {"type": "integer"}).verdict is Verdict.RIGHT
    assert judge('"five"', {"type": "integer"}).verdict is Verdict.WRONG
    assert judge("five", {"type": "integer"}, form="json").verdict is Verdict.WRONG
    assert judge("true", True, form="json").verdict is Verdict.RIGHT


def test_the_draft_is_that_of_the_schema() -> None:
    # Before draft 2020-12 a list under "items" meant one schema for each place.
    items = {"items": [{"type": "string"}]}
    old = {"$schema": "http://json-schema.org/draft-07/schema#", **items}
    assert judge("[1]", old).verdict is Verdict.WRONG
    assert judge('["a"]', old).verdict is Verdict.RIGHT
    with pytest.raises(GoldError, match="invalid at items"):
        check_gold(items)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "{}",
        [],
        {"type": "text"},
        {"minimum": "1"},
        {"pattern": "("},
        {"patternProperties": {"[": {}}},
        {"$ref": "https://example.org/schema.json"},
        {"properties": {"a": {"$ref": "other.json#/x"}}},
        {"$ref": "file:///etc/passwd"},
        {"const": float("nan")},
        {"const": {1, 2}},
    ],
    ids=repr,
)
def test_an_unusable_gold_is_refused(bad: Any) -> None:
    with pytest.raises(GoldError):
        check_gold(bad)
    with pytest.raises(GoldError):
        judge("{}", bad)


@pytest.mark.parametrize("bad", [{"$ref": "#/$defs/none"}, {"$ref": "#"}, {"$ref": "#anchor"},
                                 {"properties": {"a": {"$ref": "#/$defs/none"}}}], ids=repr)  # fmt: skip
def test_a_reference_into_nothing_is_a_fault_of_the_gold(bad: Any) -> None:
    with pytest.raises(GoldError):
        check_gold(bad)
    with pytest.raises(GoldError):
        judge("{}", bad)


def test_references_inside_the_schema_and_to_metaschemas_are_followed_without_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    nested = {"$id": "https://example.org/root", "$ref": "inner",
              "$defs": {"i": {"$id": "https://example.org/inner", "type": "integer"}}}  # fmt: skip
    assert judge("5", nested).verdict is Verdict.RIGHT
    assert judge('"5"', nested).verdict is Verdict.WRONG
    meta = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert judge('{"type": "integer"}', meta).verdict is Verdict.RIGHT
    assert judge('{"type": 5}', meta).verdict is Verdict.WRONG


def test_words_of_data_are_no_keywords() -> None:
    schema = {"enum": [{"$ref": "https://example.org/x", "pattern": "("}]}
    assert judge(json.dumps(schema["enum"][0]), schema).verdict is Verdict.RIGHT


@pytest.mark.parametrize(
    "text",
    ["{" * 90_000, "[" * 90_000, '{"a":' * 20_000, '{"' * 50_000, "[1," * 30_000, "```json" * 9_000,
     "[" * 60 + "]" * 60, "1" * 5_000, "[" + "1" * 5_000 + "]", '"\ud800"', "{}" * 40_000,
     '{"a": "' + "\\" * 9_000, "-" * 9_000, "\0"],
    ids=lambda text: repr(text[:10]),
)  # fmt: skip
def test_no_text_raises_or_takes_long(text: str) -> None:
    began = time.perf_counter()
    judge(text, PERSON)
    judge(text, PERSON, form="json")
    assert time.perf_counter() - began < 2


def test_the_last_json_of_a_response_is_found() -> None:
    assert find_json('{"a": {"b": [1]}} and [2, 3] {x}') == "[2, 3]"
    assert find_json('Here: {"a": 1, "b": [2],}') == 'Here: {"a": 1, "b": [2],}'
    assert find_json('```json\n{"a": 1}\n``` then {"b": 2}') == '{"a": 1}'
