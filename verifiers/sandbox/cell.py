"""One program seen from outside: its order, its clock, its output, its end.

Nothing here believes a program: its output and its messages are data with a size limit, and how
it ended is told by its keeper, over a socket that the program does not have.
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

from . import wire
from .isolation import Isolation, SandboxError
from .launcher import Zygote

START_TIMEOUT_S = 30.0  # of one program's cell, on a busy machine
END_TIMEOUT_S = 10.0  # of a killed program, which may have much memory to give back
INTERPRETER_MB = 128  # address space of the interpreter itself, beside a program's memory
NOBODY = 65534  # user that root becomes, as in ``rooms``
_CHUNK = 1 << 16
_MIB = 2**20

Status = Literal["ok", "failed", "timeout", "output_limit", "killed"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use.

    Args:
        time_s: wall time, in seconds, from the start of the program.
        memory_mb: address space, in MiB, beside what the interpreter needs.
        output_mb: standard output, in MiB; a program that writes more is stopped.
        file_mb: size of one file, in MiB.
        scratch_mb: size of all files, in MiB, and scratch_files: their number.
        open_files: descriptors; threads: threads.
    """

    time_s: float = 5.0
    memory_mb: int = 512
    output_mb: int = 16
    file_mb: int = 32
    scratch_mb: int = 64
    scratch_files: int = 2000
    open_files: int = 128
    threads: int = 128

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name} is {value!r}, expected > 0")


@dataclass(frozen=True)
class Run:
    """How a program ended.

    ``status``: ``ok`` (exit status 0), ``failed`` (another one), ``timeout``, ``output_limit`` or
    ``killed`` (by a signal). ``remark`` is what the program's side said last, such as the error
    that ended it: the program can forge it, so it is for a log only.
    """

    status: Status
    stdout: bytes
    exit_code: int | None
    seconds: float
    remark: str = ""

    @property
    def why(self) -> str:
        """In some words, for a log."""
        return in_words(self.status, self.exit_code, self.remark)


def in_words(status: Status, exit_code: int | None, remark: str = "") -> str:
    """How a program ended, for a log."""
    if status == "timeout":
        return "time limit exceeded"
    if status == "output_limit":
        return "output limit exceeded"
    if status == "killed":
        return f"killed by {_signal_name(-(exit_code or 0))}"
    return f"exit status {exit_code}" + (f": {remark}" if remark else "")


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


class Refused(SandboxError):
    """A primitive that the kernel refused: its name, and why."""

    def __init__(self, primitive: str, why: str) -> None:
        super().__init__(f"sandbox: {primitive}: {why}")
        self.primitive, self.why = primitive, why


class Cell:
    """One program under way, seen from outside. Used by one thread; a context manager.

    Raises:
        SandboxError: the cell cannot be made; nothing has run.
    """

    def __init__(
        self, zygote: Zygote, isolation: Isolation, limits: Limits, stdin: str, *, capture: bool
    ) -> None:
        self.limits = limits
        self._zygote, self._isolation = zygote, isolation
        self.stdout = bytearray()
        self.ended: int | None = None  # wait status
        self.started_at = 0.0
        self._keeper: int | None = None
        self._handle: int | None = None
        self._lines = b""
        self._scratch = ""
        self._open: list[int] = []
        self._capture = capture
        self._check_memory()
        try:
            self._order(stdin)
            self._await_start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Cell":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_memory(self) -> None:
        most, wanted = self._isolation.memory_mb, self.limits.memory_mb + INTERPRETER_MB
        if most is not None and wanted > most:
            raise SandboxError(
                f"memory_mb is {self.limits.memory_mb}, and with {INTERPRETER_MB} for the "
                f"interpreter that is more than the {most} MiB this process may use (RLIMIT_AS)"
            )

    def _order(self, stdin: str) -> None:
        """Sends the zygote its order, with the program's ends of four lines."""
        theirs = []
        try:
            theirs.append(_file_with(stdin))
            self._out, out = os.pipe() if self._capture else (-1, os.open(os.devnull, os.O_WRONLY))
            theirs.append(out)
            self._talk, talk = socket.socketpair()
            theirs.append(talk.detach())
            self._status, status = socket.socketpair()
            theirs.append(status.detach())
            if "namespaces" in self._isolation.missing:
                self._scratch = _scratch_folder(own="uid" in self._isolation.missing)
            self._zygote.order({"limits": self._numbers(), "scratch": self._scratch}, theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        for line in (self._talk, self._status):
            line.setblocking(False)
        if self._capture:
            os.set_blocking(self._out, False)

    def _numbers(self) -> dict[str, int]:
        limits = self.limits
        return {
            "cpu_s": int(limits.time_s) + 2,
            "memory_mb": limits.memory_mb + INTERPRETER_MB,
            "file_mb": limits.file_mb,
            "scratch_mb": limits.scratch_mb,
            "scratch_files": limits.scratch_files,
            "open_files": limits.open_files,
            "threads": limits.threads,
        }

    def _await_start(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.started_at:
            if self.ended is not None or not self._wait(self._status.fileno(), deadline):
                raise SandboxError("sandbox: the program's cell did not start in time")
            self._hear()

    def _wait(self, descriptor: int, deadline: float) -> bool:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))

    def _hear(self) -> None:
        """Takes in what the zygote and the keeper say on the status line."""
        with contextlib.suppress(BlockingIOError):
            body, handles, _, _ = socket.recv_fds(self._status, _CHUNK, 1)
            if handles:
                self._handle = handles[0]
            if not body:
                raise SandboxError("sandbox: the program's keeper ended without a word")
            self._lines += body
        *lines, self._lines = self._lines.split(b"\n")
        for line in lines:
            self._note(json.loads(line))

    def _note(self, word: dict[str, Any]) -> None:
        if "refused" in word:
            raise Refused(word["refused"], word["why"])
        if "keeper" in word:
            self._keeper = word["keeper"]
        if "started" in word:
            self.started_at = time.monotonic()
        if "ended" in word:
            self.ended = word["ended"]

    def kill(self) -> None:
        """Kills the keeper and with it, in a pid namespace, all that the program started."""
        with contextlib.suppress(OSError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            elif self._keeper is not None and self.ended is None:
                os.kill(self._keeper, signal.SIGKILL)
        if self._scratch and self._keeper is not None:
            with contextlib.suppress(OSError):  # no namespace: what stayed in its group
                os.killpg(self._keeper, signal.SIGKILL)

    def close(self) -> None:
        """Kills what is left, waits until it is gone and lets go of everything."""
        self.kill()
        if self._handle is not None:  # readable once the keeper and all below it have ended
            self._wait(self._handle, time.monotonic() + END_TIMEOUT_S)
        for name in ("_talk", "_status"):
            if hasattr(self, name):
                getattr(self, name).close()
        for descriptor in (self._handle, getattr(self, "_out", -1)):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._handle, self._out = None, -1
        if self._scratch:
            _remove(self._scratch)
            self._scratch = ""

    def finish(self, deadline: float) -> Status:
        """Collects output until the program has ended and all is read; kills it at the deadline."""
        limit = self.limits.output_mb * _MIB
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        if self._capture:
            poll.register(self._out, select.POLLIN)
        reading = self._capture
        while reading or self.ended is None:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                self.kill()
                return "timeout"
            for descriptor, _ in ready:
                if descriptor == self._status.fileno():
                    self._hear()
                    if self.ended is not None:
                        poll.unregister(self._status)
                elif not self._drain():
                    reading = False
                    poll.unregister(self._out)
            if len(self.stdout) > limit:
                self.kill()
                return "output_limit"
            if time.monotonic() > deadline:
                self.kill()
                return "timeout"
        return self._how()

    def _drain(self) -> bool:
        """Reads some output; False where there will be no more."""
        with contextlib.suppress(BlockingIOError):
            part = os.read(self._out, _CHUNK)
            self.stdout += part
            return bool(part)
        return True

    def _how(self) -> Status:
        code = self.exit_code
        assert code is not None
        if code in (-signal.SIGXCPU, -signal.SIGALRM):
            return "timeout"
        if code < 0:
            return "killed"
        return "ok" if code == 0 else "failed"

    @property
    def exit_code(self) -> int | None:
        """Exit status, or minus the signal that ended it; None while it runs."""
        return None if self.ended is None else os.waitstatus_to_exitcode(self.ended)

    def why(self, status: Status) -> str:
        """How it ended, in words."""
        return in_words(status, self.exit_code)

    def send(self, message: Any, deadline: float) -> None:
        """Sends the guest a message; raises TimeoutError, or EOFError where it is gone."""
        body = wire.dumps(message)
        rest = memoryview(len(body).to_bytes(4, "big") + body)
        poll = select.poll()
        poll.register(self._talk, select.POLLOUT)
        try:
            while rest:
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise TimeoutError
                with contextlib.suppress(BlockingIOError):
                    rest = rest[self._talk.send(rest[: 1 << 20]) :]
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise EOFError from None

    def receive(self, deadline: float) -> Any:
        """The guest's next message; TimeoutError, EOFError, or WireError for a forged one."""
        size = int.from_bytes(self._read(4, deadline), "big")
        if size > wire.MAX_BYTES:
            raise wire.WireError(f"a message of {size} bytes, at most {wire.MAX_BYTES}")
        found = wire.loads(self._read(size, deadline))
        if not isinstance(found, dict):
            raise wire.WireError("malformed message: an object was expected")
        return found

    def _read(self, size: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            if time.monotonic() > deadline or not self._wait(self._talk.fileno(), deadline):
                raise TimeoutError
            try:
                part = self._talk.recv(min(size - len(parts), 1 << 20))
            except BlockingIOError:
                continue
            except OSError:
                part = b""
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


def _file_with(text: str) -> int:
    """Descriptor of a file that has no name, holds ``text`` and can no longer be written."""
    body = text.encode("utf-8", "surrogatepass")
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(body)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor
    with tempfile.NamedTemporaryFile() as named:
        named.write(body)
        named.flush()
        return os.open(named.name, os.O_RDONLY)


def _scratch_folder(*, own: bool) -> str:
    """A new folder for one program, its ``own`` user being ours or the one root becomes."""
    folder = tempfile.mkdtemp(prefix="llmalign-sandbox-")
    if os.geteuid() == 0 and not own:
        os.chown(folder, NOBODY, NOBODY)
    return folder


def _remove(folder: str) -> None:
    """Removes what a program left, whatever rights it took away from itself; follows no link."""
    for parent, folders, _ in os.walk(folder):
        for name in ("", *folders):
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def describe(error: Any) -> str:
    """``Type: text`` of an error as the guest sends it, whatever it is."""
    if not (isinstance(error, list) and len(error) == 3):
        return ""
    kind, text, _ = error
    return f"{kind!s:.60}: {text!s:.120}".rstrip(": ")
