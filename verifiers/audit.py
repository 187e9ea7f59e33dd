"""How good is a verifier? Counted on labelled rows, by itself or next to a peer.

What counts as what, for a row with its label:

- False accept: the label is false, the verdict RIGHT. False reject: the label is true, the verdict
  WRONG or NO_ANSWER.
- An exception is a row on which the verifier raised or its process crashed; other UNDECIDED
  verdicts (time, memory, beyond the verifier) are undecided. Neither is accurate, whatever the
  label: a trainer would lose the sample.
- A gold that is refused is never rewarded: accurate for a false label, a false reject and a gold
  error for a true one.
- Accuracy is accurate decisions over rows. Milliseconds are wall time of the judge function in its
  process, without pipes; a killed row counts with its time limit. Rows whose gold is refused are
  not timed. ``per_second`` is timed rows over the sum of their seconds: one core.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from llmalign.verifiers import VERIFIERS, GoldError, Judgement, Verdict
from llmalign.verifiers.audit_rows import LabelledCase, Row, read_cases
from llmalign.verifiers.peers import NAMES, peer
from llmalign.verifiers.pool import VerifierPool

Progress = Callable[[str, int, int], None]  # whose rows, how many are judged, of how many


@dataclass(frozen=True)
class Decision:
    """What a verifier said about one row, and whether it should have."""

    case: LabelledCase
    verdict: Verdict | None  # None: the gold was refused
    answer: str | None
    why: str
    seconds: float

    @property
    def is_exception(self) -> bool:
        """The verifier raised or its process crashed."""
        fault = self.why.startswith(("raised ", "crashed"))
        return self.verdict is Verdict.UNDECIDED and fault

    @property
    def is_accurate(self) -> bool:
        """Accepted and labelled true, or decided against and labelled false."""
        if self.case.label:
            return self.verdict is Verdict.RIGHT
        return self.verdict in (Verdict.WRONG, Verdict.NO_ANSWER, None)


@dataclass(frozen=True)
class Tally:
    """Counts over some rows."""

    rows: int
    accuracy: float
    false_accepts: int
    false_rejects: int
    undecided: int
    exceptions: int

    @classmethod
    def of(cls, decisions: Sequence[Decision]) -> "Tally":
        """The counts of at least one decision."""
        rejects = (Verdict.WRONG, Verdict.NO_ANSWER, None)
        exceptions = sum(d.is_exception for d in decisions)
        return cls(
            rows=len(decisions),
            accuracy=sum(d.is_accurate for d in decisions) / len(decisions),
            false_accepts=sum(d.verdict is Verdict.RIGHT and not d.case.label for d in decisions),
            false_rejects=sum(d.verdict in rejects and d.case.label for d in decisions),
            undecided=sum(d.verdict is Verdict.UNDECIDED for d in decisions) - exceptions,
            exceptions=exceptions,
        )


@dataclass(frozen=True, kw_only=True)
class Audit(Tally):
    """A verifier on labelled rows; what counts as what stands at the top of this module.

    Rates are fractions of the rows that could be decided so wrongly: ``false_accept_rate`` of
    those labelled false, ``false_reject_rate`` of those labelled true; None where there are none.
    ``gold_errors`` and ``disagreements`` list ids. ``against`` is the peer on the same rows.
    """

    kind: str
    signature: str
    false_accept_rate: float | None
    false_reject_rate: float | None
    gold_errors: list[str]
    median_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    per_second: float | None
    wall_seconds: float
    by_category: dict[str, Tally]
    disagreements: list[str]
    decisions: tuple[Decision, ...] = field(repr=False)
    against: "Audit | None" = None

    def to_json(self) -> dict[str, Any]:
        """All but the single decisions, as JSON values."""
        left_out = {"decisions", "by_category", "against"}
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        found["by_category"] = {name: asdict(tally) for name, tally in self.by_category.items()}
        if self.against is not None:
            found["against"] = self.against.to_json()
        return found

    def missed(
        self, *, min_accuracy: float | None = None, max_false_accept: float | None = None
    ) -> list[str]:
        """In words, each bound this audit misses, and by how much; bounds are fractions."""
        found = []
        if min_accuracy is not None and self.accuracy < min_accuracy:
            short = min_accuracy - self.accuracy
            found.append(
                f"accuracy is {self.accuracy:.4f}, expected at least {min_accuracy:g}: "
                f"{short:.4f} short, {math.ceil(short * self.rows - 1e-9)} of {self.rows} rows"
            )
        rate = self.false_accept_rate
        if max_false_accept is not None and rate is not None and rate > max_false_accept:
            found.append(
                f"false accept rate is {rate:.4f}, expected at most {max_false_accept:g}: "
                f"{rate - max_false_accept:.4f} too high, {self.false_accepts} false accepts"
            )
        return found

    def wrong_decisions(self) -> list[Decision]:
        """The decisions that are not accurate: false accepts first, then by row."""
        wrong = [d for d in self.decisions if not d.is_accurate]
        return sorted(wrong, key=lambda d: d.verdict is not Verdict.RIGHT)

    def slowest(self, count: int) -> list[Decision]:
        """The decisions that took longest, slowest first."""
        return sorted(self.decisions, key=lambda d: -d.seconds)[:count]


def verify(
    kind: str,
    path_or_rows: str | Path | Sequence[Row],
    *,
    workers: int = 1,
    timeout_s: float = 5.0,
    against: str | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audits a verifier on labelled rows, and a peer on the same rows where one is named.

    Args:
        kind: a registered verifier, ``pkg.mod:function``, or a peer.
        path_or_rows: a JSONL file or rows; see ``audit_rows.read_cases`` for their fields.
        workers: processes, > 0. More than one is faster and measures times less well.
        timeout_s: wall time one judgement may take, in seconds.
        against: ``math-verify``, ``trl``, ``prm800k:PATH``, or any kind.
        options: options of the verifier, for all rows; they do not go to the peer.
        progress: called after each row with (kind, rows done, rows).
    Raises:
        FileNotFoundError, ValueError: the rows, the kind or the options are at fault.
        RuntimeError: no worker starts, or the verifier finds the machine unfit.
    """
    plan = [_subject(kind, options or {})]
    if against is not None:
        plan.append(_subject(against, {}))
    audits = []
    for subject, cases in [(s, _read(s, path_or_rows)) for s in plan]:
        with VerifierPool(workers, timeout_s, cache_size=0) as pool:
            audits.append(_audit(subject, cases, pool, progress))
    main, *peers = audits
    if not peers:
        return main
    return Audit(**{f.name: getattr(main, f.name) for f in fields(main)} | {"against": peers[0]})


@dataclass(frozen=True)
class _Subject:
    name: str
    kind: str
    options: Mapping[str, Any]
    signature: str
    has_form: bool


def _subject(name: str, options: Mapping[str, Any]) -> _Subject:
    if name.partition(":")[0] in NAMES:
        kind, own, signature = peer(name)
        return _Subject(name, kind, {**own, **options}, signature, has_form=True)
    if ":" in name:
        return _Subject(name, name, options, name, has_form=False)
    entry = VERIFIERS.get(name, "verifier")
    return _Subject(name, name, options, entry.signature, "form" in entry.options())


def _read(subject: _Subject, source: str | Path | Sequence[Row]) -> list[LabelledCase]:
    return read_cases(source, subject.kind, subject.options, has_form=subject.has_form)


def _audit(
    subject: _Subject, cases: Sequence[LabelledCase], pool: VerifierPool, progress: Progress | None
) -> Audit:
    # Imports and preparation are done by the first request, whatever becomes of it.
    began = time.perf_counter()
    outcomes = pool.judge_each(subject.kind, [(c.text, c.gold, c.options) for c in cases])
    decisions = []
    for decision in _decided(cases, outcomes):
        decisions.append(decision)
        if progress is not None:
            progress(subject.name, len(decisions), len(cases))
    return _summary(subject, tuple(decisions), time.perf_counter() - began)


def _decided(
    cases: Sequence[LabelledCase], outcomes: Iterator[Judgement | GoldError]
) -> Iterator[Decision]:
    for case, found in zip(cases, outcomes, strict=True):
        if isinstance(found, GoldError):
            yield Decision(case, None, None, f"gold refused: {found}", 0.0)
        else:
            yield Decision(case, found.verdict, found.answer, found.why, found.seconds)


def _summary(subject: _Subject, decisions: tuple[Decision, ...], wall_seconds: float) -> Audit:
    total = Tally.of(decisions)
    equal = sum(d.case.label for d in decisions)
    timed = sorted(d.seconds for d in decisions if d.verdict is not None)
    by_category: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_category.setdefault(decision.case.category, []).append(decision)
    return Audit(
        **asdict(total),
        kind=subject.name,
        signature=subject.signature,
        false_accept_rate=_rate(total.false_accepts, total.rows - equal),
        false_reject_rate=_rate(total.false_rejects, equal),
        gold_errors=[d.case.id for d in decisions if d.verdict is None and d.case.label],
        median_ms=_percentile_ms(timed, 0.5),
        p99_ms=_percentile_ms(timed, 0.99),
        max_ms=_percentile_ms(timed, 1.0),
        per_second=round(len(timed) / sum(timed), 1) if sum(timed) else None,
        wall_seconds=round(wall_seconds, 3),
        by_category={name: Tally.of(found) for name, found in sorted(by_category.items())},
        disagreements=[d.case.id for d in decisions if not d.is_accurate],
        decisions=decisions,
    )


def _rate(count: int, of: int) -> float | None:
    return count / of if of else None


def _percentile_ms(ordered: Sequence[float], share: float) -> float | None:
    """The smallest time that at least ``share`` of all do not exceed."""
    if not ordered:
        return None
    return round(1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)], 4)
