"""Labelled rows for an audit, read and checked before anything is judged."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.registry import Entry

Row = Mapping[str, Any]

_TRUTHS = {"true": True, "1": True, "right": True, "correct": True}
_TRUTHS |= {"false": False, "0": False, "wrong": False, "incorrect": False}


@dataclass(frozen=True)
class LabelledCase:
    """One row of an audit: what the verifier is given, and what it should say."""

    id: str
    category: str
    label: bool
    text: str
    gold: Any
    options: Mapping[str, Any]


def read_cases(
    source: str | Path | Sequence[Row], kind: str, options: Mapping[str, Any], *, has_form: bool
) -> list[LabelledCase]:
    """The labelled rows of a JSONL file, or rows that are there already.

    Args:
        source: a path, or rows with ``gold``, ``prediction``, ``label`` (or ``should_pass``) and,
            as they wish, ``id``, ``category`` and ``form``. A verifier may read other fields, by
            its trait ``audit_row``.
        kind: whose rows these are.
        options: options of the verifier, for every row; they go before a row's own.
        has_form: whether a row's ``form`` is an option of the verifier.
    Raises:
        FileNotFoundError: no such file.
        ValueError: no rows, a line that is not a JSON object, or a field that is missing or
            cannot be read; the message names the line.
    """
    entry = VERIFIERS.get(kind, "verifier") if ":" not in kind else None
    named = [
        (where, number, _case(row, where, number, entry, options, has_form))
        for where, number, row in _rows(source)
    ]
    if not named:
        what = "the rows" if not isinstance(source, str | Path) else str(source)
        raise ValueError(f"{what}: no rows, expected at least one with gold, prediction and label")
    return [case for _, _, case in named]


def _rows(source: str | Path | Sequence[Row]) -> Iterator[tuple[str, int, Row]]:
    """(place in words, number from 1, row)."""
    if not isinstance(source, str | Path):
        for number, row in enumerate(source, 1):
            yield f"row {number}", number, _object(row, f"row {number}")
        return
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"rows are {str(source)!r}, expected a JSONL file that exists")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path} line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                shown = line[:40].decode(errors="replace").strip()
                raise ValueError(
                    f"{where} is {shown!r}, expected a JSON object: {error}; "
                    "write one object per line"
                ) from None
            yield where, number, _object(row, where)


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, Mapping):
        raise ValueError(f"{where} is {repr(row)[:80]}, expected an object with gold and label")
    return row


def _case(
    row: Row,
    where: str,
    number: int,
    entry: Entry | None,
    options: Mapping[str, Any],
    has_form: bool,
) -> LabelledCase:
    reader = entry.traits.get("audit_row") if entry else None
    try:
        text, gold, own = reader(row) if reader else _default(row, entry, has_form)
    except KeyError as missing:
        field = missing.args[0] if missing.args else "?"
        raise ValueError(
            f"{where} has no field {field!r}, it has {_names(row)}; add it to the row, "
            f"or audit with the verifier that reads such rows"
        ) from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
    if not isinstance(text, str):
        raise ValueError(f"{where}: prediction is {repr(text)[:80]}, expected a string")
    merged = {**own, **options}
    if entry is not None:
        entry.resolve(merged, f"{where}: {entry.name}")
    category = str(row.get("category") or "uncategorised")
    return LabelledCase(
        str(row.get("id", number)), category, _label(row, where), text, gold, merged
    )


def _default(row: Row, entry: Entry | None, has_form: bool) -> tuple[Any, Any, dict[str, Any]]:
    own = {"form": row["form"]} if has_form and row.get("form") is not None else {}
    return row["prediction"], row.get("gold") if _needs_no_gold(entry) else row["gold"], own


def _needs_no_gold(entry: Entry | None) -> bool:
    """Such as a pattern, whose gold has a default."""
    if entry is None:
        return False
    gold = inspect.signature(entry.thing).parameters.get("gold")
    return gold is not None and gold.default is not inspect.Parameter.empty


def _label(row: Row, where: str) -> bool:
    field = "label" if "label" in row else "should_pass"
    if field not in row:
        raise ValueError(f"{where} has no field 'label', it has {_names(row)}; add true or false")
    truth = _TRUTHS.get(str(row[field]).strip().lower())
    if truth is None:
        raise ValueError(
            f"{where}: {field} is {repr(row[field])[:80]}, expected true or false "
            "(or 1 and 0, right and wrong)"
        )
    return truth


def _names(row: Row) -> str:
    return ", ".join(sorted(map(str, row))) or "none"
