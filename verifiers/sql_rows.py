"""Are two results of SQL queries the same? Rows as multisets or lists, columns in any order."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from llmalign.verifiers.format import shortened

Row = tuple[Any, ...]

MAX_COLUMN_TRIALS = 2_000  # of an order of columns
TOLERANCE = 1e-6  # relative, between two numbers that are not both integers


def same_rows(
    expected: Sequence[Row], rows: Sequence[Row], ordered: bool
) -> tuple[bool | None, str]:
    """Whether two results are equal up to the order of columns (and of rows, unless ordered), and
    why; None where there are too many orders of columns to try.

    1 equals 1.0, NULL equals NULL, text never equals a number, and the names of columns do not
    matter: rows hold none.
    """
    if len(rows) != len(expected):
        return False, f"{len(rows):,} rows, expected {len(expected):,}"
    if not rows:
        return True, "both results are empty"
    if len(rows[0]) != len(expected[0]):
        return False, f"{len(rows[0])} columns, expected {len(expected[0])}"
    snap = _snapped([*expected, *rows])
    left, right = ([tuple(map(snap, row)) for row in side] for side in (expected, rows))
    if left == right or (not ordered and Counter(left) == Counter(right)):
        return True, "equal rows"
    columns, others = list(zip(*left, strict=True)), list(zip(*right, strict=True))
    if ordered:
        same = Counter(columns) == Counter(others)
        return same, "equal rows, other columns first" if same else "different rows or order"
    found = _align(columns, others)
    if found is None:
        return None, f"more than {MAX_COLUMN_TRIALS:,} orders of columns to try"
    return found, "equal rows, other columns first" if found else "different rows"


def _snapped(rows: Sequence[Row]) -> Callable[[Any], Any]:
    """A function that maps equal values to equal keys: floats by ``TOLERANCE``, the rest exactly.

    Numbers near each other share the smallest of them as key; two integers never do, and the
    distance is taken to that smallest one, so that a long row of near neighbours stays apart.
    """
    numbers = sorted({v for row in rows for v in row if isinstance(v, int | float)})
    keys: dict[int | float, Any] = {}
    anchor: int | float | None = None
    for number in numbers:
        if anchor is None or not _near(anchor, number):
            anchor = number
        keys[number] = ("number", anchor)
    return lambda value: keys[value] if isinstance(value, int | float) else value


def _near(low: int | float, high: int | float) -> bool:
    whole = (isinstance(n, int) or n.is_integer() or not isfinite(n) for n in (low, high))
    return not all(whole) and high - low <= TOLERANCE * min(max(abs(low), abs(high)), 1e300)


def _align(columns: Sequence[Row], others: Sequence[Row]) -> bool | None:
    """Whether some order of ``others`` gives the same multiset of rows; None after too many."""
    trials = 0
    shapes = [Counter(column) for column in columns]
    candidates = [[i for i, o in enumerate(others) if Counter(o) == shape] for shape in shapes]

    def extend(chosen: list[int]) -> bool:
        nonlocal trials
        if len(chosen) == len(columns):
            return True
        tried: set[Row] = set()  # equal columns can stand for each other
        for candidate in candidates[len(chosen)]:
            if candidate in chosen or others[candidate] in tried:
                continue
            tried.add(others[candidate])
            trials += 1
            if trials > MAX_COLUMN_TRIALS:
                return False
            now = [*chosen, candidate]
            left = zip(*columns[: len(now)], strict=True)
            right = zip(*(others[i] for i in now), strict=True)
            if Counter(left) == Counter(right) and extend(now):
                return True
        return False

    found = extend([])
    return None if trials > MAX_COLUMN_TRIALS else found


def normal_form(rows: Sequence[Row], ordered: bool) -> str:
    """The result as JSON, so that queries that mean the same can vote; rows sorted if free."""
    shown = [json.dumps([_plain(value) for value in row]) for row in rows]
    return shortened(f"[{','.join(shown if ordered else sorted(shown))}]")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        short = float(f"{value:.6g}")
        return int(short) if short.is_integer() and abs(short) < 2**53 else short
    return value.hex() if isinstance(value, bytes) else value
