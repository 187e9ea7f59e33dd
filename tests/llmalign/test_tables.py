import pytest

from llmalign import tables
from llmalign.verifiers.audit import verify

ROWS = [
    {"id": "[bold]x", "gold": "1", "prediction": "a " * 200 + r"\boxed{1}", "label": False},
    {"id": "y", "gold": "2", "prediction": "\x1b]0;title\x07\n\\boxed{3}", "label": True},
    {"id": "z", "gold": "3", "prediction": r"\boxed{3}", "label": True},
]


@pytest.fixture(scope="module")
def audit():
    return verify("math", ROWS)


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")


def test_wrong_decisions_are_listed_false_accepts_first(audit, capsys):
    tables.print_audit(audit, 20)
    out = capsys.readouterr().out
    listed = out.partition("2 wrong decisions")[2].partition("slowest")[0]
    assert listed.index("[bold]x") < listed.index(" y ")
    assert " z " not in listed


def test_only_as_many_as_asked_for_are_listed(audit, capsys):
    tables.print_audit(audit, 1)
    assert "2 wrong decisions, the first 1" in capsys.readouterr().out


def test_the_end_of_a_long_response_is_shown_and_no_control_character(audit, capsys):
    tables.print_audit(audit, 20)
    out = capsys.readouterr().out
    assert r"a \boxed{1}" in out and "…" in out
    assert "\x1b" not in out and "\x07" not in out


def test_a_peer_gets_a_column_of_its_own(capsys):
    tables.print_audit(verify("math", ROWS, against="math-verify"), 0)
    out = capsys.readouterr().out
    assert "math against math-verify" in out and "math-verify 0." in out


def test_no_bar_is_drawn_where_nobody_would_see_it(capfd):
    with tables.audit_progress(shown=True) as progress:
        verify("math", ROWS, progress=progress)
    assert capfd.readouterr().err == ""
