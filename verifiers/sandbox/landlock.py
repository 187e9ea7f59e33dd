"""Landlock: which files a program may open, and no TCP, signals or abstract sockets beyond itself.

Source: include/uapi/linux/landlock.h and Documentation/userspace-api/landlock.rst of the kernel.
"""

import contextlib
import os
import struct
from collections.abc import Sequence

from . import linux

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_MAKE_FIFO, _MAKE_SYM, _REFER, _TRUNCATE = 1 << 10, 1 << 12, 1 << 13, 1 << 14
READ = READ_FILE | READ_DIR
SCRATCH = (
    READ | WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG
    | _MAKE_FIFO | _MAKE_SYM | _REFER | _TRUNCATE
)  # fmt: skip
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE  # rights that a single file can have

# ABI -> rights over files that it knows, as a count of low bits.
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_ABI, _SCOPE_ABI = 4, 6
_TCP = 3  # bind, connect
_SCOPES = 3  # abstract unix sockets, signals


def abi() -> int:
    """Version of landlock in this kernel, 0 where there is none."""
    with contextlib.suppress(OSError):
        return linux.syscall("landlock", _CREATE_RULESET, 0, 0, _CREATE_RULESET_VERSION)
    return 0


def restrict(rules: Sequence[tuple[str, int]]) -> None:
    """Leaves this process only the given rights below the given paths, for good.

    Args:
        rules: (path, rights) pairs; a path that does not exist is passed over.
    Raises:
        OSError: the kernel refuses.
    """
    version = abi()
    if not version:
        raise OSError(38, "landlock: not in this kernel")
    handled = (1 << _FS_BITS.get(version, 16)) - 1
    attributes = struct.pack("=Q", handled)
    if version >= _NET_ABI:
        attributes += struct.pack("=Q", _TCP)
    if version >= _SCOPE_ABI:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = linux.syscall(
        "landlock_create_ruleset", _CREATE_RULESET, attributes, len(attributes), 0
    )
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights & handled)
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        linux.syscall("landlock_add_rule", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
