"""Whether what a program gave is what was expected: on the trusted side, on plain data only."""

import math
from typing import Any

from .wire import MAX_DEPTH

MAX_NUMBER = 400  # characters of one number in an output
_SHOWN = 60  # characters of a value in a reason


def tokens_differ(expected: bytes, got: bytes) -> str:
    """Compares line by line, word by word; in some words the first difference, else nothing.

    Carriage returns, blanks at the end of a line or several in a row, and empty lines at the end
    do not count. Which words stand on which line does.
    """
    return _lines_differ(expected, got, None)


def floats_differ(expected: bytes, got: bytes, tolerance: float) -> str:
    """Like ``tokens_differ``, but two numbers a, b agree if |a - b| <= tolerance max(1, |b|)."""
    return _lines_differ(expected, got, tolerance)


def texts_differ(expected: bytes, got: bytes) -> str:
    """Compares byte for byte, save line ends at the very end."""
    if expected.rstrip(b"\r\n") == got.rstrip(b"\r\n"):
        return ""
    return f"output is {_cut(got)}, expected {_cut(expected)}"


def _lines_differ(expected: bytes, got: bytes, tolerance: float | None) -> str:
    wanted, found = _lines(expected), _lines(got)
    for number, (want, have) in enumerate(zip(wanted, found, strict=False), 1):
        if want == have:
            continue
        close = tolerance is not None and len(want) == len(have)
        if not (close and all(_near(w, h, tolerance) for w, h in zip(want, have, strict=True))):
            shown = _cut(b" ".join(have)), _cut(b" ".join(want))
            return f"line {number} is {shown[0]}, expected {shown[1]}"
    if len(wanted) != len(found):
        return f"{len(found)} lines of output, expected {len(wanted)}"
    return ""


def _lines(text: bytes) -> list[list[bytes]]:
    lines = [line.split() for line in text.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _near(want: bytes, have: bytes, tolerance: float | None) -> bool:
    if want == have:
        return True
    a, b = _number(have), _number(want)
    return tolerance is not None and a is not None and b is not None and _close(a, b, tolerance)


def _number(token: bytes) -> float | None:
    if len(token) > MAX_NUMBER or b"_" in token:
        return None
    try:
        return float(token)
    except ValueError:
        return None


def _close(a: float, b: float, tolerance: float) -> bool:
    return math.isfinite(a) and abs(a - b) <= tolerance * max(1.0, abs(b))


def same_value(expected: Any, got: Any, *, tolerance: float | None, typed: bool) -> bool:
    """Whether a result is the expected value. Both are plain data.

    Numbers are equal as in Python (1 == 1.0 == True; NaN is NaN). Everything else is of the same
    type; where the expected value was written as JSON (not ``typed``) a tuple counts as a list.
    """
    return _same(expected, got, tolerance, typed, 0)


def _same(expected: Any, got: Any, tolerance: float | None, typed: bool, depth: int) -> bool:
    if depth > 2 * MAX_DEPTH:
        return False
    if isinstance(expected, int | float):
        return isinstance(got, int | float) and _same_number(expected, got, tolerance)
    if isinstance(expected, list) and isinstance(got, tuple) and not typed:
        got = list(got)
    if type(expected) is not type(got):
        return False
    if isinstance(expected, list | tuple):
        return len(expected) == len(got) and all(
            _same(want, have, tolerance, typed, depth + 1)
            for want, have in zip(expected, got, strict=True)
        )
    if isinstance(expected, dict):
        return len(expected) == len(got) and all(
            key in got and _same(want, got[key], tolerance, typed, depth + 1)
            for key, want in expected.items()
        )
    return bool(expected == got)


def _same_number(expected: float, got: float, tolerance: float | None) -> bool:
    if expected == got or (expected != expected and got != got):
        return True
    if tolerance is None or isinstance(expected, bool) or isinstance(got, bool):
        return False
    try:
        return _close(float(got), float(expected), tolerance)
    except OverflowError:  # an integer beyond all floats
        return False


def show(value: Any) -> str:
    """A value in at most some words, whatever its size."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, list | tuple | set | frozenset | dict) and len(value) > 20:
        return f"a {type(value).__name__} of {len(value)} values"
    if isinstance(value, str | bytes):
        value = value[:_SHOWN]
    try:
        return repr(value)[:_SHOWN]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"


def _cut(text: bytes) -> str:
    return repr(text[:_SHOWN].decode("utf-8", "replace"))
