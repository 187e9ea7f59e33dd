"""Starts a zygote as a new interpreter and keeps it; no memory, file or variable passes to it."""

import json
import os
import select
import site
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from .isolation import SandboxError

START_TIMEOUT_S = 60.0
ORDER_BYTES = 512  # as in the zygote
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # equal programs print equal sets
    "OMP_NUM_THREADS": "1",
}
# The package is loaded under its short name, without the packages above it.
_BOOT = (
    "import sys, types\n"
    "sys.modules['sandbox'] = package = types.ModuleType('sandbox')\n"
    "package.__path__ = [sys.argv[1]]\n"
    "from sandbox import zygote\n"
    "zygote.main(int(sys.argv[2]), int(sys.argv[3]))\n"
)
_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64")


class Zygote:
    """A running zygote. ``order`` may be called from any thread.

    Args:
        without: primitives to leave out, see ``isolation.PRIMITIVES``.
    Attributes:
        refused: (primitive, reason) where the start failed for one that does not work here.
        facts: what the zygote says about itself.
    Raises:
        SandboxError: it cannot be started at all.
    """

    def __init__(self, without: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        self._process: subprocess.Popen[bytes] | None = None
        self.refused: tuple[str, str] | None = None
        self.facts: dict[str, Any] = {}
        with theirs, tempfile.TemporaryFile() as errors:
            self._spawn(theirs, errors)
            config = {"without": sorted(without), "path": _import_path(), "read": _readable()}
            with_newline = self._converse(json.dumps(config).encode(), theirs)
            if not with_newline:
                self.close()
                errors.seek(0)
                last = errors.read()[-300:].decode(errors="replace").strip()
                raise SandboxError(f"sandbox: the zygote does not start: {last or 'no answer'}")
        answer = json.loads(with_newline)
        if "refused" in answer:
            self.refused = (answer["refused"], answer["why"])
            self.close()
        self.facts = answer.get("ready", {})

    @property
    def alive(self) -> bool:
        """Whether it still takes orders."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process number of the zygote's outermost process."""
        assert self._process is not None
        return self._process.pid

    def order(self, order: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Has a program's cell made; raises SandboxError where the zygote is gone."""
        body = json.dumps(order).encode().ljust(ORDER_BYTES)
        if len(body) > ORDER_BYTES:
            raise SandboxError(f"sandbox: an order of {len(body)} bytes is too long")
        try:
            with self._lock:
                sent = socket.send_fds(self._control, [body], list(descriptors))
                self._control.sendall(body[sent:])
        except OSError as error:
            raise SandboxError(f"sandbox: the zygote is gone: {error}") from None

    def close(self) -> None:
        """Ends the zygote and, in a pid namespace, every program under way."""
        self._control.close()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def let_go(self) -> None:
        """Closes this process's copy of the line, after a fork, and leaves the zygote alone."""
        self._control.close()

    def _spawn(self, theirs: socket.socket, errors: Any) -> None:
        # A process dies with the thread that started it (PR_SET_PDEATHSIG); this one lasts.
        started = threading.Event()
        failures: list[OSError] = []

        def keep() -> None:
            package = os.path.dirname(os.path.abspath(__file__))
            number = theirs.fileno()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-s", "-S", "-P", "-B", "-c", _BOOT, package]
                    + [str(number), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=(number,),
                    env=ENVIRONMENT,
                    cwd="/",
                )
            except OSError as error:
                failures.append(error)
            finally:
                started.set()
            if self._process is not None:
                self._process.wait()

        threading.Thread(target=keep, name="sandbox-zygote", daemon=True).start()
        started.wait()
        if failures:
            raise SandboxError(f"sandbox: the zygote does not start: {failures[0]}")

    def _converse(self, config: bytes, theirs: socket.socket) -> bytes:
        """Sends the configuration and returns the zygote's first line, or nothing."""
        theirs.close()
        deadline = time.monotonic() + START_TIMEOUT_S
        answer = b""
        try:
            self._control.sendall(config + b"\n")
            while not answer.endswith(b"\n"):
                poll = select.poll()
                poll.register(self._control, select.POLLIN)
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    return b""
                part = self._control.recv(4096)
                if not part:
                    return b""
                answer += part
        except OSError:
            return b""
        return answer


def _import_path() -> list[str]:
    """Where programs import from: the standard library and the installed packages."""
    paths = sysconfig.get_paths()
    standard = [paths["stdlib"], paths["platstdlib"], sysconfig.get_config_var("DESTSHARED")]
    found = [path for path in (*standard, *_packages()) if path and os.path.isdir(path)]
    return list(dict.fromkeys(found))


def _packages() -> list[str]:
    return [path for path in site.getsitepackages() if os.path.isdir(path)]


def _readable() -> list[str]:
    """Folders a program may read: what is imported from, and shared libraries."""
    wanted = [*_import_path(), *_SYSTEM, "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    library = sysconfig.get_config_var("LIBDIR")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and library:
        wanted.append(library)
    return [path for path in dict.fromkeys(wanted) if os.path.exists(path)]
