"""Linux calls that the standard library does not wrap: namespaces, mounts, capabilities.

Every function raises OSError with the name of the call where the kernel refuses. Numbers from the
kernel's own headers (include/uapi/linux, asm/unistd.h); x86-64 and aarch64 are known.
"""

import contextlib
import ctypes
import os
import platform
import resource
import struct
from collections.abc import Sequence

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
NAMESPACES = {
    "user": CLONE_NEWUSER,
    "mount": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
}

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
PR_SET_SECCOMP, PR_CAPBSET_DROP = 22, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

ARCHITECTURE = platform.machine()
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_M_ARENA_MAX = -8
_MOUNT_SETATTR = 442  # the same on all architectures, like all calls since 5.1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result


def syscall(call: str, number: int, *arguments: int | bytes | ctypes.Array) -> int:
    """One system call by number; integers are passed as C longs."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *converted), call)


def prctl(option: int, *arguments: int | ctypes.Array) -> int:
    """prctl(2)."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    converted = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in padded]
    return _checked(_libc.prctl(option, *converted), f"prctl {option}")


def unshare(flags: int) -> None:
    """Moves this process into new namespaces (its children, for a pid namespace)."""
    _checked(_libc.unshare(flags), "unshare")
    # The change of credentials cleared it, and /proc/self/uid_map is ours only with it.
    prctl(PR_SET_DUMPABLE, 1)


def map_ids(proc: int, inside: int, outside_uid: int, outside_gid: int) -> None:
    """Maps one user and one group into the user namespace this process just made.

    Args:
        proc: descriptor of a /proc directory that shows this process.
        inside: number that both have inside, not 0: no program sees itself as root.
    """
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside} {outside_uid} 1"),
        ("gid_map", f"{inside} {outside_gid} 1"),
    ):
        descriptor = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    arguments = [text.encode() or None for text in (source, target, kind)]
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None)
    _checked(result, f"mount {kind or 'bind'} on {target}")


def bind_read_only(source: str, target: str) -> None:
    """Shows ``source`` and what is mounted below it at ``target``, read-only, without setuid."""
    mount(source, target, "", MS_BIND | MS_REC)
    attributes = _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV
    packed = struct.pack("=QQQQ", attributes, 0, 0, 0)
    syscall(
        "mount_setattr",
        _MOUNT_SETATTR,
        _AT_FDCWD,
        target.encode(),
        _AT_RECURSIVE,
        packed,
        len(packed),
    )


def bind(source: str, target: str) -> None:
    """Shows one file at ``target`` as it is."""
    mount(source, target, "", MS_BIND)


def pivot_root(new_root: str) -> None:
    """Makes ``new_root`` the root of this mount namespace and lets go of the old one."""
    number = _PIVOT_ROOT.get(ARCHITECTURE)
    if number is None:
        raise OSError(0, f"pivot_root: no number known for {ARCHITECTURE}")
    os.chdir(new_root)
    syscall("pivot_root", number, b".", b".")  # the old root now lies over the new one
    _checked(_libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def drop_capabilities() -> None:
    """Gives up every capability for good, in this process and all it may start."""
    for capability in range(64):
        with contextlib.suppress(OSError):  # beyond the kernel's last one
            prctl(PR_CAPBSET_DROP, capability)
    with contextlib.suppress(OSError):  # before 4.3 there is nothing to clear
        prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, bytes(24)), "capset")
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def become(uid: int) -> None:
    """Changes user and group for good and leaves all other groups; needs to be root."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    prctl(PR_SET_DUMPABLE, 1)


def die_with_parent(parent: int) -> None:
    """Has this process killed when its parent ends; ends at once where that has happened."""
    prctl(PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)


def limit(pairs: Sequence[tuple[int, int]]) -> None:
    """Sets soft and hard limits, each capped by the hard limit there is."""
    for what, wanted in pairs:
        _, hard = resource.getrlimit(what)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (value, value))


def kernel() -> tuple[int, int]:
    """Version of the running kernel, such as (6, 1)."""
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


def one_arena() -> None:
    """Has malloc serve all threads from one heap: each other one takes 128 MiB of addresses."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)
