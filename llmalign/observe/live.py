"""The live view of a run: a bar with figures on a terminal, one plain line per step elsewhere."""

import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

# metric -> (label, format); a metric that is absent or None is not shown
_FIGURES = {
    "loss": ("loss", "{:.4g}"),
    "reward": ("reward", "{:.3f}"),
    "accuracy": ("accuracy", "{:.1%}"),
    "margin": ("margin", "{:.3f}"),
    "tokens_mean": ("length", "{:.0f}"),
    "entropy": ("entropy", "{:.3f}"),
    "kl": ("kl", "{:.4f}"),
    "tokens_per_second": ("tokens/s", "{:,.0f}"),
    "wasted_share": ("wasted", "{:.0%}"),
}


class LiveDisplay:
    """Shows how a run is doing; a context manager that never stops the run it shows.

    Args:
        total_steps: the step at which the run is done.
        title: name of the run.
        start_step: the step a resumed run goes on from.
    """

    def __init__(self, total_steps: int, *, title: str, start_step: int = 0) -> None:
        self._total = total_steps
        self._seen = deque([(time.monotonic(), start_step)], maxlen=20)
        self._stream = _Unfailing(sys.stdout)
        self._bar: _Bar | None = None
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = _Bar(self._stream, title, total_steps, start_step)

    def __enter__(self) -> "LiveDisplay":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Shows that ``step`` is done, and the figures among its metrics."""
        self._seen.append((time.monotonic(), step))
        left = self._left(step)
        if self._bar:
            self._bar.show(step, f"{left} left" if left else "", " · ".join(figures(metrics)))
        else:
            parts = [f"step {step}/{self._total}", *figures(metrics), f"eta {left}" if left else ""]
            self._print("  ".join(filter(None, parts)))

    def note(self, message: str) -> None:
        """Shows a warning above the bar, or on a line of its own."""
        if self._bar:
            self._bar.console.print(Text(f"note: {message}", style="yellow"))
        else:
            self._print(f"note: {message}")

    def _left(self, step: int) -> str:
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        if last <= first or step >= self._total:
            return ""
        return duration((end - begin) / (last - first) * (self._total - step))

    def _print(self, line: str) -> None:
        self._stream.write("".join(c if c.isprintable() else " " for c in line) + "\n")
        self._stream.flush()


def figures(metrics: Mapping[str, Any]) -> list[str]:
    """The few figures of a step worth watching, as short words: ``reward 0.512``."""
    return [
        f"{label} {form.format(metrics[key])}"
        for key, (label, form) in _FIGURES.items()
        if isinstance(metrics.get(key), int | float)
    ]


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter: ``42s``, ``3m20s``, ``2h05m``, ``4d07h``."""
    whole = round(seconds)
    units = (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1))
    for unit, inner, size, part in units:
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{inner}"
    return f"{whole}s"


class _Bar(Progress):
    def __init__(self, stream: "_Unfailing", title: str, total: int, start: int) -> None:
        self.line = ""
        super().__init__(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[left]}", style="cyan"),
            console=Console(file=stream),  # type: ignore[arg-type]
            expand=True,
        )
        self.task = self.add_task(title, total=total, completed=start, left="")

    def show(self, step: int, left: str, line: str) -> None:
        self.line = line
        self.update(self.task, completed=step, left=left)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self.line, style="dim")


class _Unfailing:
    """A text stream whose reader may leave: what can no longer be written is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return bool(self._try("isatty"))

    def fileno(self) -> int:
        return -1 if self._stream is None else self._stream.fileno()

    def write(self, text: str) -> int:
        self._try("write", text.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def _try(self, method: str, *arguments: str) -> Any:
        if self._stream is None:
            return None
        try:
            return getattr(self._stream, method)(*arguments)
        except (OSError, ValueError):  # broken pipe; closed file
            return None
