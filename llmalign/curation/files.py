"""Files of the data commands: rows whole or not at all, and work that outlives a kill."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmalign.observe.log import write_json, write_text


def left_out_path(output: Path) -> Path:
    """Where the rows are listed that did not make it: ``OUT.left_out.json``."""
    return output.with_suffix(".left_out.json")


def progress_path(output: Path) -> Path:
    """Where a run keeps what is done until all is: ``OUT.progress.jsonl``."""
    return output.with_suffix(".progress.jsonl")


def check_output(output: Path, source: str, *, overwrite: bool) -> None:
    """Refuses an output that would destroy something, before any work is done.

    Raises:
        ValueError: it is no .jsonl file, is the input, or exists and ``overwrite`` is False.
    """
    if output.suffix != ".jsonl":
        raise ValueError(f"output is {str(output)!r}, expected a file that ends in .jsonl")
    if output.resolve() == Path(source).expanduser().resolve():
        raise ValueError(f"output is {str(output)!r}, the input itself; name another file")
    for path in (output, left_out_path(output)):
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists; name another --output, or allow it with --overwrite")


def write_rows(
    output: Path, rows: Iterable[Mapping[str, Any]], left_out: Sequence[Mapping[str, Any]]
) -> None:
    """Writes rows, and beside them what was left out; each file appears whole or not at all."""
    write_json(left_out_path(output), left_out)
    write_text(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class Progress:
    """Results by key, appended to a file as they come, so that a killed run goes on.

    The first line says what the results are of: rows and options as one digest. A last line that
    a kill tore is cut off.

    Args:
        path: the file; None keeps the results in memory only.
        of: all that decides a result, JSON values.
    Raises:
        ValueError: the file holds results of something else, or a line is broken.
    """

    def __init__(self, path: Path | None, of: Any) -> None:
        self.path = path
        self.found: dict[str, Any] = {}
        if path is None:
            return
        spelled = json.dumps(of, sort_keys=True, default=str)
        self._head = {"of": hashlib.sha256(spelled.encode(errors="surrogatepass")).hexdigest()}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._read(path)
        if not path.exists() or not path.stat().st_size:
            self._append([self._head])

    def add(self, results: Mapping[str, Any]) -> None:
        """Keeps results, on disk before this returns."""
        lines = [{"key": key, "result": result} for key, result in results.items()]
        # As a resumed run would read them, so that both write the same bytes in the end.
        self.found |= {line["key"]: json.loads(json.dumps(line["result"])) for line in lines}
        self._append(lines)

    def _append(self, lines: Sequence[Any]) -> None:
        if self.path is None or not lines:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def _read(self, path: Path) -> None:
        whole = path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        if len(kept) < len(whole):
            os.truncate(path, len(kept))
        for number, line in enumerate(kept.splitlines(), 1):
            try:
                row = json.loads(line)
                if number == 1:
                    known = row["of"] == self._head["of"]
                else:
                    self.found[row["key"]] = row["result"]
            except (ValueError, LookupError, TypeError):
                raise ValueError(
                    f"{path} line {number} is {line[:60]!r}, expected what an earlier run wrote; "
                    "delete the file to begin again"
                ) from None
            if number == 1 and not known:
                raise ValueError(
                    f"{path} holds results of other rows, another model or other options; give "
                    "the same as before to go on, or delete the file to begin again"
                )
