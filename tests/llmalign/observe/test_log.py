import json
from enum import Enum

import numpy as np
import pytest
import torch

from llmalign.observe.log import RunLog, read_metrics, write_json, write_samples


def steps(path):
    return [row["step"] for row in read_metrics(path)]


def fill(folder, numbers):
    with RunLog(folder, resume_step=None) as log:
        for number in numbers:
            log.log({"step": number, "loss": number / 3})
        return log.path


def test_a_line_can_be_read_as_soon_as_it_is_logged(tmp_path):
    with RunLog(tmp_path, resume_step=None) as log:
        log.log({"step": 1, "reward": 0.5, "accuracy": None})
        assert read_metrics(log.path) == [{"step": 1, "reward": 0.5, "accuracy": None}]


def test_keys_keep_the_order_in_which_they_were_given(tmp_path):
    with RunLog(tmp_path, resume_step=None) as log:
        log.log({"step": 1, "loss": 2.0, "a": 3})
    assert log.path.read_text() == '{"step": 1, "loss": 2.0, "a": 3}\n'


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -np.inf, np.float32("nan"), torch.tensor(float("inf"))],
    ids=["nan", "inf", "minus inf", "numpy", "torch"],
)
def test_what_is_not_finite_becomes_null(tmp_path, value):
    with RunLog(tmp_path, resume_step=None) as log:
        log.log({"step": 1, "loss": value})
    assert read_metrics(log.path) == [{"step": 1, "loss": None}]


def test_numbers_of_numpy_and_torch_are_written_as_numbers(tmp_path):
    with RunLog(tmp_path, resume_step=None) as log:
        log.log({"step": np.int64(3), "loss": torch.tensor(0.25), "lr": np.float64(1e-6)})
    assert read_metrics(log.path) == [{"step": 3, "loss": 0.25, "lr": 1e-6}]


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with RunLog(tmp_path, resume_step=None) as log:
        with pytest.raises(TypeError, match="expected a number, a string, a list or a mapping"):
            log.log({"step": 1, "loss": object()})
    assert read_metrics(log.path) == []


def test_resuming_cuts_later_steps_and_a_torn_line_and_goes_on(tmp_path):
    path = fill(tmp_path, [1, 2, 3, 4])
    before = path.read_text().splitlines()
    with path.open("a") as file:
        file.write('{"step": 5, "lo')
    with RunLog(tmp_path, resume_step=2) as log:
        log.log({"step": 3, "loss": 9.0})
    assert steps(path) == [1, 2, 3]
    assert path.read_text().splitlines()[:2] == before[:2]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_resuming_after_a_torn_line_with_nothing_to_cut_starts_on_a_new_line(tmp_path):
    path = fill(tmp_path, [1, 2])
    path.write_text(path.read_text()[:-1])  # whole object, lost newline
    with RunLog(tmp_path, resume_step=7) as log:
        log.log({"step": 8})
    assert steps(path) == [1, 2, 8]


def test_a_new_run_keeps_the_old_file_under_another_name(tmp_path):
    fill(tmp_path, [1, 2])
    fill(tmp_path, [3])
    path = fill(tmp_path, [4])
    assert steps(path) == [4]
    assert steps(tmp_path / "metrics.1.jsonl") == [1, 2]
    assert steps(tmp_path / "metrics.2.jsonl") == [3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ('{"step": 1}\n{"st', [1]),
        ('{"step": 1}\n\x00\x00\x00', [1]),
        ('{"step": 1}\n{"a": "\u2028", "step": 2}\n', [1, 2]),
    ],
    ids=["empty", "torn", "zeros after a power cut", "line separator inside a text"],
)
def test_reading_tolerates_a_torn_last_line(tmp_path, text, expected):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text, encoding="utf-8")
    assert steps(path) == expected


def test_a_broken_line_before_the_last_is_an_error_with_its_place(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nxyz\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: line is b'xyz', expected a JSON obj"):
        read_metrics(path)


class Mark(Enum):
    RIGHT = "right"


def test_samples_come_back_as_they_were_written(tmp_path):
    record = {
        "step": 12,
        "prompt": [{"role": "user", "content": "1 + 1 = ?"}],
        "completion": "line\nbreak \u2028 and a lone surrogate \udc80",
        "aspects": {"math": 1.0, "format": None},
        "verdict": Mark.RIGHT,
        "advantage": float("nan"),
    }
    path = write_samples(tmp_path, 12, [record, record])
    assert path == tmp_path / "samples" / "step-000012.jsonl"
    lines = path.read_bytes().strip().split(b"\n")
    expected = record | {"verdict": "right", "advantage": None}
    assert [json.loads(line) for line in lines] == [expected, expected]


def test_samples_of_another_kind_do_not_replace_those_of_training(tmp_path):
    names = [write_samples(tmp_path, 3, [{"step": 3}], kind=k).name for k in ("train", "eval")]
    assert names == ["step-000003.jsonl", "eval-step-000003.jsonl"]
    with pytest.raises(ValueError, match=r"kind is '\.\./x', expected one word"):
        write_samples(tmp_path, 3, [], kind="../x")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"pass@1": float("nan")})
    with pytest.raises(TypeError):
        write_json(path, {"pass@1": object()})
    path.with_name("folder").mkdir()
    with pytest.raises(OSError):
        write_json(path.with_name("folder"), {})
    assert json.loads(path.read_text()) == {"pass@1": None}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "summary.json"]
