"""``report.html`` of a run: one self-contained file with its curves, its ledger and its samples."""

import json
from collections.abc import Iterator
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from llmalign.observe.log import METRICS, plain, read_metrics, write_text

MAX_POINTS = 2000  # per curve
MAX_LEDGER_POINTS = 400
MAX_RECORDS = 2000  # samples in the page
MAX_RECORDS_PER_FILE = 128
MAX_CHARACTERS = 12_000_000  # of completions in the page, shared out evenly

_PLACE = "__DATA__"
Row = dict[str, Any]


def write_report(run_folder: Path) -> Path:
    """Writes ``report.html`` into the run folder and returns its path.

    Whatever is missing (a run that crashed or is still going on, no samples, no summary) is said
    in the page. Its size is bounded: long runs are thinned and samples left out, both told there.

    Raises: FileNotFoundError: there is no such folder.
    """
    if not run_folder.is_dir():
        raise FileNotFoundError(f"run_folder is {str(run_folder)!r}, expected the folder of a run")
    template = resources.files("llmalign.observe").joinpath("report.html").read_text("utf-8")
    before, after = template.split(_PLACE)
    # Model text is untrusted: without any "<" it can neither end the script nor open a comment.
    data = json.dumps(plain(_collect(run_folder)), ensure_ascii=False).replace("<", "\\u003c")
    path = run_folder / "report.html"
    write_text(path, before + data + after)
    return path


def _collect(folder: Path) -> dict[str, Any]:
    notes: list[str] = []
    rows = _rows(folder, notes)
    recipe = _text(folder / "recipe.yaml")
    return {
        "name": _name(recipe) or folder.resolve().name,
        "recipe": recipe,
        "environment": _json(folder / "environment.json", notes),
        "summary": _json(folder / "summary.json", notes),
        "last_step": max((row["step"] for row in rows), default=None),
        "totals": _totals(rows),
        "curves": _curves(rows),
        "ledger": _ledger(rows),
        **_samples(folder / "samples", notes),
        "notes": notes,
    }


def _text(path: Path) -> str | None:
    return path.read_text("utf-8", errors="replace") if path.is_file() else None


def _name(recipe: str | None) -> str | None:
    try:
        parsed = yaml.safe_load(recipe or "")
    except yaml.YAMLError:  # the text itself is shown all the same
        return None
    return str(parsed["name"]) if isinstance(parsed, dict) and parsed.get("name") else None


def _json(path: Path, notes: list[str]) -> dict[str, Any] | None:
    text = _text(path)
    if text is None:
        notes.append(f"There is no {path.name}: the run has not ended, or was stopped.")
        return None
    value = _object(text)
    if value is None:
        notes.append(f"{path.name} cannot be read.")
    return value


def _object(text: str | bytes) -> Row | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _rows(folder: Path, notes: list[str]) -> list[Row]:
    """Metrics merged by step, in order of step: an evaluation has a line of its own."""
    path = folder / METRICS
    if not path.is_file():
        notes.append(f"There is no {METRICS}: no step was finished.")
        return []
    try:
        lines = read_metrics(path)
    except ValueError as error:
        notes.append(f"Curves are left out: {error}")
        return []
    merged: dict[int, Row] = {}
    for line in lines:
        if isinstance(line.get("step"), int):
            merged.setdefault(line["step"], {}).update(line)
    return [merged[step] for step in sorted(merged)]


def _totals(rows: list[Row]) -> dict[str, float]:
    keys = ("tokens_generated", "tokens_trained", "tokens_wasted", "seconds")
    return {key: sum(_numbers(rows, key)) for key in keys if any(key in row for row in rows)}


def _numbers(rows: list[Row], key: str) -> list[float]:
    return [row[key] for row in rows if _is_number(row.get(key))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _curves(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Metric -> x, y (null: it was not finite) and ``of``, its number of points before thinning."""
    keys = dict.fromkeys(key for row in rows for key in row if key != "step")
    curves = {}
    for key in keys:
        points = [(row["step"], row[key]) for row in rows if key in row]
        points = [(x, y) for x, y in points if y is None or _is_number(y)]
        if any(y is not None for _, y in points):
            kept = _thin(points)
            curves[key] = {
                "x": [x for x, _ in kept],
                "y": [_rounded(y) for _, y in kept],
                "of": len(points),
            }
    return curves


def _thin(points: list[tuple[int, float | None]]) -> list[tuple[int, float | None]]:
    """Lowest and highest point of each stretch, so that no spike is lost."""
    if len(points) <= MAX_POINTS:
        return points
    kept = []
    for stretch in _stretches(points, MAX_POINTS // 2):
        finite = [point for point in stretch if point[1] is not None] or stretch[:1]
        ends = {min(finite, key=lambda p: p[1] or 0.0), max(finite, key=lambda p: p[1] or 0.0)}
        kept += sorted(ends, key=lambda p: p[0])
    return kept


def _stretches(items: list[Any], num: int) -> Iterator[list[Any]]:
    for i in range(num):
        stretch = items[i * len(items) // num : (i + 1) * len(items) // num]
        if stretch:
            yield stretch


def _ledger(rows: list[Row]) -> dict[str, Any]:
    """Seconds per phase: mean of each stretch of steps, and totals over the run."""
    rows = [row for row in rows if any(key.startswith("seconds_") for key in row)]
    phases = dict.fromkeys(k for row in rows for k in row if k.startswith("seconds_"))
    stretches = list(_stretches(rows, min(len(rows), MAX_LEDGER_POINTS)))
    return {
        "x": [stretch[-1]["step"] for stretch in stretches],
        "of": len(rows),
        "phases": {
            phase.removeprefix("seconds_"): {
                "y": [_rounded(sum(_numbers(s, phase)) / len(s)) for s in stretches],
                "total": _rounded(sum(_numbers(rows, phase))),
            }
            for phase in phases
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _samples(folder: Path, notes: list[str]) -> dict[str, Any]:
    files = sorted(folder.glob("*.jsonl"))
    shown = [stretch[-1] for stretch in _stretches(files, min(len(files), MAX_RECORDS // 8))]
    per_file = min(MAX_RECORDS_PER_FILE, MAX_RECORDS // max(len(shown), 1))
    records: list[Row] = []
    total = 0
    for path in files:
        kept, num_lines = _head(path, per_file if path in shown else 0)
        total += num_lines
        for number, line in enumerate(kept, start=1):
            if (record := _object(line)) is None:
                notes.append(f"samples/{path.name}:{number} cannot be read.")
            else:
                records.append(record | {"file": path.stem})
    limit = max(4000, MAX_CHARACTERS // max(len(records), 1))
    return {"samples": [_short(record, limit) for record in records], "samples_total": total}


def _head(path: Path, num: int) -> tuple[list[bytes], int]:
    """The first ``num`` lines, and how many there are."""
    with path.open("rb") as file:
        head = list(islice(file, num))
        return head, len(head) + sum(1 for _ in file)


def _short(value: Any, limit: int) -> Any:
    """``value`` with the middle of every text beyond ``limit`` characters left out, saying so."""
    if isinstance(value, str) and len(value) > limit:
        half = limit // 2
        gap = f"\n[… {len(value) - 2 * half:,} characters left out …]\n"
        return value[:half] + gap + value[-half:]
    if isinstance(value, dict):
        return {key: _short(inner, limit) for key, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner, limit) for inner in value]
    return value
