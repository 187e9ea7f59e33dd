"""Our numbers against reference vectors made with other people's code.

The vectors are no part of this repository: ``LLMALIGN_VECTORS`` names the file.
"""

import copy
import importlib.util
import json
import math
import os
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAMED = os.environ.get("LLMALIGN_VECTORS")
PATH = Path(NAMED or ROOT.parent / "shared" / "methods" / "vectors.json")


def _load_adapter() -> ModuleType:
    # Under importmode=importlib a neighbour is no importable module.
    spec = importlib.util.spec_from_file_location("adapter", Path(__file__).with_name("adapter.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


adapter = _load_adapter()
CASES: list[dict[str, Any]] = json.loads(PATH.read_text()) if NAMED or PATH.is_file() else []
BUILT: list[dict[str, Any]] = []
RESULTS: dict[str, Any] = {}
NOT_BUILT: Counter[str] = Counter()


def _sort_out() -> None:
    for case in CASES:
        try:
            RESULTS[case["id"]] = adapter.ours(case)
        except adapter.NotBuilt as missing:
            NOT_BUILT[str(missing)] += 1
            continue
        except Exception as error:  # noqa: BLE001  one broken case fails its own test, below
            RESULTS[case["id"]] = error
        BUILT.append(case)


_sort_out()
needs_vectors = pytest.mark.skipif(
    not CASES, reason="no reference vectors; LLMALIGN_VECTORS can name the file"
)


@pytest.mark.parametrize("case", BUILT, ids=lambda case: case["id"])
def test_numbers_agree_with_the_reference(case: dict[str, Any]) -> None:
    found = RESULTS[case["id"]]
    if isinstance(found, Exception):
        raise found
    assert adapter.differences(found, case["expected"], case["tol"]) == []


@pytest.mark.parametrize("case", BUILT, ids=lambda case: case["id"])
def test_any_number_of_the_reference_that_moves_is_seen(case: dict[str, Any]) -> None:
    found, tol = RESULTS[case["id"]], case["tol"]
    paths = [path for path in _leaves(case["expected"]) if not _lacked(found, path)]
    assert paths
    for path in paths:
        moved = {"root": copy.deepcopy(case["expected"])}
        parent: Any = moved
        *way, last = ("root", *path)
        for key in way:
            parent = parent[key]
        parent[last] = _moved(parent[last], tol)
        assert adapter.differences(found, moved["root"], tol), path


@needs_vectors
def test_methods_that_are_built_have_vectors() -> None:
    assert {case["method"] for case in BUILT} >= {
        "GRPO", "Dr.GRPO", "RLOO", "REINFORCE++", "REINFORCE++-baseline", "PPO-clip / GRPO loss",
        "DAPO loss", "dual-clip", "KL estimators", "loss normalisation", "dpo",
    }  # fmt: skip


@needs_vectors
def test_methods_not_built_yet_are_listed() -> None:
    if NOT_BUILT:
        names = ", ".join(f"{name} ({n})" for name, n in sorted(NOT_BUILT.items()))
        pytest.skip(f"{NOT_BUILT.total()} cases of methods not built yet: {names}")


@pytest.mark.parametrize(
    ("found", "expected", "count"),
    [
        pytest.param([1.0, -2.0], [1.0, 2.0], 1, id="a flipped sign"),
        pytest.param([1.0], [1.0, 1.0], 1, id="too short"),
        pytest.param({"loss": 1.0}, {"loss": 1.0, "grad": [0.0]}, 1, id="a gradient is missing"),
        pytest.param(float("nan"), 0.0, 1, id="NaN is not 0"),
        pytest.param(0.0, float("nan"), 1, id="0 is not NaN"),
        pytest.param([float("nan")], [None], 0, id="NaN agrees with null"),
        pytest.param(
            {"metrics": {"a": 1}}, {"metrics": {"a": 1, "b": 2}}, 0, id="a metric we lack"
        ),
        pytest.param({"metrics": {"a": 1}}, {"metrics": {"a": 2}}, 1, id="a wrong metric"),
        pytest.param(["b"], ["b", "d"], 1, id="a name is missing"),
    ],
)
def test_the_comparison_sees(found: Any, expected: Any, count: int) -> None:
    assert len(adapter.differences(found, expected, 1e-6)) == count


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for i, inner in enumerate(value) for leaf in _leaves(inner, (*path, i))]
    return [path]


def _lacked(found: Any, path: tuple[Any, ...]) -> bool:
    if path and str(path[-1]).startswith("logged_"):
        return True
    return path[:1] == ("metrics",) and path[1] not in found["metrics"]


def _moved(value: Any, tol: float) -> Any:
    if isinstance(value, str):
        return f"not {value}"
    if value is None or math.isnan(value):
        return 0.0
    return value + (10 * tol or 1.0) * (1 + abs(value))
