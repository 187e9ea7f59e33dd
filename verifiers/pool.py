"""Verification in processes that can be killed: nothing a model writes stalls or harms a run."""

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import TracebackType
from typing import Any

from llmalign.verifiers import VERIFIERS, GoldError, Judgement, Verdict
from llmalign.verifiers.jobs import Call, Job, Pace, Queue, done, encode, failed, settle
from llmalign.verifiers.process import Gone, WorkerProcess
from llmalign.verifiers.worker import OUT_OF_MEMORY

Case = tuple[str, Any, Mapping[str, Any]]  # text, gold, options

_MAX_REASONS = 50
_BREATH = 64  # pairs taken in before an event loop may do something else


@dataclass
class PoolStats:
    """What a pool did since it was opened.

    ``judged`` counts judgements by a worker, ``hits`` those that were remembered; ``killed``
    processes that were ended for what they did (time, memory), ``restarted`` those started in
    place of one that was gone; ``undecided`` counts judgements by the first words of their reason;
    ``seconds`` is the wall time of all judgements by a worker, added up.
    """

    judged: int = 0
    hits: int = 0
    killed: int = 0
    restarted: int = 0
    undecided: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class VerifierPool:
    """Warm worker processes, each killed and replaced when one judgement takes too long.

    Safe to use from any thread and any event loop, several callers at once. Judgements are
    remembered, save the undecided ones. A fork of this process cannot use the pool.

    Args:
        workers: number of processes, > 0; they start at once, in the background.
        timeout_s: wall time one judgement may take, in seconds; its worker is then killed. A
            verifier whose trait ``budget_s`` names a longer time for a gold gets that.
        memory_mb: address space of a worker, in MiB.
        max_pending: requests that may wait for a worker, > 0; callers with more wait in turn.
        cache_size: judgements that are remembered, >= 0.
    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        workers: int,
        timeout_s: float = 5.0,
        memory_mb: int = 2048,
        *,
        max_pending: int = 1024,
        cache_size: int = 20_000,
    ) -> None:
        given = {"workers": workers, "timeout_s": timeout_s, "memory_mb": memory_mb}
        for name, value in (given | {"max_pending": max_pending}).items():
            if value <= 0:
                raise ValueError(f"{name} is {value}, expected > 0")
        if cache_size < 0:
            raise ValueError(f"cache_size is {cache_size}, expected >= 0")
        self._timeout_s = timeout_s
        self._pid = os.getpid()
        self._queue = Queue(max_pending)
        self._cache: OrderedDict[bytes, Judgement] = OrderedDict()
        self._cache_size = cache_size
        self._paces: dict[str, Pace] = {}
        self._lock = threading.Lock()
        self._stats, self._undecided = PoolStats(), Counter[str]()
        self._closed = False
        self._workers = [WorkerProcess(memory_mb) for _ in range(workers)]
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), daemon=True, name="verifier")
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()
        _POOLS.add(self)

    def judge_many(
        self, kind: str, pairs: Sequence[tuple[str, Any]], options: Mapping[str, Any] | None = None
    ) -> list[Judgement]:
        """Judgements of (text, gold) pairs, in order. Time-out, crash and lack of memory are
        UNDECIDED, and ``why`` says which.

        Args:
            kind: a registered verifier, or ``pkg.mod:function`` of your own, called as
                ``function(text, gold, **options)`` in a worker.
            pairs: golds must be JSON values.
            options: keyword arguments of the verifier, JSON values.
        Raises:
            ValueError: the verifier is unknown, cannot be imported, or does not take the options.
            GoldError: a gold cannot be read.
            RuntimeError: no worker starts, the verifier finds the machine unfit, the pool is
                closed, or this process is a fork of the one that opened it.
        """
        call = self._call(kind)
        with call:
            for wait in self._feed(call, [(text, gold, options or {}) for text, gold in pairs]):
                wait.result()
            return [future.result() for future in call.futures]

    async def ajudge_many(
        self, kind: str, pairs: Sequence[tuple[str, Any]], options: Mapping[str, Any] | None = None
    ) -> list[Judgement]:
        """The same as ``judge_many`` without ever blocking the event loop.

        Cancelling it takes back what no worker has begun.
        """
        call = self._call(kind)
        with call:
            for wait in self._feed(call, [(text, gold, options or {}) for text, gold in pairs]):
                await (asyncio.sleep(0) if wait.done() else asyncio.wrap_future(wait))
            return [
                future.result() if future.done() else await asyncio.wrap_future(future)
                for future in call.futures
            ]

    def judge_each(self, kind: str, cases: Iterable[Case]) -> Iterator[Judgement | GoldError]:
        """What became of each (text, gold, options), in order and as soon as it is known.

        Unlike ``judge_many``, a gold that cannot be read is an outcome here, and each case has
        options of its own.
        """
        call = self._call(kind)
        given = 0
        with call:
            for wait in self._feed(call, cases):
                while given < len(call.futures) and call.futures[given].done():
                    yield _outcome(call.futures[given])
                    given += 1
                wait.result()
            for future in call.futures[given:]:
                yield _outcome(future)

    def stats(self) -> PoolStats:
        """Counts since the pool was opened."""
        with self._lock:
            restarted = sum(max(0, worker.num_starts - 1) for worker in self._workers)
            return replace(self._stats, restarted=restarted, undecided=dict(self._undecided))

    def close(self) -> None:
        """Kills all workers; judgements under way raise RuntimeError. Nothing in a fork."""
        if os.getpid() != self._pid:
            return
        self._closed = True
        for job in self._queue.close():
            settle(job.future, RuntimeError("the verifier pool is closed"))
        for worker in self._workers:
            worker.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- the caller's side ------------------------------------------------------------------------

    def _call(self, kind: str) -> "Call":
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this verifier pool belongs to process {self._pid}, and {os.getpid()} is a fork "
                "of it; open a pool in each process, after the fork"
            )
        if self._closed:
            raise RuntimeError("the verifier pool is closed; open a new one")
        traits = VERIFIERS.get(kind, "verifier").traits if ":" not in kind else {}
        return Call(kind, traits, self._paces.setdefault(kind, Pace()))

    def _feed(self, call: "Call", cases: Iterable[Case]) -> Iterator["Future[None]"]:
        """Puts a case after another into the queue; gives what to wait for while it is full."""
        own: dict[bytes, Future[Judgement]] = {}
        for number, (text, gold, options) in enumerate(cases, 1):
            if call.failed is not None:
                break  # the jobs before this one raise it
            load = call.load(options)
            try:
                message = encode(call.kind, text, gold, options)
                limit_s = self._limit_s(call, gold, options)
            except GoldError as error:
                call.futures.append(failed(error))
                continue
            key = blake2b(message, digest_size=16).digest() if self._cache_size else b""
            future = own.get(key) or self._known(key)
            if future is None:
                job = Job(call, key, message, load, limit_s)
                while not self._queue.offer(job):
                    yield self._queue.room()
                future = job.future
                if key:
                    own[key] = future
            call.futures.append(future)
            if number % _BREATH == 0:
                yield done(None)

    def _known(self, key: bytes) -> "Future[Judgement] | None":
        with self._lock:
            if not key or key not in self._cache:
                return None
            self._cache.move_to_end(key)
            self._stats.hits += 1
            return done(replace(self._cache[key], seconds=0.0))

    def _limit_s(self, call: Call, gold: Any, options: Mapping[str, Any]) -> float:
        budget_s = call.traits.get("budget_s")
        return max(self._timeout_s, budget_s(gold, options)) if budget_s else self._timeout_s

    # -- the workers' side ------------------------------------------------------------------------

    def _serve(self, worker: WorkerProcess) -> None:
        # The guard is told when the thread that started it ends, so this thread does both.
        with contextlib.suppress(RuntimeError):  # tried again, and reported, with the first job
            worker.start()
        while jobs := self._queue.take(len(self._workers)):
            rest = deque(job for job in jobs if job.begin())
            while rest:
                self._work(worker, rest)
        worker.tidy()

    def _work(self, worker: WorkerProcess, jobs: deque[Job]) -> None:
        """Has jobs judged until none is left or the process is gone; never raises."""
        try:
            worker.start()
            worker.load(jobs[0].load)
        except Exception as error:  # noqa: BLE001  (raised again in the caller's thread)
            jobs[0].call.failed = error  # so that its other jobs need not try
            settle(jobs.popleft().future, error)
            return
        began = time.perf_counter()
        try:
            worker.send([job.message for job in jobs], jobs[0].limit_s)
            while jobs:
                began = time.perf_counter()
                outcome = _read_answer(worker.receive(jobs[0].limit_s))
                self._answered(jobs.popleft(), *outcome)
                if isinstance(outcome[0], Judgement) and outcome[0].why == OUT_OF_MEMORY:
                    worker.tidy()  # whatever it still holds goes with it
                    self._count_kill()
                    return
        except Gone as gone:
            self._gone(worker, jobs.popleft(), gone, time.perf_counter() - began)

    def _gone(self, worker: WorkerProcess, job: Job, gone: Gone, seconds: float) -> None:
        try:
            why = worker.end(gone, job.limit_s)
        except RuntimeError as closed:
            settle(job.future, closed)
            return
        if gone.timed_out:
            self._count_kill()
        self._remember(job, Judgement(Verdict.UNDECIDED, None, why, seconds))

    def _answered(self, job: Job, outcome: Judgement | GoldError, seconds: float) -> None:
        job.call.pace.note(seconds)
        if isinstance(outcome, GoldError):
            settle(job.future, outcome)
        else:
            self._remember(job, outcome)

    def _remember(self, job: Job, judgement: Judgement) -> None:
        with self._lock:
            self._stats.judged += 1
            self._stats.seconds += judgement.seconds
            if judgement.verdict is Verdict.UNDECIDED:
                reason = judgement.why.partition(":")[0].partition(" after ")[0][:60]
                known = reason in self._undecided or len(self._undecided) < _MAX_REASONS
                self._undecided[reason if known else "other"] += 1
            elif self._cache_size:
                self._cache[job.key] = judgement
                if len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
        settle(job.future, judgement)

    def _count_kill(self) -> None:
        with self._lock:
            self._stats.killed += 1

    def _disown(self) -> None:
        for worker in self._workers:
            worker.let_go()


_POOLS: "weakref.WeakSet[VerifierPool]" = weakref.WeakSet()


def _after_fork() -> None:
    for pool in _POOLS:
        pool._disown()


os.register_at_fork(after_in_child=_after_fork)


def _outcome(future: "Future[Judgement]") -> Judgement | GoldError:
    try:
        return future.result()
    except GoldError as error:
        return error


def _read_answer(found: Mapping[str, Any]) -> tuple[Judgement | GoldError, float]:
    """A worker's answer and its seconds; raises Gone where it makes no sense."""
    try:
        seconds = float(found["seconds"])
        if "gold_error" in found:
            return GoldError(found["gold_error"]), seconds
        verdict = Verdict(found["verdict"])
        return Judgement(verdict, found["answer"], found["why"], seconds), seconds
    except (KeyError, TypeError, ValueError):
        raise Gone(timed_out=False) from None
