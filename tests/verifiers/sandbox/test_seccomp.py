"""The filter's instructions, followed by hand: what each system call is answered."""

import errno
import struct

import pytest

from llmalign.verifiers.sandbox import linux, seccomp

PID = 7
ALLOW = 0x7FFF0000
KILL = 0x80000000
EPERM = 0x00050000 | errno.EPERM
ENOSYS = 0x00050000 | errno.ENOSYS
X86, ARM = 0xC000003E, 0xC00000B7


def answer(number: int, *arguments: int, arch: int = X86, table: str = "x86_64") -> int:
    """Runs the filter on one call, as the kernel does."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number, arch, 0, *padded)
    code = seccomp.build(table, PID)
    program = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    at, loaded = 0, 0
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        if operation == 0x06:
            return value
        if operation == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
            continue
        holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}
        at += if_true if holds[operation] else if_false


CLONE_THREAD, SIGCHLD = 0x00010000, 17


@pytest.mark.parametrize(
    ("number", "arguments", "expected"),
    [
        (0, (), ALLOW), (9, (), ALLOW), (231, (), ALLOW), (334, (), ALLOW),
        (57, (), EPERM), (58, (), EPERM), (59, (), EPERM), (322, (), EPERM),
        (56, (SIGCHLD,), EPERM), (56, (CLONE_THREAD | 0x100,), ALLOW), (435, (), ENOSYS),
        (41, (), EPERM), (42, (), EPERM), (53, (1,), ALLOW), (53, (2,), EPERM),
        (62, (PID, 9), ALLOW), (62, (1, 9), EPERM), (62, (0, 15), EPERM),
        (62, (0xFFFFFFFF, 15), EPERM), (234, (PID, PID, 6), ALLOW), (234, (1, 1, 9), EPERM),
        (200, (PID, 9), EPERM), (101, (), EPERM), (310, (), EPERM), (272, (), EPERM),
        (308, (), EPERM), (165, (), EPERM), (321, (), EPERM), (319, (), EPERM), (29, (), EPERM),
        (302, (0,), ALLOW), (302, (PID,), ALLOW), (302, (1,), EPERM),
        (72, (3, 3), ALLOW), (72, (3, 8), EPERM), (72, (3, 10), EPERM),
        (16, (3, 0x5401), ALLOW), (16, (0, 0x5412), EPERM), (16, (3, 0x8901), EPERM),
        (157, (1, 0), EPERM), (157, (15,), ALLOW),
        (425, (), ENOSYS), (434, (), ENOSYS), (438, (), ENOSYS), (424, (), ENOSYS),
        (436, (), ALLOW), (439, (), ALLOW), (999, (), ENOSYS), (335, (), ENOSYS),
        (0x40000000, (), KILL),
    ],
)  # fmt: skip
def test_what_a_call_is_answered(number: int, arguments: tuple[int, ...], expected: int) -> None:
    assert answer(number, *arguments) == expected


@pytest.mark.parametrize(
    ("number", "arguments", "expected"),
    [
        (63, (), ALLOW), (93, (), ALLOW), (293, (), ALLOW), (221, (), EPERM), (198, (), EPERM),
        (220, (SIGCHLD,), EPERM), (220, (CLONE_THREAD,), ALLOW), (435, (), ENOSYS),
        (129, (PID, 9), ALLOW), (129, (1, 9), EPERM), (117, (), EPERM), (97, (), EPERM),
        (40, (), EPERM), (300, (), ENOSYS),
    ],
)  # fmt: skip
def test_the_other_architecture_has_its_own_numbers(
    number: int, arguments: tuple[int, ...], expected: int
) -> None:
    assert answer(number, *arguments, arch=ARM, table="aarch64") == expected


def test_a_call_of_another_architecture_is_the_end() -> None:
    assert answer(0, arch=ARM) == KILL


def test_a_machine_without_a_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "ARCHITECTURE", "riscv64")
    with pytest.raises(OSError, match="no table of system calls for riscv64"):
        seccomp.install(PID)
