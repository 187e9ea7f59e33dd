from pathlib import Path
from typing import Any

import pytest

from llmalign.verifiers.audit_rows import LabelledCase, read_cases

GOOD = '{"gold": "1", "prediction": "2", "label": false}'


def read(source: Any, kind: str = "math", **options: Any) -> list[LabelledCase]:
    return read_cases(source, kind, options, has_form=True)


def test_a_file_gives_its_rows_and_blank_lines_are_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{GOOD}\n\n{{"gold": 1, "prediction": "1", "label": true, "id": 7}}\n')
    first, second = read(path)
    assert (first.id, first.label, first.category) == ("1", False, "uncategorised")
    assert (second.id, second.label, second.gold) == ("7", True, 1)
    assert read(str(path)) == [first, second]


@pytest.mark.parametrize(
    ("written", "label"),
    [("true", True), ("false", False), ('"true"', True), ("0", False), ("1", True),
     ('"right"', True), ('"Wrong"', False), ('"0"', False)],
)  # fmt: skip
def test_truth_may_be_written_in_several_ways(tmp_path: Path, written: str, label: bool) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"gold": "1", "prediction": "2", "label": {written}}}')
    assert read(path)[0].label is label


def test_without_a_label_should_pass_is_the_truth() -> None:
    assert read([{"gold": "1", "prediction": "2", "should_pass": True}])[0].label


def test_a_row_brings_its_form_and_options_go_before_it() -> None:
    row = {"gold": "1", "prediction": "2", "label": 1, "form": "answer"}
    assert read([row])[0].options == {"form": "answer"}
    assert read([row], form="response")[0].options == {"form": "response"}
    assert read_cases([row], "math", {}, has_form=False)[0].options == {}


def test_a_verifier_that_needs_no_gold_is_audited_without() -> None:
    row = {"prediction": "abc", "label": True}
    assert read_cases([row], "regex", {"pattern": "a.*"}, has_form=False)[0].gold is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rows.jsonl: no rows, expected at least one with gold, prediction and label"),
        (f"{GOOD}\nnot json\n", "rows.jsonl line 2 is 'not json', expected a JSON object: "),
        ("[1]", "line 1 is [1], expected an object"),
        ('{"gold": 1, "prediction": "x"}', "line 1 has no field 'label', it has gold, prediction"),
        ('{"prediction": "x", "label": 1}', "line 1 has no field 'gold', it has label, prediction"),
        ('{"gold": 1, "prediction": 3, "label": 1}', "prediction is 3, expected a string"),
        ('{"gold": 1, "prediction": "x", "label": "maybe"}', "label is 'maybe', expected true or"),
        ('{"gold": 1, "prediction": "x", "label": null}', "label is None, expected true or false"),
        (
            '{"gold": 1, "prediction": "x", "label": 1, "form": "poem"}',
            "line 1: math.form is 'poem', expected one of 'response', 'answer'",
        ),
    ],
    ids=["empty", "not JSON", "no object", "no label", "no gold", "number", "maybe", "null",
         "form"],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError) as raised:
        read(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD.encode() + b"\n\xff\xfe{}\n")
    with pytest.raises(ValueError, match="line 2 is"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a JSONL file that exists"):
        read(tmp_path / "none.jsonl")
