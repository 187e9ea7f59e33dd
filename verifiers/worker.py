"""One verifier process and its guard: reads requests from stdin, answers on what was its stdout.

Started by ``VerifierPool`` as ``python -m llmalign.verifiers.worker PARENT_PID``. The process that
was started stays a guard: it forks the worker, adopts whatever the worker's own children leave
behind, and kills all of them once the worker ends, the parent dies or SIGTERM arrives. It never
runs a verifier, so nothing a verifier does holds it up.

A message is four bytes of length (big endian) and that many bytes of JSON. The first is the
set-up; then, one by one and answered in order:

    {"load": kind, "options": …}      -> {"loaded": true}, or {"fault": why, "machine": bool}
    {"kind": …, "text": …, "gold": …, "options": …}
        -> {"verdict": …, "answer": …, "why": …, "seconds": …} or {"gold_error": why, "seconds": …}

``seconds`` is wall time of the judge function alone.
"""

import contextlib
import ctypes
import functools
import importlib
import inspect
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from llmalign.verifiers import VERIFIERS, GoldError, Judgement, Verdict

OUT_OF_MEMORY = "out of memory"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_CLEANUP_S = 10.0  # for processes that take their time to die, such as in an uninterruptible read
_GUARDED = (signal.SIGTERM, signal.SIGCHLD)


def main() -> NoReturn:
    """The guard; returns in neither process."""
    _die_with(int(sys.argv[1]), signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, _GUARDED)
    guard = os.getpid()
    worker = os.fork()
    if worker == 0:
        os.setsid()
        _die_with(guard, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _GUARDED)
        serve()
        os._exit(0)
    _silence(0)  # the worker's end alone keeps the pipes open
    _silence(1)
    status = _watch(worker)
    _kill_all(worker)
    _end_like(status)


def serve() -> None:
    """The worker: answers until stdin ends."""
    requests, answers = _take_over_pipes()
    setup = _receive(requests)
    if setup is None:
        return
    limit = setup["memory_mb"] * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _first_to_go()
    own = os.getpid()
    _send(answers, {"ready": True})
    _silence(2)  # until here stderr told the parent why a start failed
    while (request := _receive(requests)) is not None:
        found = load(request) if "load" in request else answer(request)
        if os.getpid() != own:
            os._exit(1)  # a verifier forked and came back twice: only one may answer
        _send(answers, found)


@functools.lru_cache(maxsize=64)
def resolve(kind: str) -> Callable[..., Judgement]:
    """The judge function of a registered name or of ``pkg.mod:function``."""
    if ":" not in kind:
        return VERIFIERS.get(kind, "verifier").thing
    module, _, name = kind.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not callable(found):
        raise TypeError(f"{kind} is {type(found).__name__}, expected a function")
    return found


def load(request: Mapping[str, Any]) -> dict[str, Any]:
    """Imports a verifier and what it needs, checks its options and has it prepare itself, outside
    the time limit of a judgement."""
    kind, options = request["load"], request["options"]
    try:
        judge = resolve(kind)
        inspect.signature(judge).bind("", None, **options)
        known = kind in VERIFIERS
        traits = VERIFIERS.get(kind, "verifier").traits if known else getattr(judge, "traits", {})
        for module in traits.get("preload", ()):
            importlib.import_module(module)
        if "prepare" in traits:
            traits["prepare"](**options)
    except Exception as error:  # noqa: BLE001  (user code runs here; the parent raises what it says)
        machine = isinstance(error, RuntimeError | OSError | MemoryError)
        return {"fault": f"{type(error).__name__}: {error}", "machine": machine}
    return {"loaded": True}


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """One judgement as a message. Whatever a verifier raises is an outcome."""
    began = time.perf_counter()
    try:
        judge = resolve(request["kind"])
        found = judge(request["text"], request["gold"], **request["options"])
        seconds = time.perf_counter() - began
        if not isinstance(found, Judgement) or not isinstance(found.answer, str | None):
            raise TypeError(f"the verifier gave {repr(found)[:80]}, expected a Judgement")
        verdict, given, why = found.verdict.value, found.answer, str(found.why)
    except GoldError as error:
        return {"gold_error": str(error), "seconds": time.perf_counter() - began}
    except MemoryError:
        verdict, given, why = Verdict.UNDECIDED.value, None, OUT_OF_MEMORY
        seconds = time.perf_counter() - began
    except (Exception, SystemExit) as error:  # noqa: BLE001  (undecided, and it says why)
        verdict, given = Verdict.UNDECIDED.value, None
        why = f"raised {type(error).__name__}: {str(error)[:200]}"
        seconds = time.perf_counter() - began
    return {"verdict": verdict, "answer": given, "why": why, "seconds": seconds}


# -- the guard ------------------------------------------------------------------------------------


def _die_with(parent: int, number: int) -> None:
    """This process gets signal ``number`` when its parent dies; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def _watch(worker: int) -> int | None:
    """Waits for the worker's end and returns its wait status; None: told to stop before that."""
    while True:
        if signal.sigwait(_GUARDED) == signal.SIGTERM:
            return None
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == worker:
                    return ended[1]


def _kill_all(worker: int) -> None:
    """Kills the worker and all that descends from it, sessions and double forks included.

    Whoever loses its parent becomes a child of this process, so killing children until there are
    none reaches everybody.
    """
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + _CLEANUP_S
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                for child in _children():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(child, signal.SIGKILL)
                time.sleep(0.001)


def _children() -> list[int]:
    own, found = os.getpid(), []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(entry.read_bytes().rpartition(b")")[2].split()[1]) == own:
                found.append(int(entry.parent.name))
    return found


def _end_like(status: int | None) -> NoReturn:
    """Ends this process as the worker ended, for the parent to see."""
    if status is None:
        os._exit(0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL needs no handler taken off
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


# -- the worker's surroundings --------------------------------------------------------------------


def _first_to_go() -> None:
    """Where the whole machine runs out of memory, the kernel takes a worker, not the trainer."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")


def _take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Private copies of stdin and stdout, so that what a library prints cannot reach the pipe."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    _silence(0)
    _silence(1)
    return requests, answers


def _silence(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)


def _receive(pipe: BinaryIO) -> dict[str, Any] | None:
    header = pipe.read(4)
    if len(header) < 4:
        return None
    return json.loads(pipe.read(int.from_bytes(header, "big")))


def _send(pipe: BinaryIO, message: Mapping[str, Any]) -> None:
    body = json.dumps(message).encode()
    pipe.write(len(body).to_bytes(4, "big") + body)
    pipe.flush()


if __name__ == "__main__":
    main()
