import json
import subprocess
import sys


def test_import_brings_in_nothing_heavy_and_registers_every_reward() -> None:
    code = (
        "import json, sys, llmalign.rewards as r;"
        "print(json.dumps([sorted(sys.modules), [e.name for e in r.REWARDS.entries()]]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, names = json.loads(out.stdout)
    assert not set(loaded) & {"torch", "transformers", "numpy", "sympy", "math_verify", "trl"}
    assert {"math", "countdown", "format", "length", "soft_overlong", "sum", "call"} <= set(names)
