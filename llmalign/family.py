"""The tables of docs/algorithms.md, read from presets and registries so that none can be stale.

python -m llmalign.family docs/algorithms.md
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from llmalign.advantages import ADVANTAGES
from llmalign.losses import LOSSES
from llmalign.presets import PRESETS
from llmalign.token_weights import TOKEN_WEIGHTS
from llmalign.verifiers.registry import REQUIRED, Registry, unknown

_TABLE = re.compile(r"<!-- table: ([\w ]+) -->\n.*?<!-- end -->\n", re.DOTALL)


def with_tables(page: str) -> str:
    """A page with the table of each kind that its comments ``<!-- table: KIND -->`` …
    ``<!-- end -->`` name, in place of what stood there.

    Raises: ValueError: there is no such kind.
    """

    def table(match: re.Match[str]) -> str:
        kind = match[1]
        if kind not in _TABLES:
            raise ValueError(f"page: {unknown('table', kind, _TABLES)}")
        return f"<!-- table: {kind} -->\n\n{_TABLES[kind]()}\n<!-- end -->\n"

    return _TABLE.sub(table, page)


def in_one_line(choices: Mapping[str, Any]) -> str:
    """Choices as they stand in a recipe, ``loss: {kind: clipped}, aggregate: token_mean``."""
    plain = yaml.safe_dump(dict(choices), default_flow_style=True, width=10_000, sort_keys=False)
    return str(plain).strip()[1:-1]


def _algorithms() -> str:
    rows = [
        f"| `{name}` | {preset.about} | `{in_one_line(preset.choices)}` |"
        for name, preset in sorted(PRESETS.items())
    ]
    return "| algorithm | what it is | its choices |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _registered(registry: Registry, usual: tuple[str, ...], stage: str | None = None) -> str:
    rows = []
    for entry in registry.entries():
        if stage is not None and entry.traits.get("stage") != stage:
            continue
        options = ", ".join(
            name if default is REQUIRED else f"{name} {_plain(default)}"
            for name, (_, default) in entry.options().items()
        )
        more = ", ".join(f"`{name}`" for name in entry.inputs if name not in usual)
        summary = entry.summary.replace("``", "`").replace("|", "\\|").replace("*", "\\*")
        rows.append(f"| `{entry.name}` | {summary} | {options} | {more} | {entry.paper} |")
    head = "| name | what it does | options and defaults | needs besides | source |\n"
    return head + "|---|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _plain(default: Any) -> str:
    return "null" if default is None else str(default).replace("|", "\\|")


_FOUR = ("reward_B", "group_B", "mask_BT", "penalty_BT")
_USUAL = ("logp_BT", "logp_old_BT", "adv_BT", "mask_BT")
_TABLES: Mapping[str, Callable[[], str]] = {
    "algorithms": _algorithms,
    "advantages": lambda: _registered(ADVANTAGES, _FOUR),
    "token weights": lambda: _registered(TOKEN_WEIGHTS, ("mask_BT",)),
    "policy losses": lambda: _registered(LOSSES, _USUAL, "policy"),
    "supervised losses": lambda: _registered(LOSSES, _USUAL, "supervised"),
}


def main(paths: list[str]) -> None:
    """Rewrites the tables of each page."""
    for path in map(Path, paths):
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
