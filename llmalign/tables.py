"""Audits and scores on a terminal: what was counted, what was wrong, what took longest."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from llmalign.saved import Scored
from llmalign.verifiers.audit import Audit, Decision
from llmalign.verifiers.audit import Progress as Report

_NUM_SLOWEST = 5
_CELL = 60  # characters of a gold, a prediction or a reason
_Show = Callable[[Audit], str]


@contextlib.contextmanager
def audit_progress(*, shown: bool) -> Iterator[Report | None]:
    """A bar for each verifier on stderr, gone when it is done; None where nobody would see it."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(kind: str, done: int, total: int) -> None:
            if kind not in tasks:
                tasks[kind] = bar.add_task(kind, total=total)
            bar.update(tasks[kind], completed=done)

        yield report


def print_audit(audit: Audit, num_disagreements: int) -> None:
    """Prints the tables of an audit; one column per verifier."""
    console = Console()
    audits = [audit, audit.against] if audit.against else [audit]
    console.print(_totals(audits))
    console.print(_categories(audits))
    for one in audits:
        wrong = one.wrong_decisions()
        if wrong and num_disagreements > 0:
            title = f"{one.kind}: {len(wrong)} wrong decisions"
            if len(wrong) > num_disagreements:
                title += f", the first {num_disagreements}"
            console.print(_decisions(title, wrong[:num_disagreements]))
    console.print(_decisions(f"{audit.kind}: slowest", audit.slowest(_NUM_SLOWEST), timed=True))


def _totals(audits: Sequence[Audit]) -> Table:
    table = Table(title=Text(" against ".join(a.kind for a in audits)), title_justify="left")
    table.add_column("")
    for audit in audits:
        table.add_column(Text(audit.signature or audit.kind), justify="right")
    rows: list[tuple[str, _Show]] = [
        ("rows", lambda a: f"{a.rows}"),
        ("accuracy", lambda a: f"{a.accuracy:.2%}"),
        ("false accepts", lambda a: _counted(a.false_accepts, a.false_accept_rate)),
        ("false rejects", lambda a: _counted(a.false_rejects, a.false_reject_rate)),
        ("undecided", lambda a: f"{a.undecided}"),
        ("exceptions", lambda a: f"{a.exceptions}"),
        ("gold errors", lambda a: f"{len(a.gold_errors)}"),
        ("median ms", lambda a: _ms(a.median_ms)),
        ("p99 ms", lambda a: _ms(a.p99_ms)),
        ("max ms", lambda a: _ms(a.max_ms)),
        ("per second, one core", lambda a: f"{a.per_second:.0f}" if a.per_second else "-"),
    ]
    for name, show in rows:
        table.add_row(name, *map(show, audits))
    return table


def _categories(audits: Sequence[Audit]) -> Table:
    table = Table(title="by category", title_justify="left")
    table.add_column("")
    table.add_column("rows", justify="right")
    for audit in audits:
        table.add_column(Text(audit.kind), justify="right")
        for short in ("accepts", "rejects", "undecided", "raised"):
            table.add_column(short, justify="right")
    for name in audits[0].by_category:
        cells = []
        for audit in audits:
            tally = audit.by_category[name]
            counts = (
                tally.false_accepts,
                tally.false_rejects,
                tally.undecided,
                tally.exceptions,
            )
            cells += [f"{tally.accuracy:.1%}", *(str(n) if n else "" for n in counts)]
        table.add_row(Text(name), str(audits[0].by_category[name].rows), *cells)
    return table


def _decisions(title: str, decisions: Sequence[Decision], *, timed: bool = False) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for name in ("id", "gold", "prediction", "label", "verdict", "why"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    if timed:
        table.add_column("ms", justify="right")
    for decision in decisions:
        cells = [
            decision.case.id,
            _head(str(decision.case.gold)),
            _tail(decision.case.text),
            "right" if decision.case.label else "wrong",
            decision.verdict.value if decision.verdict else "gold refused",
            _head(decision.why),
        ]
        cells += [f"{1000 * decision.seconds:.1f}"] if timed else []
        table.add_row(*map(Text, cells))
    return table


def _counted(count: int, rate: float | None) -> str:
    return f"{count}" if rate is None else f"{count} ({rate:.2%})"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _head(text: str) -> str:
    plain = _printable(text)
    return plain if len(plain) <= _CELL else plain[: _CELL - 1] + "…"


def _tail(text: str) -> str:
    """The end of a response: the answer is there."""
    plain = _printable(text)
    return plain if len(plain) <= _CELL else "…" + plain[1 - _CELL :]


def _printable(text: str) -> str:
    """On one line and without anything a terminal would obey."""
    ends = text if len(text) <= 4 * _CELL else f"{text[: 2 * _CELL]} {text[-2 * _CELL :]}"
    return " ".join("".join(c if c.isprintable() else " " for c in ends).split())


def print_scored(scored: Scored, *, attack: bool) -> None:
    """Prints what each node of a reward tree gave, or what an attacker earned from it."""
    console = Console()
    table = Table(title=f"{len(scored.rows)} samples", title_justify="left")
    for heading in ("node", "mean", "min", "max", "not scorable"):
        table.add_column(heading, justify="left" if heading == "node" else "right")
    for name, values in scored.summary().items():
        shown = (values[key] for key in ("mean", "min", "max"))
        table.add_row(
            Text(name),
            *("-" if v is None else f"{v:.4g}" for v in shown),
            f"{values['not_scorable']:.1%}",
        )
    console.print(table)
    if attack:
        console.print(_earnings(scored))


def _earnings(scored: Scored) -> Table:
    by_attack: dict[str, list[float]] = {}
    for row in scored.rows:
        by_attack.setdefault(row["attack"], []).append(row["reward"] or 0.0)
    table = Table(title="what answers that deserve nothing earn", title_justify="left")
    for heading in ("attack", "mean", "most", "paid on"):
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    for name, values in sorted(by_attack.items(), key=lambda item: -max(item[1])):
        paid = sum(value > 0 for value in values)
        mean = sum(values) / len(values)
        table.add_row(Text(name), f"{mean:.3g}", f"{max(values):.3g}", f"{paid} of {len(values)}")
    return table
