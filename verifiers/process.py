"""The parent's side of one worker process: starts it, talks to it, kills it in time."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

START_TIMEOUT_S = 120.0  # of an interpreter, or of a verifier's imports, on a busy machine
_GUARD_S = 5.0  # a guard kills its worker within milliseconds; one that does not is stopped itself


class Gone(Exception):
    """The process ended, or did not answer in time (``timed_out``)."""

    def __init__(self, timed_out: bool) -> None:
        super().__init__()
        self.timed_out = timed_out


class WorkerProcess:
    """One process and its pipes; used by a single thread, save ``close``.

    Args:
        memory_mb: its address space, in MiB.
    """

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: set[bytes] = set()
        self._unread = bytearray()
        self._lock = threading.Lock()
        self._closed = False
        self.num_starts = 0

    def start(self) -> None:
        """Starts the process if none runs; raises RuntimeError where it cannot."""
        if self._process is not None:
            return
        with tempfile.TemporaryFile() as errors:
            try:
                self._spawn(errors)
                setup = json.dumps({"memory_mb": self._memory_mb}).encode()
                self._exchange(setup, START_TIMEOUT_S)
            except (Gone, OSError) as error:
                how = self.end(error, START_TIMEOUT_S) if isinstance(error, Gone) else str(error)
                errors.seek(0)
                last = errors.read()[-400:].decode(errors="replace").strip()
                raise RuntimeError(f"a verifier worker cannot start: {how}; {last}") from None
        self.num_starts += 1

    def load(self, message: bytes) -> None:
        """Has a verifier imported and prepared, once.

        Raises:
            ValueError: it cannot be imported or does not take the options.
            RuntimeError: the machine is at fault, or it does not come back.
        """
        if message in self._loaded:
            return
        kind = json.loads(message)["load"]
        try:
            found = self._exchange(message, START_TIMEOUT_S)
        except Gone as gone:
            how = self.end(gone, START_TIMEOUT_S)
            raise RuntimeError(f"a verifier worker cannot load {kind!r}: {how}") from None
        if "fault" in found:
            what = RuntimeError if found["machine"] else ValueError
            raise what(f"verifier {kind!r} cannot be used: {found['fault']}")
        self._loaded.add(message)

    def send(self, messages: Sequence[bytes], timeout_s: float) -> None:
        """Writes requests, to be answered in order; raises Gone."""
        process, deadline = self._process, time.monotonic() + timeout_s
        assert process is not None and process.stdin is not None
        parts = [part for body in messages for part in (len(body).to_bytes(4, "big"), body)]
        rest = memoryview(b"".join(parts))
        try:
            while rest:
                with contextlib.suppress(BlockingIOError):
                    rest = rest[os.write(process.stdin.fileno(), rest[:65536]) :]
                    continue
                _wait(process.stdin.fileno(), select.POLLOUT, deadline)
        except OSError:
            raise Gone(timed_out=False) from None

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """The answer to the oldest request without one; raises Gone."""
        deadline = time.monotonic() + timeout_s
        try:
            size = int.from_bytes(self._read(4, deadline), "big")
            return json.loads(self._read(size, deadline))
        except (OSError, ValueError):
            raise Gone(timed_out=False) from None

    def end(self, gone: Gone, timeout_s: float) -> str:
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
            return f"timed out after {timeout_s:g} s"
        if code is None:
            return "crashed: what it answered makes no sense"
        if code >= 0:
            return f"crashed: exit status {code}"
        return f"crashed: {signal.Signals(-code).name}"

    def tidy(self) -> None:
        """Kills the process with all it started, and closes its pipes."""
        with self._lock:
            process = self._process
            if process is None:
                return
            self._signal(signal.SIGTERM)
            try:
                process.wait(_GUARD_S)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                process.wait()
            self.let_go()

    def close(self) -> None:
        """Has the process killed for good; from any thread. Its own thread tidies up after it,
        because the pipes may be in use there."""
        with self._lock:
            self._closed = True
            self._signal(signal.SIGTERM)

    def let_go(self) -> None:
        """Closes the pipes; the process is another's from now on (after a fork) or has ended."""
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout) if process else ():
            if pipe is not None:
                pipe.close()

    def _spawn(self, errors: BinaryIO) -> None:
        paths = [path or os.getcwd() for path in sys.path]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        threads["PYTHONHASHSEED"] = "0"  # the order of sets must not change a verdict
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier pool is closed")
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "llmalign.verifiers.worker", str(os.getpid())],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
        self._loaded, self._unread = set(), bytearray()

    def _exchange(self, message: bytes, timeout_s: float) -> dict[str, Any]:
        self.send([message], timeout_s)
        return self.receive(timeout_s)

    def _read(self, size: int, deadline: float) -> bytes:
        process, unread = self._process, self._unread
        assert process is not None and process.stdout is not None
        while len(unread) < size:
            _wait(process.stdout.fileno(), select.POLLIN, deadline)
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                raise Gone(timed_out=False)
            unread += part
        found = bytes(unread[:size])
        del unread[:size]
        return found

    def _signal(self, number: int) -> None:
        # It is a guard that leads its own session; SIGTERM has it kill all that its worker started.
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise Gone(timed_out=True)
