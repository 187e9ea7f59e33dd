"""Verification in processes that can be killed: nothing a model writes stalls or harms a run."""

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from hashlib import blake2b
from types import TracebackType
from typing import Any, BinaryIO

from llmalign.verifiers import VERIFIERS, GoldError, Judgement, Verdict
from llmalign.verifiers.worker import OUT_OF_MEMORY

START_TIMEOUT_S = 120.0  # of an interpreter, or of a verifier's imports, on a busy machine
CACHE_SIZE = 20_000  # judgements


class VerifierPool:
    """Warm worker processes, each killed and replaced when one judgement takes too long.

    Safe to use from any thread, several callers at once. Judgements are remembered, save the
    undecided ones.

    Args:
        workers: number of processes, > 0; they start at once, in the background.
        timeout_s: wall time one judgement may take, in seconds; its worker is then killed.
        memory_mb: address space of a worker, in MiB.
    Raises:
        ValueError: an argument is not positive.
    """

    def __init__(self, workers: int, timeout_s: float = 5.0, memory_mb: int = 2048) -> None:
        given = {"workers": workers, "timeout_s": timeout_s, "memory_mb": memory_mb}
        for name, value in given.items():
            if value <= 0:
                raise ValueError(f"{name} is {value}, expected > 0")
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._cache: OrderedDict[bytes, Judgement] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False
        self._workers = [_Worker(timeout_s, memory_mb) for _ in range(workers)]
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), daemon=True, name="verifier")
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

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
            RuntimeError: no worker starts, or the pool is closed.
        """
        options = dict(options or {})
        if ":" not in kind:
            VERIFIERS.get(kind, "verifier").resolve(options, f"verifier.{kind}")
        messages = [_request(kind, text, gold, options) for text, gold in pairs]
        keys = [blake2b(message, digest_size=16).digest() for message in messages]
        load = json.dumps({"load": kind, "options": options}, sort_keys=True).encode()
        known, jobs = self._enqueue(dict(zip(keys, messages, strict=True)), load)
        known |= {key: job.future.result() for key, job in jobs.items()}
        return [known[key] for key in keys]

    def close(self) -> None:
        """Kills all workers; judgements under way raise RuntimeError."""
        with self._lock:
            self._closed = True
        for _ in self._workers:
            self._jobs.put(None)
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

    def _enqueue(
        self, messages: Mapping[bytes, bytes], load: bytes
    ) -> tuple[dict[bytes, Judgement], dict[bytes, "_Job"]]:
        """What is known already, and a job for each of the others; equal pairs are one job."""
        known, jobs = {}, {}
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier pool is closed; open a new one")
            for key, message in messages.items():
                if key in self._cache:
                    self._cache.move_to_end(key)
                    known[key] = replace(self._cache[key], seconds=0.0)
                else:
                    jobs[key] = _Job(key, message, load, Future())
                    self._jobs.put(jobs[key])
        return known, jobs

    def _serve(self, worker: "_Worker") -> None:
        # The process dies with the thread that started it, so this thread does both.
        with contextlib.suppress(RuntimeError):  # tried again, and reported, with the first job
            worker.start()
        while (job := self._jobs.get()) is not None:
            try:
                judgement = worker.judge(job.load, job.message)
            except Exception as error:  # noqa: BLE001  (raised again in the caller's thread)
                job.future.set_exception(error)
                continue
            if judgement.verdict is not Verdict.UNDECIDED:
                self._remember(job.key, judgement)
            job.future.set_result(judgement)
        worker.tidy()
        self._refuse_the_rest()

    def _remember(self, key: bytes, judgement: Judgement) -> None:
        with self._lock:
            self._cache[key] = judgement
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)

    def _refuse_the_rest(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is None:
                    self._jobs.put(None)  # for another thread
                    return
                job.future.set_exception(RuntimeError("the verifier pool is closed"))


@dataclass(frozen=True)
class _Job:
    key: bytes
    message: bytes
    load: bytes
    future: "Future[Judgement]"


def _request(kind: str, text: str, gold: Any, options: Mapping[str, Any]) -> bytes:
    try:
        request = {"kind": kind, "text": text, "gold": gold, "options": options}
        return json.dumps(request, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise GoldError(f"gold is {repr(gold)[:80]}, expected a JSON value: {error}") from None


class _Gone(Exception):
    """The process ended, or did not answer in time (``timed_out``)."""

    def __init__(self, timed_out: bool) -> None:
        super().__init__()
        self.timed_out = timed_out


class _Worker:
    """One process and its pipes; used by a single thread, save ``close``."""

    def __init__(self, timeout_s: float, memory_mb: int) -> None:
        self._timeout_s, self._memory_mb = timeout_s, memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: set[bytes] = set()
        self._lock = threading.Lock()
        self._closed = False

    def judge(self, load: bytes, request: bytes) -> Judgement:
        """One judgement; RuntimeError, GoldError and ValueError are the caller's."""
        self.start()
        self._load(load)
        began = time.perf_counter()
        try:
            found = self._exchange(request, self._timeout_s)
        except _Gone as gone:
            why = self._end(gone)
            return Judgement(Verdict.UNDECIDED, None, why, time.perf_counter() - began)
        seconds = time.perf_counter() - began
        if "gold_error" in found:
            raise GoldError(found["gold_error"])
        if found["why"] == OUT_OF_MEMORY:
            self.tidy()  # whatever it still holds goes with it
        return Judgement(Verdict(found["verdict"]), found["answer"], found["why"], seconds)

    def start(self) -> None:
        """Starts the process if none runs; raises RuntimeError where it cannot."""
        if self._process is not None:
            return
        with tempfile.TemporaryFile() as errors:
            try:
                self._spawn(errors)
                setup = json.dumps({"memory_mb": self._memory_mb}).encode()
                self._exchange(setup, START_TIMEOUT_S)
            except (_Gone, OSError) as error:
                how = self._end(error) if isinstance(error, _Gone) else str(error)
                errors.seek(0)
                last = errors.read()[-400:].decode(errors="replace").strip()
                raise RuntimeError(f"a verifier worker cannot start: {how}; {last}") from None

    def close(self) -> None:
        """Kills the process for good; from any thread."""
        with self._lock:
            self._closed = True
            self._signal()  # its own thread tidies up: the pipes may be in use there

    def _spawn(self, errors: BinaryIO) -> None:
        paths = [path or os.getcwd() for path in sys.path]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier pool is closed")
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "llmalign.verifiers.worker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
        self._loaded = set()

    def _load(self, load: bytes) -> None:
        if load in self._loaded:
            return
        try:
            found = self._exchange(load, START_TIMEOUT_S)
        except _Gone as gone:
            how = self._end(gone)
            raise RuntimeError(f"a verifier worker cannot load {load!r:.80}: {how}") from None
        if "fault" in found:
            kind = json.loads(load)["load"]
            raise ValueError(f"verifier {kind!r} cannot be used: {found['fault']}")
        self._loaded.add(load)

    def _exchange(self, body: bytes, timeout_s: float) -> dict[str, Any]:
        """Sends a message and waits for the answer; raises _Gone."""
        process, deadline = self._process, time.monotonic() + timeout_s
        assert process is not None and process.stdin is not None and process.stdout is not None
        rest = memoryview(len(body).to_bytes(4, "big") + body)
        try:
            while rest:
                _wait(process.stdin.fileno(), select.POLLOUT, deadline)
                rest = rest[os.write(process.stdin.fileno(), rest[:65536]) :]
            size = int.from_bytes(_read(process.stdout.fileno(), 4, deadline), "big")
            return json.loads(_read(process.stdout.fileno(), size, deadline))
        except (OSError, ValueError):
            raise _Gone(timed_out=False) from None

    def _end(self, gone: _Gone) -> str:
        """Kills what is left of the process and says in words what happened to it."""
        process = self._process
        assert process is not None
        if not gone.timed_out:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)  # its own exit status tells more than our kill
        code = process.poll()
        self.tidy()
        if self._closed:
            raise RuntimeError("the verifier pool is closed")
        if gone.timed_out:
            return f"timed out after {self._timeout_s:g} s"
        if code is None or code >= 0:
            return f"crashed: exit status {code}"
        return f"crashed: {signal.Signals(-code).name}"

    def tidy(self) -> None:
        """Kills the process and closes its pipes."""
        with self._lock:
            self._signal()
            process, self._process = self._process, None
            if process is None:
                return
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _signal(self) -> None:
        # It leads its own session: what it started goes with it.
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise _Gone(timed_out=True)


def _read(descriptor: int, size: int, deadline: float) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        _wait(descriptor, select.POLLIN, deadline)
        part = os.read(descriptor, min(size - len(parts), 65536))
        if not part:
            raise _Gone(timed_out=False)
        parts += part
    return bytes(parts)
