"""Runs programs nobody trusts: kept apart from the machine, limited, and killed on time."""

from llmalign.verifiers.sandbox.cell import Limits, Run
from llmalign.verifiers.sandbox.host import opened, probe, run
from llmalign.verifiers.sandbox.isolation import LEVELS, Isolation, Level, SandboxError

__all__ = [
    "LEVELS",
    "Isolation",
    "Level",
    "Limits",
    "Run",
    "SandboxError",
    "opened",
    "probe",
    "run",
]
