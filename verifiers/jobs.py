"""What waits in a verifier pool: a caller's jobs, and the bounded queue they stand in."""

import contextlib
import json
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from llmalign.verifiers import VERIFIERS, GoldError, Judgement

_MAX_BATCH = 64  # requests on their way to one worker
_BATCH_S = 0.01  # what a batch may be expected to take
_BATCH_BYTES = 32_768  # fits an empty pipe, so that writing never waits for an answer to be read


class Pace:
    """What a judgement of one kind takes, as a moving mean; None before the first."""

    def __init__(self) -> None:
        self.seconds: float | None = None

    def note(self, seconds: float) -> None:
        """Takes note of what a judgement took."""
        self.seconds = seconds if self.seconds is None else 0.8 * self.seconds + 0.2 * seconds

    def allows(self, count: int) -> bool:
        """Whether so many in a row are expected to be done at once."""
        return self.seconds is not None and self.seconds * count <= _BATCH_S


class Call:
    """One caller's jobs; leaving it takes back what no worker has begun."""

    def __init__(self, kind: str, traits: Mapping[str, Any], pace: Pace) -> None:
        self.kind, self.traits, self.pace = kind, traits, pace
        self.futures: list[Future[Judgement]] = []
        self.failed: Exception | None = None
        self._loads: dict[str, bytes] = {}

    def load(self, options: Mapping[str, Any]) -> bytes:
        """The message that has the verifier loaded with these options, which are checked."""
        if (known := self._loads.get(repr(options))) is not None:
            return known
        if ":" not in self.kind:
            VERIFIERS.get(self.kind, "verifier").resolve(options, f"verifier.{self.kind}")
        try:
            message = json.dumps({"load": self.kind, "options": dict(options)}, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise ValueError(f"options of {self.kind!r} must be JSON values: {error}") from None
        return self._loads.setdefault(repr(options), message.encode())

    def __enter__(self) -> "Call":
        return self

    def __exit__(self, *_: object) -> None:
        for future in self.futures:
            future.cancel()


@dataclass
class Job:
    call: Call
    key: bytes
    message: bytes
    load: bytes
    limit_s: float
    future: "Future[Judgement]" = field(default_factory=Future)

    def begin(self) -> bool:
        """Whether this job is still wanted; from here on it cannot be taken back."""
        if not self.future.set_running_or_notify_cancel():
            return False
        if self.call.failed is not None:
            settle(self.future, self.call.failed)
        return self.call.failed is None

    def is_like(self, other: "Job") -> bool:
        """Of the same call and with the same options."""
        return self.call is other.call and self.load == other.load


class Queue:
    """Jobs that wait for a worker, at most ``limit``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: deque[Job] = deque()
        self._ready = threading.Condition()
        self._waiting: list[Future[None]] = []
        self._closed = False

    def offer(self, job: Job) -> bool:
        """Takes the job unless full; raises RuntimeError once closed."""
        with self._ready:
            if self._closed:
                raise RuntimeError("the verifier pool is closed")
            if len(self._jobs) >= self._limit:
                return False
            self._jobs.append(job)
            self._ready.notify()
            return True

    def room(self) -> "Future[None]":
        """Done once offering is worth another try: half of the queue is free, or it is closed."""
        with self._ready:
            if self._closed or len(self._jobs) < self._limit:
                return done(None)
            self._waiting.append(Future())
            return self._waiting[-1]

    def take(self, workers: int) -> list[Job]:
        """The next job, with those of the same call behind it where they are cheap, up to a fair
        share among ``workers``; waits for one. Empty once closed."""
        with self._ready:
            while not self._jobs and not self._closed:
                self._ready.wait()
            if not self._jobs:
                return []
            first = self._jobs.popleft()
            jobs, size = [first], len(first.message)
            most = min(_MAX_BATCH, 1 + len(self._jobs) // workers)
            if not first.call.pace.allows(most):
                most = 1
            # Another call's jobs stay behind: they need not wait for what may hang in this one.
            while len(jobs) < most and self._jobs[0].is_like(first):
                size += len(self._jobs[0].message)
                if size > _BATCH_BYTES:
                    break
                jobs.append(self._jobs.popleft())
            self._make_room()
            return jobs

    def close(self) -> list[Job]:
        """Ends all waiting; returns the jobs that nobody took."""
        with self._ready:
            self._closed = True
            left = list(self._jobs)
            self._jobs.clear()
            self._ready.notify_all()
            self._make_room()
            return left

    def _make_room(self) -> None:
        if len(self._jobs) <= self._limit // 2:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                settle(future, None)


def encode(kind: str, text: str, gold: Any, options: Mapping[str, Any]) -> bytes:
    """A request as a worker reads it; raises GoldError where the gold is no JSON value."""
    try:
        request = {"kind": kind, "text": text, "gold": gold, "options": dict(options)}
        return json.dumps(request, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise GoldError(f"gold is {repr(gold)[:80]}, expected a JSON value: {error}") from None


def done(result: Any) -> "Future[Any]":
    """A future that has its result."""
    future: Future[Any] = Future()
    future.set_result(result)
    return future


def failed(error: Exception) -> "Future[Any]":
    """A future that raises."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def settle(future: "Future[Any]", outcome: Any) -> None:
    """Gives a future its result or, where the outcome is an exception, that; once."""
    with contextlib.suppress(InvalidStateError):  # cancelled
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
