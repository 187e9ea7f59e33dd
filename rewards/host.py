"""Runs a reward: owns the worker processes, scores while others generate, and keeps counts."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from llmalign.rewards.base import Group, Problem, Reward, Score, Services
from llmalign.verifiers import GoldError, Judgement, Verdict
from llmalign.verifiers.pool import VerifierPool

NUM_SLOWEST = 5


@dataclass
class HostStats:
    """What scoring cost since the last look.

    ``seconds`` is the wall time of all calls added up, more than the clock's where they overlap.
    ``slowest`` lists (problem id, sample index, seconds of its judgement), slowest first.
    """

    samples: int = 0
    undecided: int = 0
    not_scorable: int = 0
    seconds: float = 0.0
    slowest: list[tuple[str, int, float]] = field(default_factory=list)


class RewardHost:
    """Scores groups with a reward and lends it what it needs.

    Args:
        reward: the reward tree; bound here.
        workers: verifier processes, > 0; they start with the first judgement.
        timeout_s: wall time one judgement may take, in seconds.
    """

    def __init__(self, reward: Reward, *, workers: int = 2, timeout_s: float = 5.0) -> None:
        self.reward = reward
        self._workers, self._timeout_s = workers, timeout_s
        self._pool: VerifierPool | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max(4, workers), thread_name_prefix="reward")
        self._stats = HostStats()
        reward.bind(Services(verify=self._verify))

    def check(self, problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
        """The problems this reward could never score, each with the reason."""
        bad = []
        for problem in problems:
            try:
                self.reward.check(problem)
            except GoldError as error:
                bad.append((problem, str(error)))
        return bad

    def submit(self, group: Group) -> "Future[list[Score]]":
        """Scores one group in the background, beside other groups."""
        return self._threads.submit(lambda: self.score([group])[0])

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """One list of scores per group, in order; from any thread."""
        began = time.perf_counter()
        scores = self.reward.score(groups)
        self._count(groups, scores, time.perf_counter() - began)
        return scores

    def stats(self) -> HostStats:
        """Counts since the last call; they start again at zero."""
        with self._lock:
            stats, self._stats = self._stats, HostStats()
        return stats

    def close(self) -> None:
        """Ends threads and worker processes; groups under way fail."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _verify(
        self, kind: str, pairs: Sequence[tuple[str, Any]], options: Mapping[str, Any]
    ) -> list[Judgement]:
        with self._lock:
            if self._closed:
                raise RuntimeError("the reward host is closed; open a new one")
            if self._pool is None:
                self._pool = VerifierPool(self._workers, self._timeout_s)
            pool = self._pool
        return pool.judge_many(kind, pairs, options)

    def _count(
        self, groups: Sequence[Group], scores: Sequence[Sequence[Score]], seconds: float
    ) -> None:
        with self._lock:
            stats = self._stats
            stats.seconds += seconds
            for group, group_scores in zip(groups, scores, strict=True):
                for index, score in enumerate(group_scores):
                    stats.samples += 1
                    stats.not_scorable += score.value is None
                    if judgement := score.judgement:
                        stats.undecided += judgement.verdict is Verdict.UNDECIDED
                        stats.slowest.append((group.problem.id, index, judgement.seconds))
            stats.slowest = sorted(stats.slowest, key=lambda s: -s[2])[:NUM_SLOWEST]
