import json
import time
from typing import Any

import pytest

from llmalign.verifiers import Verdict
from llmalign.verifiers.format import (
    MAX_JSON,
    NotJson,
    Shape,
    fenced,
    json_parts,
    judge,
    marked_answer,
    prepare,
    read_json,
    shortened,
    tagged,
)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("<think>a\nb</think><answer>c</answer>", True),
        (" <think>a</think>\n\n<answer></answer>\n", True),
        ("<think>a</think>so<answer>b</answer>", False),
        ("Hi <think>a</think><answer>b</answer>", False),
        ("<think>a</think><answer>b</answer>.", False),
        ("<answer>b</answer><think>a</think>", False),
        ("<think>a<answer>b</answer></think>", False),
        ("<think>a</think><answer>b</answer><answer>c</answer>", False),
        ("<think>a<think>b</think><answer>c</answer>", False),
        ("<think>a</think><answer>b", False),
        ("</think>a<think><answer>b</answer>", False),
        ("<answer>b</answer>", False),
        ("", False),
    ],
)
def test_think_answer(text: str, right: bool) -> None:
    expected = Verdict.RIGHT if right else Verdict.WRONG
    assert judge(text, shapes=("think_answer",)).verdict is expected
    assert judge(text, shapes=("tags",), tags=("think", "answer")).verdict is expected


@pytest.mark.parametrize(
    ("shape", "text", "right"),
    [
        ("boxed_once", r"So \boxed{5}.", True),
        ("boxed_once", r"<think>\boxed{4}</think>So \boxed{\frac{1}{2}}.", True),
        ("boxed_once", r"\boxed{5} or \boxed{6}", False),
        ("boxed_once", r"\boxed{}", False),
        ("boxed_once", r"\boxed{5", False),
        ("boxed_once", "5", False),
        ("fenced", "Look:\n```python\n1\n```\nDone", True),
        ("fenced", "```\n1", False),
        ("fenced", "none", False),
        ("json", '{"a": [1, null]}', True),
        ("json", '```json\n{"a": 1}\n```', True),
        ("json", 'Here: {"a": 1}', False),
        ("json", '{"a": 1, "a": 2}', False),
        ("json", "NaN", False),
        ("json", "", False),
    ],
)
def test_shapes(shape: Shape, text: str, right: bool) -> None:
    found = judge(text, shapes=(shape,))
    assert found.verdict is (Verdict.RIGHT if right else Verdict.WRONG), found


def test_lengths_are_bounds_that_count() -> None:
    text = "  one two  three "  # 14 characters, 3 words
    for options in ({"min_chars": 14}, {"max_chars": 14}, {"min_words": 3}, {"max_words": 3}):
        assert judge(text, **options).verdict is Verdict.RIGHT  # type: ignore[arg-type]
    for options in ({"min_chars": 15}, {"max_chars": 13}, {"min_words": 4}, {"max_words": 2}):
        assert judge(text, **options).verdict is Verdict.WRONG  # type: ignore[arg-type]


def test_all_conditions_must_hold_and_all_faults_are_named() -> None:
    found = judge("x", shapes=("boxed_once", "fenced"), min_words=2)
    assert found.why == "0 boxes, not one; no code block, or one without end; 1 words, fewer than 2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no condition"),
        ({"shapes": ("tags",)}, "tags go with shape"),
        ({"tags": ("a",), "max_words": 3}, "tags go with shape"),
        ({"shapes": ("tags",), "tags": ("<a>",)}, "a name such as"),
        ({"min_words": 5, "max_words": 3}, "max_words is 3, expected >= min_words = 5"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_text(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(**options)
    with pytest.raises(ValueError, match=message):
        judge("x", **options)


def test_what_stands_in_tags_and_fences() -> None:
    assert tagged("<a>1</a> <a>2<a>3</a> </a> <b>4</b> <a>5", "a") == ["1", "3"]
    assert fenced("x ```Python\n1\n``` y ```2``` ```\n3") == [
        ("python", "1\n"),
        ("", "2"),
        ("", "3"),
    ]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>1</answer> the answer is 2", "1"),
        ("<answer>1</answer><answer>\n</answer>", "1"),
        (r"<answer>It is \boxed{3}.</answer>", "3"),
        ("<think><answer>1</answer></think>#### 4", "4"),
        ("no", None),
    ],
)
def test_a_marked_answer(text: str, answer: str | None) -> None:
    assert marked_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 1}', "[NaN]", "[-Infinity]", "1e999", "", "{", "[1,]", "'a'",
     "[" * 65 + "]" * 65, "1" * 5_000, '"' + "x" * MAX_JSON + '"',
     '{"a": {"b": 1, "b": 2}}', "\ufeff1"],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_json_without_a_single_meaning_is_refused(text: str) -> None:
    with pytest.raises(NotJson):
        read_json(text)


def test_strict_json_reads_what_json_reads() -> None:
    deep = "[" * 64 + "]" * 64
    for text in ('{"a": [1, -2.5e3, "]{", null, true, "\\u00e9"]}', " 5 ", '"{[["', deep):
        assert read_json(text) == json.loads(text)


def test_json_is_found_among_prose() -> None:
    text = 'It\'s {not} [this] but {"a": "}"} and [1, {"b": 2}] \\frac{1}{2}.'
    assert json_parts(text) == ['{"a": "}"}', '[1, {"b": 2}]']


def test_a_shortened_form_stays_unique() -> None:
    assert shortened("x" * 2_000) == "x" * 2_000
    long = {shortened("x" * n) for n in range(2_001, 2_011)}
    assert len(long) == 10 and max(map(len, long)) < 300


@pytest.mark.parametrize(
    "text",
    ["<think>" * 20_000, "</answer>" * 20_000, "<answer></answer>" * 9_000, "```" * 40_000,
     "[" * 300_000, '{"' * 150_000, r"\boxed{" * 20_000, "[1," * 100_000, '{"a":' * 60_000,
     "{ " * 150_000, "\ud800"],
    ids=lambda text: repr(text[:10]),
)  # fmt: skip
def test_no_text_raises_or_takes_long(text: str) -> None:
    began = time.perf_counter()
    judge(text, shapes=("think_answer", "boxed_once", "fenced", "json"), max_words=5)
    json_parts(text)
    marked_answer(text)
    fenced(text)
    assert time.perf_counter() - began < 3
