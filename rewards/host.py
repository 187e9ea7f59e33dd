"""Runs a reward: owns the worker processes, scores while others generate, and keeps counts."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from llmalign.rewards.base import (
    EmbedTokens,
    Group,
    Judge,
    Problem,
    Reward,
    Score,
    Scorer,
    Services,
)
from llmalign.rewards.node import (
    load_tree_state,
    needs_whole_batch,
    scores_of,
    tree_state,
    walk,
)
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
    why: Counter[str] = field(default_factory=Counter)  # reasons of what is undecided


class RewardHost:
    """Scores groups with a reward and lends it what it needs.

    Args:
        reward: the reward tree; bound here.
        workers: verifier processes, > 0; they start with the first judgement.
        timeout_s: wall time one judgement may take, in seconds.
        memory_mb: address space of one worker, in MiB.
        max_undecided: share of samples, in [0, 1], that may be undecided in one look at ``stats``;
            above it ``stats`` raises, because then the checker is at fault, not the policy.
        policy, frozen, judge, open_model, embed_tokens: services for rewards that need them.
    Raises:
        ValueError: the tree needs a service that is not given.
    """

    def __init__(
        self,
        reward: Reward,
        *,
        workers: int = 2,
        timeout_s: float = 5.0,
        memory_mb: int = 2048,
        max_undecided: float = 1.0,
        policy: Scorer | None = None,
        frozen: Scorer | None = None,
        judge: Judge | None = None,
        open_model: Callable[[str], Scorer] | None = None,
        embed_tokens: EmbedTokens | None = None,
    ) -> None:
        self.reward = reward
        self.step = 0  # number of optimizer steps done, told by the loop
        self._max_undecided = max_undecided
        self._judge = judge
        self._waiting: list[tuple[Group, Future[list[Score]]]] = []
        _refuse_missing(reward, policy, frozen, judge, embed_tokens)
        self._workers, self._timeout_s, self._memory_mb = workers, timeout_s, memory_mb
        self._pool: VerifierPool | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max(4, workers), thread_name_prefix="reward")
        self._stats = HostStats()
        reward.bind(
            Services(
                self._verify,
                policy,
                frozen,
                judge,
                step=lambda: self.step,
                open_model=open_model,
                embed_tokens=embed_tokens,
            )
        )

    @property
    def after_generation(self) -> bool:
        """Whether groups are scored together once all are there: a node compares problems, or a
        reward (or the judge) runs where the policy does, which is busy before."""
        needs = {node.need for node in walk(self.reward)}
        return (
            needs_whole_batch(self.reward)
            or bool(needs & {"policy_logprobs", "frozen_logprobs"})
            or getattr(self._judge, "on_device", False)
        )

    def state_dict(self) -> dict[str, Any]:
        """What the rewards remember between steps, JSON values."""
        return tree_state(self.reward)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state_dict`` returned."""
        load_tree_state(self.reward, state)

    def check(self, problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
        """The problems this reward could never score, each with the reason."""
        return never_scorable(self.reward, problems)

    def submit(self, group: Group) -> "Future[list[Score]]":
        """Scores one group in the background, beside other groups; with ``after_generation`` not
        before ``flush``."""
        if not self.after_generation:
            return self._threads.submit(lambda: self.score([group])[0])
        future: Future[list[Score]] = Future()
        with self._lock:
            self._waiting.append((group, future))
        return future

    def flush(self) -> None:
        """All groups are there: scores those that had to wait, together."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if waiting:
            scores = self.score([group for group, _ in waiting])
            for (_, future), one in zip(waiting, scores, strict=True):
                future.set_result(one)

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """One list of scores per group, in order; from any thread."""
        began = time.perf_counter()
        scores = scores_of(self.reward, groups)
        self._count(groups, scores, time.perf_counter() - began)
        return scores

    def stats(self) -> HostStats:
        """Counts since the last call; they start again at zero.

        Raises:
            RuntimeError: more samples were undecided than ``max_undecided`` allows.
        """
        with self._lock:
            stats, self._stats = self._stats, HostStats()
        if stats.undecided > self._max_undecided * stats.samples:
            reason, count = stats.why.most_common(1)[0]
            raise RuntimeError(
                f"{stats.undecided} of {stats.samples} samples are undecided, more than the share "
                f"of {self._max_undecided:g} that reward_host.max_undecided allows; {count} times "
                f"because: {reason}; mend the reward, or raise reward_host.timeout_s"
            )
        return stats

    def close(self) -> None:
        """Ends threads and worker processes; groups under way fail."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._judge is not None and hasattr(self._judge, "close"):
            self._judge.close()

    def _verify(
        self, kind: str, pairs: Sequence[tuple[str, Any]], options: Mapping[str, Any]
    ) -> list[Judgement]:
        with self._lock:
            if self._closed:
                raise RuntimeError("the reward host is closed; open a new one")
            if self._pool is None:
                self._pool = VerifierPool(self._workers, self._timeout_s, self._memory_mb)
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
                    judgement = score.judgement
                    if judgement is not None and judgement.verdict is Verdict.UNDECIDED:
                        stats.undecided += 1
                        stats.why[score.note or judgement.why] += 1
                    seconds = max(score.seconds, judgement.seconds if judgement else 0.0)
                    if judgement is not None or seconds:
                        stats.slowest.append((group.problem.id, index, seconds))
            stats.slowest = sorted(stats.slowest, key=lambda s: -s[2])[:NUM_SLOWEST]


def never_scorable(reward: Reward, problems: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """The problems that a reward could never score, each with the reason; nothing is started."""
    bad = []
    for problem in problems:
        try:
            reward.check(problem)
        except GoldError as error:
            bad.append((problem, str(error)))
    return bad


def _refuse_missing(
    reward: Reward,
    policy: Scorer | None,
    frozen: Scorer | None,
    judge: Judge | None,
    embed_tokens: EmbedTokens | None,
) -> None:
    given = {
        "policy_logprobs": policy,
        "frozen_logprobs": frozen,
        "frozen_embeddings": embed_tokens,
        "judge": judge,
    }
    for node in walk(reward):
        if given.get(node.need, True) is None:
            raise ValueError(
                f"reward {node.name!r} needs {node.need}, which this host was not given; "
                "a training run gives what needs a model, a judge block the judge"
            )
