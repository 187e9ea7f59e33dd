"""The sandbox of this process: started when first needed, found out about, started again.

``run`` and ``opened`` may be called from any thread and after any fork; every process has a
zygote of its own.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from . import wire
from .cell import Cell, Limits, Refused, Run, describe
from .isolation import PRIMITIVES, Isolation, Level, SandboxError, elsewhere
from .launcher import Zygote

MAX_PROGRAM = 1_000_000  # characters
_SELF_TEST = """
import colorsys, json, os
print(json.dumps([os.getuid(), os.getpid(), list(os.environ)]))
"""


class _Home:
    """The zygote of one process and what is known about it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.zygote: Zygote | None = None
        self.isolation: Isolation | None = None

    def get(self) -> tuple[Zygote, Isolation]:
        """A zygote that lives, and how well it isolates."""
        with self.lock:
            if self.zygote is None or self.isolation is None or not self.zygote.alive:
                missing = dict(self.isolation.missing) if self.isolation else {}
                self.zygote, self.isolation = start(missing)
            return self.zygote, self.isolation


_home = _Home()


def _after_fork() -> None:
    global _home
    inherited, _home = _home.zygote, _Home()  # the parent's zygote is the parent's
    if inherited is not None:
        inherited.let_go()


os.register_at_fork(after_in_child=_after_fork)


def start(missing: dict[str, str] | None = None) -> tuple[Zygote, Isolation]:
    """Starts a zygote with every primitive that works, found by running a program under them.

    Args:
        missing: primitives known not to work, with the reason; they are not tried.
    Raises:
        SandboxError: not even a zygote without any of them runs a program.
    """
    missing = dict(missing or {})
    if sys.platform != "linux":
        missing = elsewhere()
    while True:
        zygote = Zygote(missing)
        failure = zygote.refused or _self_test(zygote, missing)
        if failure is None:
            active = tuple(name for name in PRIMITIVES if name not in missing)
            return zygote, Isolation(active, missing, zygote.facts["memory_mb"])
        zygote.close()
        _leave_out(*failure, missing)


def _leave_out(primitive: str, why: str, missing: dict[str, str]) -> None:
    """Notes what to do without next; raises SandboxError where nothing is left to drop."""
    if primitive == "namespaces" and "user" not in missing:
        missing["user"] = why  # root can make the others without it
        if os.geteuid() != 0:
            missing["namespaces"] = why
    elif primitive in PRIMITIVES and primitive not in missing:
        missing[primitive] = why
    else:
        raise SandboxError(f"sandbox: no program runs: {primitive}: {why}")


def _self_test(zygote: Zygote, missing: dict[str, str]) -> tuple[str, str] | None:
    """Runs a program; returns the primitive that failed and why, None if all went well."""
    trial = Isolation((), missing, None)
    try:
        found = _run(Cell(zygote, trial, Limits(time_s=30.0), "", capture=True), _SELF_TEST)
    except Refused as refused:
        return refused.primitive, refused.why
    if found.status != "ok":
        if "uid" not in missing and os.geteuid() == 0 and "namespaces" in missing:
            return "uid", "the standard library is not readable for another user"
        raise SandboxError(f"sandbox: a trial program fails: {found.why}")
    uid, _, _ = json.loads(found.stdout)
    if uid == 0 and "uid" not in missing:
        return "uid", "the program still runs as root"
    return None


@contextlib.contextmanager
def _cell(limits: Limits, stdin: str, level: Level, *, capture: bool) -> Iterator[Cell]:
    """A cell of this process's zygote; one that has died is replaced once."""
    zygote, isolation = _home.get()
    isolation.demand(level)
    try:
        cell = Cell(zygote, isolation, limits, stdin, capture=capture)
    except SandboxError:
        if zygote.alive:
            raise
        zygote, isolation = _home.get()
        cell = Cell(zygote, isolation, limits, stdin, capture=capture)
    with cell:
        yield cell


def probe() -> Isolation:
    """What works on this machine; starts the sandbox of this process.

    Raises:
        SandboxError: no program runs at all.
    """
    return _home.get()[1]


def run(
    program: str, stdin: str = "", *, limits: Limits | None = None, level: Level = "strict"
) -> Run:
    """Runs a Python program by itself and says how it ended and what it printed.

    Args:
        program: its text, run as ``__main__``.
        stdin: what it can read.
        level: the least isolation that will do.
    Raises:
        SandboxError: the machine offers less than ``level``, or the sandbox failed.
        ValueError: the program is too large.
    """
    if len(program) > MAX_PROGRAM:
        raise ValueError(f"the program has {len(program)} characters, expected <= {MAX_PROGRAM}")
    with _cell(limits or Limits(), stdin, level, capture=True) as cell:
        return _run(cell, program)


def _run(cell: Cell, program: str) -> Run:
    with cell:
        deadline = cell.started_at + cell.limits.time_s
        with contextlib.suppress(TimeoutError, EOFError):
            cell.send({"mode": "script", "source": program}, deadline)
        status = cell.finish(deadline)
        seconds = time.monotonic() - cell.started_at
        remark = _last_words(cell) if status == "failed" else ""
        return Run(status, bytes(cell.stdout), cell.exit_code, seconds, remark)


def _last_words(cell: Cell) -> str:
    """What ended the program, as its own side tells it."""
    with contextlib.suppress(TimeoutError, EOFError, wire.WireError):
        return describe(cell.receive(time.monotonic() + 1.0).get("error"))
    return ""


@contextlib.contextmanager
def opened(limits: Limits, level: Level, order: dict[str, Any]) -> Iterator[Cell]:
    """A cell whose guest has its first order, for a session of requests; see ``guest``.

    Raises:
        SandboxError: the machine offers less than ``level``, or the sandbox failed.
    """
    with _cell(limits, "", level, capture=False) as cell:
        with contextlib.suppress(TimeoutError, EOFError):
            cell.send(order, cell.started_at + limits.time_s)
        yield cell
