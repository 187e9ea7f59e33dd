"""What scoring costs when functions misbehave: the reward host beside the same calls in a row.

    python benchmarks/reward_host.py [--samples 64 512 4096] [--workers 2] [--timeout 1.0]

A function of one's own, called once per sample in worker processes, judges samples of which 1 %
hang for good, 1 % kill their process, 5 % are slow (0.2 s) and the rest take 2 ms, all of it
sleeping, so that the figures are the host's and not the machine's. The serial sum is what one
process would need that ends a hang after the same time limit and loses nothing else. Prints one
JSON object per size: seconds, their ratio, what became of the samples, and how many processes
were left behind.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llmalign.rewards import Group, Problem, RewardHost, Sample, build_reward

SLOW_S, FAST_S = 0.2, 0.002
MODULE = f"""
import os
import time

def judge(completions, **columns):
    for text in completions:
        if text.startswith("hang"):
            while True:
                time.sleep(1)
        if text.startswith("die"):
            os._exit(1)
        time.sleep({SLOW_S} if text.startswith("slow") else {FAST_S})
    return [float(len(text)) for text in completions]
"""


def kinds(count: int) -> list[str]:
    """What each sample does; spread evenly, the same every time."""
    found = ["fast"] * count
    for kind, every, first in (("slow", 20, 3), ("hang", 100, 50), ("die", 100, 90)):
        for i in range(first, count, every):
            found[i] = kind
    return found


def measure(count: int, workers: int, timeout_s: float) -> dict[str, Any]:
    """Scores ``count`` samples, 8 a group, group by group as generation would submit them."""
    texts = [f"{kind} {i}" for i, kind in enumerate(kinds(count))]
    groups = [
        Group(Problem(str(i), "q"), tuple(Sample(t, (1,), (), "eos") for t in texts[i : i + 8]))
        for i in range(0, count, 8)
    ]
    reward = build_reward({"call": {"function": "misbehaving:judge", "per_sample": True}})
    host = RewardHost(reward, workers=workers, timeout_s=timeout_s)
    host.score([Group(Problem("warm", "q"), (Sample("fast", (1,), (), "eos"),) * workers)])
    host.stats()
    began = time.perf_counter()
    futures = [host.submit(group) for group in groups]
    scores = [score for future in futures for score in future.result()]
    seconds = time.perf_counter() - began
    stats, alive = host.stats(), workers_alive()
    host.close()
    wrong = [
        text
        for text, score in zip(texts, scores, strict=True)
        if score.value != (None if text[:4] in ("hang", "die ") else float(len(text)))
    ]
    of = {kind: kinds(count).count(kind) for kind in ("fast", "slow", "hang", "die")}
    serial = of["fast"] * FAST_S + of["slow"] * SLOW_S + of["hang"] * timeout_s
    return {
        "samples": count,
        "workers": workers,
        "seconds": round(seconds, 2),
        "serial_seconds": round(serial, 2),
        "ratio": round(seconds / serial, 3),
        "kinds": of,
        "undecided": stats.undecided,
        "lost_or_wrong": len(wrong),
        "slowest": [name for name, _, _ in stats.slowest],
        "workers_while_scoring": alive,
        "processes_left": workers_alive(),
    }


def workers_alive() -> int:
    """Worker processes that were started from this one and still run, orphans included."""
    own = [b"llmalign.verifiers.worker", str(os.getpid()).encode()]
    count = 0
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            count += all(part in entry.read_bytes().split(b"\0") for part in own)
    return count


def main() -> None:
    """Runs each size and prints a line for it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds a call may take")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "misbehaving.py").write_text(MODULE)
        sys.path.insert(0, folder)
        for count in args.samples:
            print(json.dumps(measure(count, args.workers, args.timeout)), flush=True)


if __name__ == "__main__":
    main()
