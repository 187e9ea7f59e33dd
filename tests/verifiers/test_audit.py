import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmalign import verify as public_verify
from llmalign.verifiers.audit import Audit, verify

PLUGIN = """
import os, signal, time
from llmalign.verifiers import GoldError, Judgement, Verdict

def judge(text, gold, *, form="none"):
    if text == "hang":
        time.sleep(1000)
    if text == "raise":
        raise KeyError("inside")
    if text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "slow":
        time.sleep(0.15)
    if text == "cannot tell":
        return Judgement(Verdict.UNDECIDED, None, "beyond me")
    return Judgement(Verdict.RIGHT if text == gold else Verdict.WRONG, form, "compared")
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "llmalign_audit_plugin.py").write_text(PLUGIN)
    sys.path.insert(0, str(tmp_path))
    yield "llmalign_audit_plugin:judge"
    sys.path.remove(str(tmp_path))


def row(gold: Any, prediction: str, label: Any, category: str = "", **more: Any) -> dict[str, Any]:
    return {"gold": gold, "prediction": prediction, "label": label, "category": category, **more}


ROWS = [
    row("1/2", r"\boxed{0.5}", True, "fraction", id="equal"),
    row("2", r"so \boxed{2}", False, "number", id="accepted"),
    row("3", r"so \boxed{4}", True, "number", id="rejected"),
    row("3", "I do not know", True, "number", id="silent"),
    row("3", r"\boxed{5}", False, "number", id="unequal"),
    row("", r"\boxed{1}", False, "gold", id="no gold, unequal"),
    row("", r"\boxed{1}", True, "gold", id="no gold, equal"),
    row("1/2", "0.5", True, "fraction", id="bare", form="answer"),
]


def test_each_row_counts_as_what_it_is() -> None:
    audit = verify("math", ROWS)
    assert (audit.rows, audit.accuracy) == (8, 0.5)
    assert (audit.false_accepts, audit.false_rejects) == (1, 3)
    assert (audit.undecided, audit.exceptions) == (0, 0)
    assert audit.false_accept_rate == 1 / 3
    assert audit.false_reject_rate == 3 / 5
    assert audit.gold_errors == ["no gold, equal"]
    assert audit.disagreements == ["accepted", "rejected", "silent", "no gold, equal"]
    assert [d.case.id for d in audit.wrong_decisions()][0] == "accepted"
    number = audit.by_category["number"]
    assert (number.rows, number.accuracy, number.false_accepts, number.false_rejects) == (
        4,
        0.25,
        1,
        2,
    )
    assert audit.signature.startswith("math|v")


def test_undecided_and_exceptions_are_accurate_for_neither_label(plugin: str) -> None:
    texts = ["hang", "raise", "die", "cannot tell"]
    rows = [row("x", text, label) for text in texts for label in (True, False)]
    audit = verify(plugin, [*rows, row("x", "x", True)], timeout_s=0.5, workers=2)
    assert (audit.undecided, audit.exceptions) == (4, 4)
    assert (audit.false_accepts, audit.false_rejects) == (0, 0)
    assert audit.accuracy == 1 / 9
    assert audit.max_ms is not None and 500 <= audit.max_ms < 5000


def test_times_are_those_of_the_judge_and_equal_rows_are_judged_each(plugin: str) -> None:
    rows = [row("x", "slow", False)] * 4
    audit = verify(plugin, rows)
    assert audit.median_ms is not None and audit.per_second is not None
    assert 150 <= audit.median_ms < 1000
    assert audit.per_second == pytest.approx(4 / sum(d.seconds for d in audit.decisions), rel=0.02)
    assert audit.wall_seconds > 0.6
    assert [d.seconds > 0.1 for d in audit.slowest(5)] == [True] * 4


def test_a_peer_judges_the_same_rows() -> None:
    rows = [row("1/2", r"\boxed{0.5}", True), row(r"(-\infty,-5)", r"\boxed{k < -5}", True)]
    audit = verify("math", rows, against="math-verify")
    assert audit.accuracy == 1.0
    assert audit.against is not None and audit.against.accuracy == 0.5
    assert audit.against.signature.startswith("math-verify 0.")
    found = json.loads(json.dumps(audit.to_json()))
    assert found["against"]["kind"] == "math-verify"
    assert found["against"]["disagreements"] == ["2"]


def test_json_holds_every_number_and_no_more(plugin: str) -> None:
    found = json.loads(json.dumps(verify(plugin, [row("x", "x", "right", "a")]).to_json()))
    per_second, wall = found.pop("per_second"), found.pop("wall_seconds")
    times = [found.pop(name) for name in ("median_ms", "p99_ms", "max_ms")]
    assert per_second > 0 and wall > 0 and 0 < times[0] == times[1] == times[2]
    counts = {"rows": 1, "accuracy": 1.0, "false_accepts": 0, "false_rejects": 0}
    counts |= {"undecided": 0, "exceptions": 0}
    assert found == counts | {
        "kind": plugin,
        "signature": plugin,
        "false_accept_rate": None,
        "false_reject_rate": 0.0,
        "gold_errors": [],
        "by_category": {"a": counts},
        "disagreements": [],
    }


def test_form_goes_only_to_verifiers_that_have_it_and_options_go_before_it(plugin: str) -> None:
    rows = [row("x", "x", True, form="answer")]
    assert verify(plugin, rows).decisions[0].answer == "none"
    assert verify(plugin, rows, options={"form": "mine"}).decisions[0].answer == "mine"
    gold = {"nums": [1, 2], "target": 3}
    assert verify("countdown", [row(gold, "1+2", True, form="answer")]).accuracy == 1.0
    bare = [row("1", "so it is 1", True, form="answer")]
    assert verify("math", bare).decisions[0].case.options == {"form": "answer"}
    found = verify("math", bare, options={"form": "response"}).decisions[0]
    assert found.case.options == {"form": "response"}


def test_progress_is_told_after_each_row(plugin: str) -> None:
    told: list[tuple[str, int, int]] = []
    verify(plugin, [row("x", "x", True)] * 3, progress=lambda *found: told.append(found))
    assert told == [(plugin, 1, 3), (plugin, 2, 3), (plugin, 3, 3)]


def audit_of(accuracy: float, false_accepts: int) -> Audit:
    return Audit(
        kind="k", signature="k|v1", rows=200, accuracy=accuracy, false_accepts=false_accepts,
        false_rejects=0, undecided=0, exceptions=0, false_accept_rate=false_accepts / 100,
        false_reject_rate=0.0, gold_errors=[], median_ms=1.0, p99_ms=1.0, max_ms=1.0,
        per_second=1.0, wall_seconds=1.0, by_category={}, disagreements=[], decisions=(),
    )  # fmt: skip


def test_a_missed_bound_says_by_how_much() -> None:
    audit = audit_of(0.97, 3)
    assert audit.missed(min_accuracy=0.97, max_false_accept=0.03) == []
    assert audit.missed(min_accuracy=0.98) == [
        "accuracy is 0.9700, expected at least 0.98: 0.0100 short, 2 of 200 rows"
    ]
    assert audit.missed(max_false_accept=0.01) == [
        "false accept rate is 0.0300, expected at most 0.01: 0.0200 too high, 3 false accepts"
    ]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("maths", {}, "unknown verifier 'maths'; did you mean 'math'"),
        ("math", {"from": "answer"}, "row 1: math: unknown option 'from'; did you mean 'form'"),
        ("llmalign_no_such_module:judge", {}, "No module named"),
        ("prm800k:nowhere", {}, "expected prm800k:PATH with PATH/prm800k/grading/grader.py"),
    ],
)
def test_a_wrong_kind_or_option_is_an_error(
    kind: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        verify(kind, ROWS[:1], options=options)


def test_the_public_name_is_this_function() -> None:
    assert public_verify is verify
