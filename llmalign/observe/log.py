"""The run folder's files: metrics by the line, samples and JSON files whole or not at all."""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: NaN and infinities as None, enums and 0-d arrays unwrapped."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "item"):  # a number of numpy or torch, whichever the caller happens to hold
        return plain(value.item())
    raise TypeError(
        f"value is {repr(value)[:80]}, expected a number, a string, a list or a mapping; convert it"
    )


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically; a lone surrogate of model text becomes its escape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, obj: Any) -> None:
    """Writes ``obj`` to ``path`` atomically: after a crash there is the old file or the new one."""
    write_text(path, json.dumps(plain(obj), ensure_ascii=False, indent=2) + "\n")


def write_samples(
    folder: Path, step: int, records: Iterable[Mapping[str, Any]], kind: str = "train"
) -> Path:
    """Writes the samples of one step atomically, one JSON object per line.

    Args:
        folder: the run folder; the file goes to its ``samples/``.
        step: the optimizer step that the samples belong to.
        records: one mapping per sample: step, problem_id, prompt, answer (the gold), completion,
            finish_reason, tokens, reward, aspects {node: value}, verdict, extracted, why,
            advantage, note.
        kind: ``train`` makes ``step-000012.jsonl``, any other word ``KIND-step-000012.jsonl``.
    Returns: the path of the file.
    """
    if not re.fullmatch(r"\w+", kind):
        raise ValueError(f"kind is {repr(kind)[:80]}, expected one word; it is part of a file name")
    name = f"step-{step:06d}.jsonl" if kind == "train" else f"{kind}-step-{step:06d}.jsonl"
    path = folder / "samples" / name
    write_text(path, "".join(map(_line, records)))
    return path


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All metric lines in order; a last line torn by a crash is left out.

    Raises: ValueError: a line before the last is not a JSON object; names file and line.
    """
    lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError
        except ValueError:
            if number < len(lines):
                raise ValueError(
                    f"{path}:{number}: line is {repr(line[:60])}, expected a JSON object; "
                    "remove the line to read the others"
                ) from None
            break
        rows.append(row)
    return rows


class RunLog:
    """``metrics.jsonl`` of a run: one JSON object per line, flushed as soon as it is written.

    Args:
        folder: the run folder; made where it is missing.
        resume_step: the step of the checkpoint a run goes on from: lines of later steps, which a
            crashed process had still written, and a torn last line are cut. None for a new run:
            an older file is not lost but renamed to the next free ``metrics.N.jsonl``.
    """

    def __init__(self, folder: Path, *, resume_step: int | None) -> None:
        self.path = folder / METRICS
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            if resume_step is None:
                _set_aside(self.path)
            else:
                _cut_after(self.path, resume_step)
        self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace")

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Appends one line, keys in the order given; what is not finite becomes null."""
        self._file.write(_line(metrics))
        self._file.flush()

    def close(self) -> None:
        """Closes the file; may be called twice."""
        self._file.close()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(plain(record), ensure_ascii=False) + "\n"


def _set_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)


def _cut_after(path: Path, step: int) -> None:
    kept = [row for row in read_metrics(path) if row.get("step", step) <= step]
    write_text(path, "".join(map(_line, kept)))
