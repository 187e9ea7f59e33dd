"""The system-call filter of a program: no new process, no other program, no socket, no way out.

A classic BPF program over ``struct seccomp_data`` (include/uapi/linux/seccomp.h), installed with
prctl: no library is needed. What is refused fails with EPERM and the program goes on; calls newer
than the tables fail with ENOSYS, so that a new kernel opens no new door.
"""

import ctypes
import errno
import struct
import sys

from . import linux

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_CLONE_THREAD = 0x00010000
_AF_UNIX = 1
_X32 = 0x40000000
_SECCOMP_MODE_FILTER = 2

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LAST_OLD_CALL = {"x86_64": 334, "aarch64": 293}  # rseq; from 424 on all tables agree
# close_range, openat2, faccessat2, epoll_pwait2, futex_waitv, fchmodat2, futex_*
_NEW_AND_HARMLESS = (436, 437, 439, 441, 449, 452, 454, 455, 456)
_CLONE3 = 435

# Name -> number on x86-64, on aarch64 (-1: there is none).
_REFUSED = {
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51),
    "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "mbind": (237, 235),
    "memfd_create": (319, 279), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195),
    "semget": (64, 190), "semctl": (66, 191), "semop": (65, 193), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "mq_notify": (244, 184),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_setup": (206, 0), "io_submit": (209, 2), "personality": (135, 92),
    "fanotify_init": (300, 262), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "lookup_dcookie": (212, 18),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116),
    "sethostname": (170, 161), "setdomainname": (171, 162), "quotactl": (179, 60),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "vhangup": (153, 58), "iopl": (172, -1), "ioperm": (173, -1),
    "modify_ldt": (154, -1), "uselib": (134, -1), "ustat": (136, -1), "sysfs": (139, -1),
}  # fmt: skip
_CLONE = {"x86_64": 56, "aarch64": 220}
_SOCKETPAIR = {"x86_64": 53, "aarch64": 199}
_KILL_CALLS = {"x86_64": (62, 234), "aarch64": (129, 131)}  # kill, tgkill
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_FCNTL = {"x86_64": 72, "aarch64": 25}
_IOCTL = {"x86_64": 16, "aarch64": 29}
_PRCTL = {"x86_64": 157, "aarch64": 167}
# F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX: signals and keys
# for other processes. PR_SET_PDEATHSIG: a program must not outlive its keeper.
_REFUSED_FCNTL = (8, 10, 15)
_REFUSED_IOCTL = (0x8901, 0x8902, 0x5412, 0x541C)


class _Filter:
    """Instructions, put together so that the call's number is loaded between the rules."""

    def __init__(self, architecture: str) -> None:
        self.code: list[tuple[int, int, int, int]] = []
        self.load(_ARCH)
        self.add(_JUMP_EQUAL, _AUDIT_ARCH[architecture], 1, 0)
        self.give(_KILL)
        self.load(_NUMBER)
        if architecture == "x86_64":
            self.add(_JUMP_GREATER_EQUAL, _X32, 0, 1)
            self.give(_KILL)

    def add(self, code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        self.code.append((code, if_true, if_false, value))

    def load(self, offset: int) -> None:
        self.add(_LOAD, offset)

    def give(self, action: int) -> None:
        self.add(_RETURN, action)

    def answer(self, number: int, action: int) -> None:
        """The same answer whatever the arguments."""
        self.add(_JUMP_EQUAL, number, 0, 1)
        self.give(action)

    def by_argument(
        self, number: int, index: int, test: int, values: tuple[int, ...], allow: bool
    ) -> None:
        """Allows (or refuses) the call only where the low word of an argument passes a test."""
        refuse = _ERROR | errno.EPERM
        self.add(_JUMP_EQUAL, number, 0, 2 * len(values) + 2)
        self.load(_ARGUMENTS + 8 * index)
        for value in values:
            self.add(test, value, 0, 1)
            self.give(_ALLOW if allow else refuse)
        self.give(refuse if allow else _ALLOW)

    def packed(self) -> bytes:
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in self.code)


def build(architecture: str, pid: int) -> bytes:
    """The filter for a program that runs as process ``pid``, as an array of ``sock_filter``."""
    found = _Filter(architecture)
    column = 0 if architecture == "x86_64" else 1
    refuse = _ERROR | errno.EPERM
    last = _LAST_OLD_CALL[architecture]
    found.add(_JUMP_GREATER_EQUAL, last + 1, 0, 2 * len(_NEW_AND_HARMLESS) + 1)
    for number in _NEW_AND_HARMLESS:
        found.answer(number, _ALLOW)
    found.give(_ERROR | errno.ENOSYS)  # clone3 too: the C library then falls back to clone
    found.by_argument(_CLONE[architecture], 0, _JUMP_SET, (_CLONE_THREAD,), allow=True)
    found.by_argument(_SOCKETPAIR[architecture], 0, _JUMP_EQUAL, (_AF_UNIX,), allow=True)
    for number in _KILL_CALLS[architecture]:
        found.by_argument(number, 0, _JUMP_EQUAL, (pid,), allow=True)
    found.by_argument(_PRLIMIT[architecture], 0, _JUMP_EQUAL, (0, pid), allow=True)
    found.by_argument(_FCNTL[architecture], 1, _JUMP_EQUAL, _REFUSED_FCNTL, allow=False)
    found.by_argument(_IOCTL[architecture], 1, _JUMP_EQUAL, _REFUSED_IOCTL, allow=False)
    refused_prctl = (linux.PR_SET_PDEATHSIG,)
    found.by_argument(_PRCTL[architecture], 0, _JUMP_EQUAL, refused_prctl, allow=False)
    for numbers in _REFUSED.values():
        if numbers[column] >= 0:
            found.answer(numbers[column], refuse)
    found.give(_ALLOW)
    return found.packed()


def install(pid: int) -> None:
    """Puts the filter on this process for good; raises OSError where the kernel refuses."""
    if linux.ARCHITECTURE not in _AUDIT_ARCH or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, f"no table of system calls for {linux.ARCHITECTURE}")
    code = build(linux.ARCHITECTURE, pid)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    holder = ctypes.create_string_buffer(program, len(program))
    linux.prctl(linux.PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, holder)
