import json
import subprocess
import sys

import pytest

from llmalign.verifiers import VERIFIERS
from llmalign.verifiers.registry import Entry


@pytest.mark.parametrize(
    "module", ["llmalign.verifiers", "llmalign.verifiers.worker", "llmalign.verifiers.pool"]
)
def test_import_brings_in_nothing_heavy(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(out.stdout))
    assert module in loaded
    assert not loaded & {"torch", "transformers", "numpy", "sympy", "math_verify", "datasets"}


@pytest.mark.parametrize("entry", VERIFIERS.entries(), ids=lambda entry: entry.name)
def test_every_verifier_states_its_signature_and_checks_golds(entry: Entry) -> None:
    assert entry.traits["signature"].startswith(f"{entry.name}|v")
    assert callable(entry.traits["check_gold"])
    assert entry.summary
