"""What each thing that saves work saves: seconds of a training step without it over with it.

    python benchmarks/switches.py [--workloads 1m-realistic ...] [--rounds 2] [--json]

Same weights, prompts and fixed completions as ``vs_trl.py``; every setting runs in a process of its
own, in turns. A ratio above 1 is what the switch saves; none of them changes a gradient
(tests/llmalign/test_invariance.py).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import vs_trl

SWITCHES: dict[str, dict[str, Any]] = {
    "rows without a gradient leave": {"drop_idle": False},
    "the loss is taken inside the head": {"fuse_head": False},
    "no old pass when on-policy": {"skip_old_pass": False},
    "each prompt once": {"share_prompts": "never"},
    "no padding": {"packing": "never"},
}


def child(workload: vs_trl.Workload, schedule: dict[str, Any]) -> None:
    """One setting in this process; prints the seconds of its steps."""
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        seconds = vs_trl.run_ours(workload, True, Path(folder), schedule)
    print(json.dumps(seconds[vs_trl.WARM_UP :]))


def ask(workload: vs_trl.Workload, schedule: dict[str, Any]) -> list[float]:
    """The same in a process of its own."""
    given = [json.dumps(asdict(workload)), json.dumps(schedule)]
    command = [sys.executable, __file__, "--child", *given]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{schedule} on {workload.name} failed: {done.stderr[-2000:]}")
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(workload: vs_trl.Workload, rounds: int) -> dict[str, Any]:
    """Seconds with everything on, and ratios with one switch off."""
    seconds: dict[str, list[float]] = {name: [] for name in ("all on", *SWITCHES)}
    for _ in range(rounds):
        for name in seconds:
            seconds[name] += ask(workload, SWITCHES.get(name, {}))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "workload": workload.name,
        "seconds": {name: round(t, 4) for name, t in median.items()},
        "off_over_on": {name: round(median[name] / median["all on"], 2) for name in SWITCHES},
    }


def main() -> None:
    """Prints a table per workload, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [w.name for w in vs_trl.WORKLOADS]
    parser.add_argument("--workloads", nargs="*", choices=names, default=["1m-realistic"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        workload, schedule = map(json.loads, args.child)
        child(vs_trl.Workload(**workload), schedule)
        return
    results = [measure(w, args.rounds) for w in vs_trl.WORKLOADS if w.name in args.workloads]
    if args.json:
        print(json.dumps({"results": results}, indent=1))
        return
    for found in results:
        print(f"{found['workload']}: {found['seconds']['all on']:.4f} s a step with all on")
        for name, ratio in found["off_over_on"].items():
            print(f"  {name:<36}{ratio:>6.2f} times the seconds without")


if __name__ == "__main__":
    main()
