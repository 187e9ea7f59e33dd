import io
import os
import pty
import re
import select
import sys

import pytest

from llmalign.observe.live import LiveDisplay, duration, figures

METRICS = {"step": 1, "loss": 0.5, "reward": 0.25, "kl": None, "tokens_per_second": 1234.5}


def test_without_a_terminal_there_is_one_plain_line_per_step(capsys):
    with LiveDisplay(3, title="tiny") as display:
        display.update(1, METRICS)
        display.note("reward timed out\x1b[31m 3 times")
        display.update(3, METRICS | {"wasted_share": 0.5})
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("step 1/3  loss 0.5  reward 0.250  tokens/s 1,234  eta ")
    assert lines[1] == "note: reward timed out [31m 3 times"
    assert lines[2] == "step 3/3  loss 0.5  reward 0.250  tokens/s 1,234  wasted 50%"
    assert all(c.isprintable() or c == "\n" for c in out)


def test_on_a_terminal_there_is_a_bar_with_figures_and_notes_above(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    main, side = pty.openpty()
    with os.fdopen(side, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with LiveDisplay(10, title="tiny [run]", start_step=4) as display:
            display.update(5, METRICS)
            display.note("slow reward [x]")
        seen = read_all(main).decode()
    os.close(main)
    assert "\x1b[" in seen
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    for words in ("tiny [run]", "5/10", " left", "reward 0.250", "note: slow reward [x]"):
        assert words in shown


def read_all(main):
    """Everything a terminal was sent: one read gives no more than the kernel's buffer holds."""
    os.set_blocking(main, False)
    parts = []
    while select.select([main], [], [], 0.1)[0]:
        parts.append(os.read(main, 65536))
    return b"".join(parts)


def closed_file():
    stream = io.StringIO()
    stream.close()
    return stream


def broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)


@pytest.mark.parametrize("make", [closed_file, broken_pipe, lambda: None])
def test_a_closed_output_never_stops_the_run(monkeypatch, make):
    stream = make()
    monkeypatch.setattr(sys, "stdout", stream)
    with LiveDisplay(2, title="tiny") as display:
        display.update(1, METRICS)
        display.note("still here")
        display.update(2, METRICS)
    assert display._left(1)  # it went on counting
    try:
        if stream is not None:
            stream.close()
    except BrokenPipeError:
        pass


def test_a_terminal_that_goes_away_never_stops_the_run(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    main, side = pty.openpty()
    terminal = os.fdopen(side, "w")
    monkeypatch.setattr(sys, "stdout", terminal)
    with LiveDisplay(5, title="tiny") as display:
        display.update(1, METRICS)
        os.close(main)
        display.update(2, METRICS)
        display.note("gone")
    assert display._bar.tasks[0].completed == 2


def test_text_beyond_the_encoding_of_the_output_is_replaced(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    LiveDisplay(1, title="t").note("naïve ✓")
    assert raw.getvalue() == b"note: na?ve ?\n"


def test_figures_leave_out_what_is_missing_or_null():
    assert figures({"kl": None, "entropy": 0.5, "grad_norm": 3.0}) == ["entropy 0.500"]
    assert figures({}) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (200, "3m20s"), (7500, "2h05m"), (372000, "4d07h")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text
