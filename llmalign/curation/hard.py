"""Problems that a model is bad at: the lowest scores of a reward, or a band of pass rates."""

import contextlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmalign.curation.answers import Answering, Tell, answer_field, ask_model, read_answers
from llmalign.curation.pool import Member, Pool, read_plan
from llmalign.data import ROW
from llmalign.rewards import Group, RewardHost

# What a run writes about a sample; no data of the problem.
_SAMPLE_FIELDS = {
    "step", "finish_reason", "tokens", "reward", "aspects", "verdict", "extracted", "why",
    "advantage", "note",
}  # fmt: skip
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Hard:
    """The problems kept, hardest last, and what became of the others.

    ``rows`` are data rows, one per problem, and ``scores`` theirs; ``pool`` holds the scores of all
    problems that have one; ``left_out`` lists the rows without a score, each with ``row``, ``id``
    and ``why``.
    """

    rows: list[dict[str, Any]]
    scores: list[float]
    pool: list[float]
    left_out: list[dict[str, Any]]

    def summary(self) -> dict[str, Any]:
        """Counts, and quantiles of the scores of all problems and of those kept."""
        return {
            "problems": len(self.pool),
            "kept": len(self.rows),
            "dropped": len(self.pool) - len(self.rows),
            "rows_without_score": len(self.left_out),
            "pool_scores": _quantiles(self.pool),
            "kept_scores": _quantiles(self.scores),
        }


@dataclass(frozen=True)
class _Ranked:
    """A problem's first row, the mean reward of its answers, and their number."""

    place: int
    score: float
    num_answers: int


def select_hard(
    reward: Any,
    rows: str | Path | Sequence[Mapping[str, Any]],
    *,
    count: int | None = None,
    low: float | None = None,
    high: float | None = None,
    answering: Answering | None = None,
    keep_scores: bool = False,
    workers: int = 2,
    timeout_s: float = 5.0,
    tell: Tell | None = None,
) -> Hard:
    """The problems on which a model's answers score lowest, or within a band.

    A problem's score is the mean reward of its answers: BLEU of one greedy answer, or a pass rate
    where there are several. Of the problems within [low, high] the ``count`` lowest are kept, in
    descending order of score (equal scores in the order of the rows), so that training in this
    order goes from easier to harder.

    Args:
        reward: a reward's name or tree, a YAML file with one, or a recipe (file or shipped name),
            whose ``data`` block then says how rows become prompts.
        rows: rows, or what ``data.train.path`` may be. Without ``answering`` each brings an answer
            of the model under ``completion``, ``response`` or ``prediction``. Rows of one problem
            have the same ``problem_id``, or without one the same prompt and the same values in the
            columns that the reward reads.
        count: how many problems to keep; None: all within the band.
        low, high: bounds of the score, both included; None: no bound.
        answering: the model that answers; None: the rows bring answers.
        keep_scores: adds ``score`` and ``num_answers`` to the rows kept.
        workers, timeout_s: of the verifier processes.
        tell: called with what is under way, how much of it is done, and of how much.
    Returns:
        Data rows (the answers and what a run notes about them are dropped), and what was left out.
    Raises:
        ValueError: no bound is given, no problem is kept, or no row has a score.
    Source: "BLEUBERI: BLEU is a surprisingly effective reward for instruction following": the 5,000
        lowest of 50,000 by BLEU of a base model's greedy answers, in descending order.
    """
    if count is None and low is None and high is None:
        raise ValueError("count, low and high are all missing, expected one; say what hard means")
    if count is not None and count < 1:
        raise ValueError(f"count is {count}, expected >= 1")
    if low is not None and high is not None and low > high:
        raise ValueError(f"low is {low} and high is {high}, expected low <= high")
    plan = read_plan(reward)
    pool = Pool(rows, plan.data)
    with contextlib.closing(plan.open_host(workers, timeout_s)) as host:
        if answering is None:
            members = read_answers(pool, host)
        else:
            members = ask_model(pool, host, plan, answering, tell)
        ranked = _ranked(pool, members, host)
    if not ranked:
        first = pool.left_out[0]["why"] if pool.left_out else "there are no rows"
        raise ValueError(f"none of {len(pool.rows)} rows has a score; first: {first}")
    kept = _lowest(ranked, count, low, high)
    made = [_data_row(pool.rows[one.place], answering is None) for one in kept]
    if keep_scores:
        made = [_with_score(row, one) for row, one in zip(made, kept, strict=True)]
    return Hard(made, [o.score for o in kept], [o.score for o in ranked], pool.left_out)


def _ranked(pool: Pool, members: Sequence[Member], host: RewardHost) -> list[_Ranked]:
    """The problems with a score; answers without one are listed."""
    asked = [member for member in members if member.answers]
    groups = [Group(m.problem, tuple(sample for _, sample in m.answers)) for m in asked]
    found = []
    for member, scores in zip(asked, host.score(groups), strict=True):
        known = []
        for (place, _), score in zip(member.answers, scores, strict=True):
            if score.value is None or not math.isfinite(score.value):
                pool.leave_out(place, score.note or "the reward gives its answer no value")
            else:
                known.append(score.value)
        if known:
            found.append(_Ranked(member.places[0], statistics.fmean(known), len(known)))
    return found


def _lowest(
    ranked: Sequence[_Ranked], count: int | None, low: float | None, high: float | None
) -> list[_Ranked]:
    """The lowest within the band, the highest of them first; both sorts keep ties in row order."""
    least, most = (-math.inf if low is None else low), (math.inf if high is None else high)
    within = [one for one in ranked if least <= one.score <= most]
    if not within:
        scores = [one.score for one in ranked]
        raise ValueError(
            f"no problem scores within [{least:g}, {most:g}]: the scores of {len(scores)} problems "
            f"lie between {min(scores):.4g} and {max(scores):.4g}; choose other bounds"
        )
    lowest = sorted(within, key=lambda one: one.score)[:count]
    return sorted(sorted(lowest, key=lambda one: one.place), key=lambda one: -one.score)


def _data_row(row: Mapping[str, Any], brought_answer: bool) -> dict[str, Any]:
    """A row without the model's answer, and without what a run noted about it."""
    dropped = {ROW}
    if brought_answer:
        dropped |= {answer_field(row) or ROW}
        dropped |= _SAMPLE_FIELDS if isinstance(row.get("aspects"), Mapping) else set()
    return {name: value for name, value in row.items() if name not in dropped}


def _with_score(row: dict[str, Any], one: _Ranked) -> dict[str, Any]:
    for name in ("score", "num_answers"):
        if name in row:
            raise ValueError(f"the rows have a column {name!r}; rename it, or keep no scores")
    return {**row, "score": one.score, "num_answers": one.num_answers}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    """Each linear between the two values nearest to it."""
    ordered = sorted(values)
    found = {}
    for share in _QUANTILES:
        place = share * (len(ordered) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        found[f"{share:.0%}"] = ordered[below] + (place - below) * (ordered[above] - ordered[below])
    return found
