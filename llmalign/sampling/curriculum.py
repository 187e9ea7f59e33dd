"""Which problems are worth generating for: neither solved already nor out of reach for now."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

from llmalign.rewards import Problem
from llmalign.sampling.dropped import Dropped, Reason

Order = Literal["none", "easy_first", "hard_first"]
Drawn = TypeVar("Drawn")


@dataclass
class Visits:
    """What is known of one problem.

    Attributes:
        count: times it was sampled and scored.
        rate: running mean of its scores, in [0, 1].
        streak: how often in a row all its samples were right (> 0) or all wrong (< 0).
        last: step of the last time it was sampled.
    """

    count: int = 0
    rate: float = 0.0
    streak: int = 0
    last: int = 0


@dataclass
class Portion(Generic[Drawn]):
    """Problems to generate for, those among them that only a shortage let through, and what was
    left out."""

    kept: list[Drawn]
    forced: list[Drawn]
    skipped: list[Dropped]

    @property
    def note(self) -> str:
        """What is to be said where too few problems were worth a group; empty otherwise."""
        if not self.forced:
            return ""
        return (
            f"curriculum: too few problems are worth a group now, so the {len(self.forced)} least "
            f"recently tried of {len(self.forced) + len(self.skipped)} others fill the step; widen "
            "low and high, or lower recheck_after"
        )


@dataclass(kw_only=True)
class Curriculum:
    """Keeps a running pass rate of each problem and says which problems to leave out for now.

        rate <- decay * rate + (1 - decay) * mean(values),   rate = mean(values) at first

    A problem is left out while its rate lies outside [low, high], or after ``retire_after`` visits
    in a row in which all samples were right, or all wrong. The policy changes, so it is tried again
    after a while, and what was learnt then counts as above. A pure function of what was recorded.

    Args:
        low: rates below are too hard, in [0, 1]; 0 leaves nothing out.
        high: rates above are too easy, in [low, 1]; 1 leaves nothing out.
        min_visits: visits before the rate may leave a problem out, > 0.
        recheck_after: steps after its last visit at which a problem left out is tried again, > 0.
        decay: weight of the past, in [0, 1); 0: only the last visit counts.
        retire_after: length of the streak that leaves a problem out; None: no streak does.
        retire_for: steps after its last visit at which such a problem is tried again, > 0.
    Raises: ValueError: an argument is out of its range.
    Source: the bounds 0.2 and 0.8 are those of PRIME's filter on groups (Cui et al. 2025,
        arXiv:2502.01456), here looked up before a group is generated; the rest reconstructed.
    """

    low: float = 0.2
    high: float = 0.8
    min_visits: int = 1
    recheck_after: int = 100
    decay: float = 0.5
    retire_after: int | None = None
    retire_for: int = 500
    visits: dict[str, Visits] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(
                f"low is {self.low} and high is {self.high}, expected 0 <= low <= high <= 1"
            )
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}, expected >= 0 and < 1")
        for name in ("min_visits", "recheck_after", "retire_after", "retire_for"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected >= 1")

    def objection(self, problem_id: str, step: int) -> Reason | None:
        """Why no group should be generated for a problem now; None: it is worth one."""
        seen = self.visits.get(problem_id)
        if seen is None:
            return None
        retired = self.retire_after is not None and abs(seen.streak) >= self.retire_after
        if step - seen.last >= (self.retire_for if retired else self.recheck_after):
            return None
        if retired:
            return "curriculum: too easy" if seen.streak > 0 else "curriculum: too hard"
        if seen.count < self.min_visits or self.low <= seen.rate <= self.high:
            return None
        return "curriculum: too easy" if seen.rate > self.high else "curriculum: too hard"

    def record(self, problem_id: str, values: Sequence[float | None], step: int) -> None:
        """Takes note of the scores of all samples of a problem; None is not scored, and a visit
        without any score only counts as an attempt.

        Raises: ValueError: a score is outside [0, 1].
        """
        scored = [v for v in values if v is not None]
        for value in scored:
            if not 0 <= value <= 1:
                raise ValueError(
                    f"a score of problem {problem_id!r:.80} is {value}, expected 0 to 1; name a "
                    "reward node with such values in sampling.curriculum.metric"
                )
        seen = self.visits.setdefault(problem_id, Visits())
        seen.last = step
        if not scored:
            return
        mean = math.fsum(scored) / len(scored)
        past = self.decay if seen.count else 0.0
        seen.rate = past * seen.rate + (1 - past) * mean
        seen.count += 1
        side = (min(scored) == 1) - (max(scored) == 0)  # all right, all wrong, neither
        seen.streak = side + (seen.streak if seen.streak * side > 0 else 0)

    def choose(
        self,
        draw: Callable[[int], Sequence[Drawn]],
        id_of: Callable[[Drawn], str],
        *,
        count: int,
        most: int,
        step: int,
    ) -> Portion[Drawn]:
        """Draws until ``count`` problems are worth a group, or ``most`` have been looked at.

        What is missing then is filled up with the least recently tried of the others, so that a
        step never starves; a problem that the supply repeats comes twice only where even these are
        too few.

        Args:
            draw: the next so many of an endless supply.
            id_of: the problem's id.
            count: how many are needed.
            most: how many may be looked at, at least ``count``.
            step: the present step.
        """
        kept: dict[str, Drawn] = {}
        repeats: list[Drawn] = []
        skipped: dict[str, tuple[Drawn, Reason]] = {}
        looks = 0
        while (missing := count - len(kept) - len(repeats)) > 0 and looks < most:
            portion = draw(min(missing, most - looks))
            looks += len(portion)
            for drawn in portion:
                name = id_of(drawn)
                why = self.objection(name, step)
                if why is not None:
                    skipped.setdefault(name, (drawn, why))
                elif name in kept:
                    repeats.append(drawn)
                else:
                    kept[name] = drawn
        waiting = sorted(skipped, key=lambda name: self.visits[name].last)
        forced = [skipped.pop(name)[0] for name in waiting[: count - len(kept)]]
        once = [*kept.values(), *forced]
        dropped = [self._dropped(name, why, step) for name, (_, why) in skipped.items()]
        return Portion(once + repeats[: count - len(once)], forced, dropped)

    def _dropped(self, problem_id: str, why: Reason, step: int) -> Dropped:
        seen = self.visits[problem_id]
        detail = f"rate {seen.rate:.3f} after {seen.count} visits, streak {seen.streak}"
        return Dropped(step, problem_id, why, f"{detail}, last tried at step {seen.last}")

    def state_dict(self) -> dict[str, Any]:
        """What was recorded, in JSON values."""
        return {"visits": {name: asdict(seen) for name, seen in self.visits.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        self.visits = {name: Visits(**seen) for name, seen in state["visits"].items()}


def difficulty_order(problems: Sequence[Problem], *, order: Order, column: str) -> list[int]:
    """Indices of the problems by the difficulty their rows bring, equal ones as they come.

    Larger is harder. For a column in which larger is easier, such as a pass rate, ``easy_first``
    and ``hard_first`` change places.

    Raises: ValueError: a problem lacks the column, or holds no finite number there.
    """
    if order == "none":
        return list(range(len(problems)))
    difficulty = [_difficulty(problem, column) for problem in problems]
    sign = -1 if order == "hard_first" else 1
    return sorted(range(len(problems)), key=lambda i: sign * difficulty[i])


def _difficulty(problem: Problem, column: str) -> float:
    if column not in problem.columns:
        raise ValueError(
            f"problem {problem.id!r:.80} has no column {column!r:.80}; known: "
            f"{', '.join(sorted(problem.columns))}"
        )
    given = problem.columns[column]
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"{column} of problem {problem.id!r:.80} is {given!r:.80}, expected a number; "
            "name a column of numbers, larger for harder"
        )
    return number
