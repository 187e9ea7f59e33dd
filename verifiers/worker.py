"""One verifier process: reads requests from stdin, answers on what was its stdout.

Started by ``VerifierPool`` as ``python -m llmalign.verifiers.worker PARENT_PID``. A message is
four bytes of length (big endian) and that many bytes of JSON. The first is the set-up; then, one
by one:

    {"load": kind, "options": …}             -> {"loaded": true} or {"fault": why}
    {"kind": …, "text": …, "gold": …, "options": …}
        -> {"verdict": …, "answer": …, "why": …} or {"gold_error": why}
"""

import ctypes
import importlib
import inspect
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from llmalign.verifiers import VERIFIERS, GoldError, Judgement, Verdict

OUT_OF_MEMORY = "out of memory"
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves until stdin ends."""
    _die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = _take_over_pipes()
    setup = _receive(requests)
    if setup is None:
        return
    limit = setup["memory_mb"] * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(answers, {"ready": True})
    _silence(2)  # until here stderr told the parent why a start failed
    while (request := _receive(requests)) is not None:
        _send(answers, load(request) if "load" in request else answer(request))


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
    """Imports a verifier and what it needs, and checks its options, outside any time limit."""
    kind = request["load"]
    try:
        judge = resolve(kind)
        inspect.signature(judge).bind("", None, **request["options"])
        preload = VERIFIERS.get(kind, "verifier").traits["preload"] if kind in VERIFIERS else ()
        for module in preload:
            importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  (user code runs here; the parent raises what it says)
        return {"fault": f"{type(error).__name__}: {error}"}
    return {"loaded": True}


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """One judgement as a message. Whatever a verifier raises is an outcome."""
    try:
        judge = resolve(request["kind"])
        found = judge(request["text"], request["gold"], **request["options"])
        return {"verdict": found.verdict.value, "answer": found.answer, "why": found.why}
    except GoldError as error:
        return {"gold_error": str(error)}
    except MemoryError:
        why = OUT_OF_MEMORY
    except (Exception, SystemExit) as error:  # noqa: BLE001  (undecided, and it says why)
        why = f"raised {type(error).__name__}: {str(error)[:200]}"
    return {"verdict": Verdict.UNDECIDED.value, "answer": None, "why": why}


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


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
