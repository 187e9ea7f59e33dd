"""The process that programs are forked from: a warm interpreter that knows nothing.

Started by the host as a new interpreter, so that nothing of the trainer's memory is in it. It
reads orders from one socket, 512 bytes each with four descriptors: stdin, stdout, talk, status.
A program's text and its inputs pass over ``talk``, which the zygote hands on and never reads, so
that no program finds another one's tests in the memory it inherits.

    host ── zygote ── keeper (first of a new pid namespace) ── program

On ``status`` the host hears, line by line: the keeper's handle, ``started``, and ``ended`` with
the wait status, or ``refused`` with the primitive that failed.
"""

import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from . import guest, linux, rooms

ORDER_BYTES = 512
_PRELOAD = (
    "abc array base64 bisect cmath collections copy dataclasses datetime decimal enum fractions "
    "functools hashlib heapq io itertools json math numbers operator os queue random re site "
    "statistics string struct tempfile textwrap threading time traceback typing warnings"
).split()
_TALK = 3


def main(control: int, parent: int) -> None:
    """Serves orders until the host is gone."""
    _leave_the_terminal()
    orders = socket.socket(fileno=control)
    with orders.makefile("rb", buffering=0) as lines:
        config = json.loads(lines.readline())
    if sys.platform == "linux":
        linux.die_with_parent(parent)
    sys.path[:] = ["", *config["path"]]
    for module in _PRELOAD:
        importlib.import_module(module)
    sys.modules["site"].setquit()  # exit() and quit(), as in every interpreter
    try:
        zygote = _Zygote(orders, config)
    except rooms.Refused as refused:
        _answer(orders, {"refused": refused.primitive, "why": refused.why})
        return
    zygote.serve()


def _leave_the_terminal() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _answer(to: socket.socket, message: dict[str, Any]) -> None:
    to.sendall(json.dumps(message).encode() + b"\n")


class _Zygote:
    def __init__(self, orders: socket.socket, config: dict[str, Any]) -> None:
        self._orders = orders
        self._without = frozenset(config["without"])
        self._paths: Sequence[str] = config["read"]
        self._proc = -1
        if os.path.isdir("/proc/self"):
            self._proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
        if "namespaces" not in self._without:
            self._move()
        # The programs' first processes end as children of this one; nobody waits for them.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 2)  # until here stderr told the host why a start failed
        os.close(null)

    def _move(self) -> None:
        """Into a pid and a mount namespace; there, unprivileged, into a bare root."""
        root = os.geteuid() == 0
        flags = linux.CLONE_NEWNS | linux.CLONE_NEWPID
        uid, gid, parent = os.geteuid(), os.getegid(), os.getppid()
        with rooms.trying("namespaces"):
            linux.unshare(flags if root else flags | linux.CLONE_NEWUSER)
            if not root:
                linux.map_ids(self._proc, rooms.INSIDE, uid, gid)
        linux.die_with_parent(parent)  # said again: the change of credentials undid it
        first = os.fork()
        if first:
            self._orders.close()
            os.waitpid(first, 0)
            os._exit(0)
        with rooms.trying("namespaces"):
            proc = "proc" not in self._without
            rooms.build_root(self._paths, proc=proc)
            if proc:  # else the old one stays open here, for the programs' identity maps
                os.close(self._proc)
                self._proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
            # Root stays root only where it must make the programs' namespaces itself.
            if root and "user" not in self._without:
                linux.become(rooms.NOBODY)
            if "user" not in self._without:
                linux.drop_capabilities()
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)

    def serve(self) -> None:
        """Forks a program for every order; returns when the host closes the socket."""
        linux.one_arena()
        gc.collect()
        gc.freeze()  # programs share these pages as long as nobody writes to them
        _answer(self._orders, {"ready": _facts()})
        while True:
            received = self._next()
            if received is None:
                return
            order, descriptors = received
            try:
                child = os.fork()
            except OSError as error:
                _answer(socket.socket(fileno=descriptors.pop()), _refusal("a process", error))
                child = -1
            if not child:
                self._orders.close()
                _run(self._cell(order), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)

    def _cell(self, order: dict[str, Any]) -> rooms.Cell:
        return rooms.Cell(order, self._without, self._paths, self._proc)

    def _next(self) -> tuple[dict[str, Any], list[int]] | None:
        body, descriptors, _, _ = socket.recv_fds(self._orders, ORDER_BYTES, 4)
        while body and len(body) < ORDER_BYTES:
            more = self._orders.recv(ORDER_BYTES - len(body))
            body = body + more if more else b""
        return (json.loads(body), descriptors) if body else None


def _facts() -> dict[str, Any]:
    """What the host reports as this machine's limits."""
    _, address_space = resource.getrlimit(resource.RLIMIT_AS)
    unlimited = address_space == resource.RLIM_INFINITY
    return {"memory_mb": None if unlimited else address_space // rooms.MIB}


def _run(cell: rooms.Cell, descriptors: Sequence[int]) -> NoReturn:
    """Makes the cell, then becomes (or gives birth to) the keeper; never returns."""
    stdin, stdout, talk, status = descriptors
    reports = socket.socket(fileno=status)
    try:
        if cell.namespaces:
            cell.unshare()
            gate, parent_lives = os.pipe()
            keeper = os.fork()
            if keeper:
                _hand_over(reports, keeper)
                os._exit(0)
            os.close(parent_lives)
            os.read(gate, 1)  # until this process's parent, which nobody else kills, is gone
            os.close(gate)
        else:
            _hand_over(reports, os.getpid())
        _keep(cell, (stdin, stdout, talk), reports)
    except rooms.Refused as refused:
        _answer(reports, {"refused": refused.primitive, "why": refused.why})
        os._exit(1)
    except OSError as error:
        _answer(reports, _refusal("a process", error))
        os._exit(1)


def _refusal(what: str, error: OSError) -> dict[str, Any]:
    return {"refused": what, "why": str(error)}


def _hand_over(reports: socket.socket, keeper: int) -> None:
    """Gives the host a handle that kills the keeper and nothing else, whatever becomes of it."""
    if hasattr(os, "pidfd_open"):
        handle = os.pidfd_open(keeper)
        line = json.dumps({"keeper": keeper}).encode() + b"\n"
        socket.send_fds(reports, [line], [handle])
        os.close(handle)
    else:
        _answer(reports, {"keeper": keeper})


def _keep(cell: rooms.Cell, given: tuple[int, int, int], reports: socket.socket) -> NoReturn:
    """Starts the program, waits for it and says how it ended; everything dies with this process."""
    parent = os.getppid()
    rooms.default_signals()
    if not cell.namespaces:
        os.setsid()
    cell.furnish()
    if not cell.namespaces and sys.platform == "linux":
        linux.die_with_parent(parent)
    if sys.platform == "linux":
        linux.prctl(linux.PR_SET_DUMPABLE, 0)  # closes the keeper's /proc to the program
    mine = os.getpid()
    program = os.fork()
    if not program:
        _become_program(cell, given, reports, mine)
    for descriptor in given:
        os.close(descriptor)
    _, how, used = os.wait4(program, 0)
    _answer(reports, {"ended": how, "cpu_s": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss})
    os._exit(0)


def _become_program(
    cell: rooms.Cell, given: tuple[int, int, int], reports: socket.socket, keeper: int
) -> NoReturn:
    try:
        if sys.platform == "linux":
            linux.die_with_parent(keeper)
            linux.prctl(linux.PR_SET_DUMPABLE, 1)  # its own /proc/self stays open
        if cell.namespaces:
            os.setsid()
        status = _rearrange(given, reports)
        reports = socket.socket(fileno=status)
        cell.lock()
        _answer(reports, {"started": time.monotonic()})
        reports.close()
    except rooms.Refused as refused:
        _answer(reports, {"refused": refused.primitive, "why": refused.why})
        os._exit(1)
    _forget()
    try:
        guest.main(_TALK)
    except (OSError, ValueError):  # the host is gone, or the program closed the line
        os._exit(1)


def _rearrange(given: tuple[int, int, int], reports: socket.socket) -> int:
    """Descriptors 0 to 3 are the program's, 4 is the status; closes all others, keeps no copy."""
    high = [os.dup2(descriptor, 100 + i) for i, descriptor in enumerate((*given, reports.detach()))]
    null = os.open(os.devnull, os.O_RDWR)
    for source, target in ((high[0], 0), (high[1], 1), (null, 2), (high[2], _TALK), (high[3], 4)):
        os.dup2(source, target, inheritable=False)
    for standard in range(3):
        os.set_inheritable(standard, True)
    os.closerange(5, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return 4


def _forget() -> None:
    """Takes our own modules out of the program's sight; they hold nothing, but are not its own."""
    package = __name__.rpartition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
