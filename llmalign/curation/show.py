"""What the data commands show on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NUM_LEFT_OUT = 5
_CELL = 90  # characters of a reason


def print_summary(summary: Mapping[str, Any], left_out: Sequence[Mapping[str, Any]]) -> None:
    """Prints counts, quantiles of scores, and the first rows left out with the reason."""
    console = Console()
    counts = Table(show_header=False)
    quantiles = {}
    for name, value in summary.items():
        if not isinstance(value, Mapping):
            counts.add_row(name.replace("_", " "), str(value))
        elif name.endswith("_scores"):
            quantiles[name.removesuffix("_scores")] = value
        else:
            for part, count in value.items():
                counts.add_row(f"{name.replace('_', ' ')}: {part}", str(count))
    console.print(counts)
    if quantiles:
        console.print(_quantiles(quantiles))
    if left_out:
        console.print(_left_out(left_out))


def _quantiles(found: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title="scores, at these shares of the problems", title_justify="left")
    table.add_column("")
    for share in next(iter(found.values())):
        table.add_column(share, justify="right")
    for name, values in found.items():
        table.add_row(name, *(f"{value:.2g}" for value in values.values()))
    return table


def _left_out(left_out: Sequence[Mapping[str, Any]]) -> Table:
    title = f"{len(left_out)} rows left out"
    if len(left_out) > _NUM_LEFT_OUT:
        title += f", the first {_NUM_LEFT_OUT}"
    table = Table(title=title, title_justify="left")
    for name in ("row", "id", "why"):
        table.add_column(name)
    for one in left_out[:_NUM_LEFT_OUT]:
        why = "".join(c if c.isprintable() else " " for c in str(one["why"]))
        shown = why if len(why) <= _CELL else why[: _CELL - 1] + "…"
        table.add_row(*map(Text, (str(one["row"]), str(one["id"]), shown)))
    return table
