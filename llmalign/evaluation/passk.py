"""Evaluation statistics: pass@k, majority@k and bootstrap intervals over problems.

Letters: ``P`` problems, ``n`` decided samples of one problem, ``c`` right ones among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ProblemRecord:
    """All samples of one evaluation problem, one entry per sample in every field but the first.

    Attributes:
        problem_id: name of the problem.
        answers: extracted answers in normal form; None where the completion holds none.
        right: whether the verifier accepted; not read where ``undecided``.
        undecided: whether the verifier could not tell; such a sample is neither right nor wrong.
        tokens: lengths in tokens.
        truncated: whether the token limit cut the completion off.
    """

    problem_id: str
    answers: Sequence[str | None]
    right: Sequence[bool]
    undecided: Sequence[bool]
    tokens: Sequence[int]
    truncated: Sequence[bool]

    def __post_init__(self) -> None:
        for name in ("right", "undecided", "tokens", "truncated"):
            if len(getattr(self, name)) != len(self.answers):
                raise ValueError(
                    f"{name} of problem {repr(self.problem_id)[:80]} has "
                    f"{len(getattr(self, name))} entries, expected {len(self.answers)} like answers"
                )


def pass_at_k(num_right: int, num_samples: int, k: int) -> float:
    """Chance that at least one of ``k`` samples is right; unbiased in ``num_samples`` >= k draws.

        1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n-c+1..n} (1 - k / i)

    Raises: ValueError: k is not in 1..n, or c not in 0..n.
    Source: Chen et al. 2021, arXiv:2107.03374, eq. 1.
    """
    _check_k(k, num_samples)
    if not 0 <= num_right <= num_samples:
        raise ValueError(f"num_right is {num_right}, expected 0 to num_samples = {num_samples}")
    num_other = num_samples - num_right
    if num_other < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(num_other + 1, num_samples + 1)))


def majority_at_k(
    answers: Sequence[str | None],
    right: Sequence[bool],
    k: int,
    *,
    draws: int,
    seed: int | list[int],
) -> float:
    """Expected correctness of the most frequent answer among ``k`` samples of one problem.

    Samples are drawn without replacement: exact for k = n, else the mean over ``draws`` seeded
    draws. None does not vote; where nobody votes the result is 0. A tie counts the share of the
    tied answers that is right (an answer's correctness is the mean over its drawn samples).

    Raises: ValueError: lengths differ, k is not in 1..n, or draws < 1.
    Source: Wang et al. 2022 (self-consistency), arXiv:2203.11171.
    """
    if len(answers) != len(right):
        raise ValueError(f"right has {len(right)} entries, expected {len(answers)} like answers")
    _check_k(k, len(answers))
    if k == len(answers):
        return _vote(answers, right, range(k))
    if draws < 1:
        raise ValueError(f"draws is {draws}, expected at least 1")
    rng = np.random.default_rng(seed)
    chosen = (rng.choice(len(answers), size=k, replace=False).tolist() for _ in range(draws))
    return float(np.mean([_vote(answers, right, picks) for picks in chosen]))


def bootstrap_interval(
    value_per_problem: np.ndarray, *, draws: int = 2000, level: float = 0.95, seed: int
) -> tuple[float, float]:
    """Percentile bootstrap interval (lo, hi) of the mean over problems, resampling problems.

    Args:
        value_per_problem: shape (P,), P >= 1, finite.
        draws: number of resamples.
        level: share of the resampled means inside the interval, in (0, 1).
        seed: of the resampling.
    Raises: ValueError: the array is empty, not 1-d or not finite, or level lies outside (0, 1).
    Source: Efron 1979, The Annals of Statistics 7(1), the bootstrap; percentile method.
    """
    values_P = np.asarray(value_per_problem, dtype=np.float64)
    if values_P.ndim != 1 or not values_P.size or not np.isfinite(values_P).all():
        raise ValueError(
            f"value_per_problem has shape {values_P.shape}, expected finite values of shape (P,) "
            "with P >= 1; leave out problems without a value"
        )
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a share between 0 and 1")
    rng = np.random.default_rng(seed)
    # One resample at a time: memory stays O(P) for large benchmarks.
    means = [values_P[rng.integers(values_P.size, size=values_P.size)].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summarize(
    records: Sequence[ProblemRecord], ks: Sequence[int], *, draws: int = 100, seed: int = 0
) -> dict[str, Any]:
    """The figures of one evaluation, ready for JSON.

    Undecided samples are left out of pass@k and maj@k and counted; problems with no decided sample
    are left out and counted, and a problem with fewer than k decided samples is left out of that
    k alone. Lengths are over all samples.

    Args:
        records: one per problem.
        ks: the k of pass@k and maj@k; none may exceed the samples drawn of any problem.
        draws: draws per problem for maj@k where k < n.
        seed: of those draws and of the 95 % bootstrap intervals.
    Returns: ``problems`` (kept), ``problems_left_out``, ``samples`` (decided, in total),
        ``undecided``, ``pass@1``, ``ci``, ``pass@k`` and ``maj@k`` {str(k): value}, their
        ``_ci`` {str(k): [lo, hi]}, ``distinct_answers`` (a mean over problems),
        ``truncated_share``, ``tokens_mean``; None for what no sample says anything about.
    Raises: ValueError: a k is larger than the number of samples of a problem.
    """
    decided = [pair for record in records if (pair := _decided(record))[0]]
    _check_ks(ks, records)
    tables: dict[str, dict[str, Any]] = {"pass@k": {}, "pass@k_ci": {}, "maj@k": {}, "maj@k_ci": {}}
    for k in ks:
        enough = [(i, pair) for i, pair in enumerate(decided) if len(pair[1]) >= k]
        passed = [pass_at_k(sum(right), len(right), k) for _, (_, right) in enough]
        # A stream of its own for every problem, or all would be judged on the same picks.
        voted = [majority_at_k(*pair, k, draws=draws, seed=[seed, i]) for i, pair in enough]
        tables["pass@k"][str(k)], tables["pass@k_ci"][str(k)] = _mean_and_interval(passed, seed)
        tables["maj@k"][str(k)], tables["maj@k_ci"][str(k)] = _mean_and_interval(voted, seed)
    pass_1, interval = _mean_and_interval([sum(right) / len(right) for _, right in decided], seed)
    return {
        "problems": len(decided),
        "problems_left_out": len(records) - len(decided),
        "samples": sum(len(right) for _, right in decided),
        "undecided": sum(sum(record.undecided) for record in records),
        "pass@1": pass_1,
        "ci": interval,
        **tables,
        "distinct_answers": _mean([float(len({*a} - {None})) for a, _ in decided]),
        "truncated_share": _mean([t for record in records for t in record.truncated]),
        "tokens_mean": _mean([t for record in records for t in record.tokens]),
    }


def _vote(answers: Sequence[str | None], right: Sequence[bool], picks: Sequence[int]) -> float:
    ballots: dict[str, list[bool]] = {}
    for i in picks:
        answer = answers[i]
        if answer is not None:
            ballots.setdefault(answer, []).append(bool(right[i]))
    most = max(map(len, ballots.values()), default=0)
    tied = [sum(marks) / most for marks in ballots.values() if len(marks) == most]
    return sum(tied) / len(tied) if tied else 0.0


def _decided(record: ProblemRecord) -> tuple[list[str | None], list[bool]]:
    kept = [i for i, undecided in enumerate(record.undecided) if not undecided]
    return [record.answers[i] for i in kept], [bool(record.right[i]) for i in kept]


def _check_k(k: int, num_samples: int) -> None:
    if not 1 <= k <= num_samples:
        raise ValueError(f"k is {k}, expected 1 to {num_samples}, the number of samples; draw more")


def _check_ks(ks: Sequence[int], records: Sequence[ProblemRecord]) -> None:
    smallest = min(records, key=lambda record: len(record.answers), default=None)
    for k in ks:
        if k < 1 or (smallest is not None and k > len(smallest.answers)):
            drawn = len(smallest.answers) if smallest is not None else "the samples drawn"
            name = repr(smallest.problem_id)[:80] if smallest is not None else "none"
            raise ValueError(
                f"ks has {k}, expected 1 to {drawn}, the smallest number of samples of a problem "
                f"({name}); take a smaller k or draw more samples"
            )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _mean_and_interval(values: list[float], seed: int) -> tuple[float | None, list[float] | None]:
    if not values:
        return None, None
    return _mean(values), list(bootstrap_interval(np.array(values), seed=seed))
