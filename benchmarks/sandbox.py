"""Programs a second and cost of a start: the sandbox beside a plain subprocess, in one run.

    python benchmarks/sandbox.py [--programs 200] [--threads 2]

Prints one JSON object: start-up in seconds, the rest in programs a second and milliseconds. The
plain subprocess isolates nothing; it is what a program costs at least without a warm interpreter.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llmalign.verifiers import sandbox
from llmalign.verifiers.code import judge

PROGRAM = "print(sum(map(int, input().split())))"
STDIN = "1 2 3\n"
FUNCTION = "def add(a, b):\n    return a + b"
CALLS = [{"args": [n, n], "expected": 2 * n} for n in range(10)]
GOLD = {"type": "function", "entry_point": "add", "cases": CALLS}


def in_sandbox() -> bool:
    """One program under the strict level."""
    return sandbox.run(PROGRAM, STDIN).stdout == b"6\n"


def in_subprocess() -> bool:
    """The same program in a new interpreter, with nothing around it."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM], input=STDIN.encode(), capture_output=True
    )
    return done.stdout == b"6\n"


def judged() -> bool:
    """One program judged by ten calls."""
    return judge(FUNCTION, GOLD, form="program").verdict.value == "right"


def measure(once: Callable[[], bool], programs: int, threads: int) -> dict[str, float]:
    """Median and 95th percentile of one after the other, and the rate of several threads."""
    seconds = []
    for _ in range(programs):
        began = time.perf_counter()
        if not once():
            raise RuntimeError(f"{once.__name__} gave a wrong result")
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        if not all(pool.map(lambda _: once(), range(programs))):
            raise RuntimeError(f"{once.__name__} gave a wrong result")
    rate = programs / (time.perf_counter() - began)
    ordered = sorted(seconds)
    return {
        "median_ms": round(1000 * statistics.median(ordered), 2),
        "p95_ms": round(1000 * ordered[int(0.95 * len(ordered))], 2),
        "programs_per_s": round(rate, 1),
    }


def main() -> None:
    """Runs everything and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    began = time.perf_counter()
    isolation = sandbox.probe()
    found: dict[str, Any] = {
        "cores": os.cpu_count(),
        "threads": options.threads,
        "level": isolation.level,
        "start_up_s": round(time.perf_counter() - began, 3),
    }
    for once in (in_sandbox, judged, in_subprocess):
        found[once.__name__] = measure(once, options.programs, options.threads)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
