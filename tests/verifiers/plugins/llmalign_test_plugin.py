"""A verifier of one's own that does to its process whatever the text names."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmalign.verifiers import GoldError, Judgement, Verdict
from llmalign.verifiers.registry import with_traits

FOREVER_S = 1000

not_a_function = 3


def judge(text: str, gold: Any, *, answer: str = "yes") -> Judgement:
    """Does what ``text`` names, then compares it with ``answer``."""
    found = TRICKS[text](gold) if text in TRICKS else None
    if found is not None:
        return found
    return Judgement(Verdict.RIGHT if text == answer else Verdict.WRONG, text, "")


def _bad_gold(gold: Any) -> None:
    raise GoldError("gold is bad")


def _raise(gold: Any) -> None:
    raise KeyError("inside")


def _flood(gold: Any) -> None:
    for _ in range(200):
        os.write(1, b"out" * 50_000)
        os.write(2, b"err" * 50_000)


def _noise(gold: Any) -> None:
    print("noise " * 1000)
    os.write(1, b"noise" * 1000)


def _fork_twice(gold: Any) -> None:
    os.fork()  # both come back, and both would answer


def _fork_and_hang(gold: Any) -> None:
    if os.fork() == 0:
        time.sleep(FOREVER_S)


def _child(gold: str) -> None:
    child = subprocess.Popen(["sleep", f"{FOREVER_S}"])
    _write(gold, f"{os.getpid()} {child.pid}")
    time.sleep(FOREVER_S)


def _daemon(gold: str) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _write(gold, f"{os.getpid()} {os.getpgid(0)}")
            time.sleep(FOREVER_S)
        os._exit(0)
    time.sleep(FOREVER_S)


def _write(path: str, text: str) -> None:
    part = Path(f"{path}.part")
    part.write_text(text)
    part.rename(path)


TRICKS: dict[str, Callable[[Any], Any]] = {
    "hang": lambda gold: time.sleep(FOREVER_S),
    "hang in C": lambda gold: (10**10 ** int("8")) ** 10,
    "sleep": lambda gold: time.sleep(gold),
    "stop": lambda gold: os.kill(os.getpid(), signal.SIGSTOP),
    "die": lambda gold: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda gold: ctypes.string_at(0),
    "exit": lambda gold: sys.exit(3),
    "bomb": lambda gold: [0] * 10**10,
    "nonsense": lambda gold: True,
    "pid": lambda gold: Judgement(Verdict.RIGHT, str(os.getpid()), ""),
    "threads": lambda gold: threading.Thread(
        target=time.sleep, args=(FOREVER_S,), daemon=True
    ).start(),
    "bad gold": _bad_gold,
    "raise": _raise,
    "flood": _flood,
    "noise": _noise,
    "fork twice": _fork_twice,
    "fork and hang": _fork_and_hang,
    "child": _child,
    "daemon": _daemon,
}


def _refuse(*, reason: str) -> None:
    raise (RuntimeError if reason == "machine" else ValueError)("cannot be prepared")


@with_traits(prepare=_refuse)
def unprepared(text: str, gold: Any, *, reason: str) -> Judgement:
    """Never gets to judge."""
    return Judgement(Verdict.RIGHT, text, "")
