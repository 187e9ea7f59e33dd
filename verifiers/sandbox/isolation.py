"""How well programs are kept apart from the machine: levels, and what each cannot stop."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Level = Literal["none", "basic", "strict"]
LEVELS: tuple[Level, ...] = get_args(Level)

# What can be left out, in the order in which a start tries to do without.
PRIMITIVES = ("user", "namespaces", "proc", "uid", "landlock", "seccomp")
_STOPPED_BY = {
    "namespaces": (
        "the network is reachable unless the system-call filter is on",
        "a full disk: scratch files are bounded one by one only",
        "reading files that every user may read",
    ),
    "landlock": ("opening files of the machine that its user may open",),
    "seccomp": (
        "starting processes, so memory is bounded per process only",
        "signals to processes of the same user, without namespaces and landlock 6",
        "attacks on the kernel through rare system calls",
    ),
    "uid": ("acting as the trainer's own user",),
}
_ALWAYS = (
    "bugs of the kernel and side channels",
    "using the processor up to its time limit",
)


class SandboxError(RuntimeError):
    """The sandbox itself failed, or offers less than the level asked for: no verdict about it."""


@dataclass(frozen=True)
class Isolation:
    """What was found to work here, once, by running a program under it.

    ``missing`` maps each primitive that does not work to the reason.
    """

    active: tuple[str, ...]
    missing: Mapping[str, str]
    memory_mb: int | None = None  # the most a program may be given, None: no limit of our own

    @property
    def level(self) -> Level:
        """The highest level whose demands are met."""
        active = set(self.active)
        if {"namespaces", "uid", "seccomp", "landlock"} <= active:
            return "strict"
        if "uid" in active and active & {"seccomp", "landlock"}:
            return "basic"
        return "none"

    @property
    def cannot_stop(self) -> tuple[str, ...]:
        """In words, what a program can still do."""
        gaps = [gap for name, words in _STOPPED_BY.items() if name in self.missing for gap in words]
        return (*gaps, *_ALWAYS)

    def describe(self) -> str:
        """Some lines for a person."""
        lines = [f"sandbox: level {self.level}", f"  works: {', '.join(self.active) or 'nothing'}"]
        lines += [f"  missing: {name}: {why}" for name, why in self.missing.items()]
        lines += [f"  cannot stop: {gap}" for gap in self.cannot_stop]
        return "\n".join(lines)

    def demand(self, level: Level) -> None:
        """Raises SandboxError where this is below ``level``."""
        if level not in LEVELS:
            raise ValueError(f"level is {level!r}, expected one of {', '.join(LEVELS)}")
        if LEVELS.index(self.level) >= LEVELS.index(level):
            return
        why = "; ".join(f"{name}: {reason}" for name, reason in self.missing.items())
        raise SandboxError(
            f"sandbox level is {self.level!r}, expected {level!r}; missing here: {why}; allow it "
            f"(user namespaces, seccomp, landlock), or ask for level {self.level!r} by name"
        )


def elsewhere() -> dict[str, str]:
    """Why each primitive is missing on a system that is not Linux."""
    reason = f"only Linux has it, this is {sys.platform}"
    return dict.fromkeys(PRIMITIVES, reason)
