"""The places a program lives in: a bare read-only root for all, and a cell of its own for each.

Runs in the zygote, never in the trainer. What fails raises ``Refused`` with the primitive's name,
so that the host can go on without it and say so.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import landlock, linux, seccomp

INSIDE = 1000  # user and group a program sees as its own
NOBODY = 65534  # user that root becomes
SCRATCH = "/tmp"
DEVICES = ("null", "zero", "full", "random", "urandom")
_MOUNT_POINTS = ("/mnt", "/media", "/srv", "/opt", "/tmp")
_PASSWD = f"program:x:{INSIDE}:{INSIDE}::{SCRATCH}:/\n"
_LINKS = {
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
    "dev/fd": "/proc/self/fd",
    "dev/shm": SCRATCH,
    "var/tmp": SCRATCH,
}
MIB = 2**20
_STACK_MB = 64
_SHARED = 16  # programs that share a user share one count of threads


class Refused(Exception):
    """A primitive does not work here: its name, and why."""

    def __init__(self, primitive: str, why: str) -> None:
        super().__init__(f"{primitive}: {why}")
        self.primitive, self.why = primitive, why


@contextlib.contextmanager
def trying(primitive: str) -> Iterator[None]:
    """Turns an OSError into ``Refused``."""
    try:
        yield
    except OSError as error:
        raise Refused(primitive, error.strerror or str(error)) from None


def build_root(paths: Sequence[str], *, proc: bool) -> None:
    """Moves into a new root that holds the given paths read-only, five devices and nothing else.

    This process must own its mount namespace and be the first of its pid namespace.

    Args:
        proc: also mount a /proc of that pid namespace; a container may forbid it.
    """
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    base = _mount_point(paths)
    linux.mount("tmpfs", base, "tmpfs", linux.MS_NOSUID, "mode=755,size=1m")
    shown: list[str] = []
    for path in sorted(paths):
        if not any(_below(path, other) for other in shown):
            _show(base, path)
            shown.append(path)
    for name in ("dev", "proc", "tmp", "etc", "var"):
        os.makedirs(f"{base}/{name}", exist_ok=True)
    for device in DEVICES:
        _touch(f"{base}/dev/{device}")
        linux.bind(f"/dev/{device}", f"{base}/dev/{device}")
    for link, target in _LINKS.items():
        os.symlink(target, f"{base}/{link}")
    with open(f"{base}/etc/passwd", "w") as file:
        file.write(_PASSWD)
    if proc:
        mount_proc(f"{base}/proc")
    linux.mount("", base, "", linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID)
    linux.pivot_root(base)


def mount_proc(target: str, options: str = "") -> None:
    """A /proc of this pid namespace."""
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    with trying("proc"):
        linux.mount("proc", target, "proc", flags, options)


def _mount_point(paths: Sequence[str]) -> str:
    for candidate in _MOUNT_POINTS:
        if os.path.isdir(candidate) and not any(_below(path, candidate) for path in paths):
            return candidate
    raise OSError(2, "no directory is free to build the new root on")


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _show(base: str, path: str) -> None:
    """Makes ``path`` visible at the same place below ``base``; a link stays a link."""
    real = os.path.realpath(path)
    if real != path:
        os.makedirs(os.path.dirname(base + path), exist_ok=True)
        os.symlink(real, base + path)
    if os.path.lexists(base + real):
        return
    if os.path.isdir(real):
        os.makedirs(base + real)
    else:
        os.makedirs(os.path.dirname(base + real), exist_ok=True)
        _touch(base + real)
    linux.bind_read_only(real, base + real)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


class Cell:
    """One program's room: made by its keeper, the first process of a pid namespace.

    Args:
        order: what the host asks for: ``limits``, and ``scratch`` where there is no mount
            namespace to make one in.
        without: primitives left out.
        paths: what may be read where landlock alone says so.
        proc: descriptor of a /proc, or -1.
    """

    def __init__(
        self, order: Mapping[str, Any], without: frozenset[str], paths: Sequence[str], proc: int
    ) -> None:
        self.limits: Mapping[str, int] = order["limits"]
        self.scratch = order["scratch"] or SCRATCH
        self.without, self.paths, self._proc = without, paths, proc

    @property
    def namespaces(self) -> bool:
        """Whether the program gets namespaces of its own."""
        return "namespaces" not in self.without

    def unshare(self) -> None:
        """Leaves the namespaces of the zygote; the next child is the keeper."""
        flags = sum(linux.NAMESPACES.values())
        if "user" in self.without:
            flags &= ~linux.CLONE_NEWUSER
        uid, gid = os.geteuid(), os.getegid()
        with trying("namespaces"):
            linux.unshare(flags)
            if "user" not in self.without:
                linux.map_ids(self._proc, INSIDE, uid, gid)

    def furnish(self) -> None:
        """Mounts scratch and /proc, and gives up all privilege; in the keeper."""
        if self.namespaces:
            flags = linux.MS_NOSUID | linux.MS_NODEV
            size, files = self.limits["scratch_mb"], self.limits["scratch_files"]
            owner = INSIDE if "user" not in self.without else NOBODY
            options = f"size={size}m,nr_inodes={files},mode=700,uid={owner},gid={owner}"
            with trying("namespaces"):
                linux.mount("tmpfs", SCRATCH, "tmpfs", flags, options)
                if "proc" not in self.without:
                    mount_proc("/proc", "subset=pid" if linux.kernel() >= (5, 8) else "")
                socket.sethostname("sandbox")
        if os.geteuid() == 0 and "uid" not in self.without:
            with trying("uid"):
                linux.become(NOBODY)
        if sys.platform == "linux":
            with trying("no new privileges"):
                linux.drop_capabilities()
        with trying("scratch"):
            os.chdir(self.scratch)

    def lock(self) -> None:
        """Limits, landlock and the system-call filter; in the program's own process."""
        os.umask(0o077)
        self._set_limits()
        if "landlock" not in self.without:
            with trying("landlock"):
                landlock.restrict(self._rules())
        if "seccomp" not in self.without:
            with trying("seccomp"):
                seccomp.install(os.getpid())

    def _rules(self) -> list[tuple[str, int]]:
        devices = [(f"/dev/{name}", landlock.READ_FILE | landlock.WRITE_FILE) for name in DEVICES]
        if self.namespaces:
            readable = ["/"]
        else:
            readable = [*self.paths, "/etc/ld.so.cache"]
        return [
            *((path, landlock.READ) for path in readable),
            *devices,
            (self.scratch, landlock.SCRATCH),
        ]

    def _set_limits(self) -> None:
        given = self.limits
        pairs = [
            (resource.RLIMIT_CPU, given["cpu_s"]),
            (resource.RLIMIT_FSIZE, given["file_mb"] * MIB),
            (resource.RLIMIT_NOFILE, given["open_files"]),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_STACK, _STACK_MB * MIB),
        ]
        if sys.platform == "linux":  # elsewhere these two stop the interpreter itself
            pairs.append((resource.RLIMIT_AS, given["memory_mb"] * MIB))
            pairs += self._thread_limit()
        linux.limit(pairs)

    def _thread_limit(self) -> list[tuple[int, int]]:
        """Linux counts threads per user; since 5.14 per user and user namespace."""
        threads = self.limits["threads"]
        if "user" not in self.without and self.namespaces and linux.kernel() >= (5, 14):
            return [(resource.RLIMIT_NPROC, threads)]
        if os.geteuid() == NOBODY:
            return [(resource.RLIMIT_NPROC, _SHARED * threads)]
        return []  # the count would be that of everything this user runs


def default_signals() -> None:
    """Signal handling as in a new process; a keyboard interrupt is an exception again."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
