"""Who may import whom. Read top down: a floor may import itself and what it lists."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "transformers", "trl", "deepspeed", "vllm", "peft", "datasets", "accelerate"}
MAY_IMPORT = {
    "verifiers": set(),
    "rewards": {"verifiers"},
    "recipes": set(),
    "llmalign": {"verifiers", "rewards", "recipes"},
}
PURE = ["llmalign/losses", "llmalign/advantages", "llmalign/token_weights"]


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def floor_of(module: str) -> str | None:
    first, _, rest = module.partition(".")
    if first != "llmalign":
        return None
    second = rest.partition(".")[0]
    return second if second in MAY_IMPORT else "llmalign"


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).glob("*.py")) + sorted(
        p
        for d in (ROOT / folder).iterdir()
        if d.is_dir() and not d.is_symlink()
        for p in d.rglob("*.py")
    )
    assert found, f"{folder} holds no source"
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_floor_imports_only_what_lies_below(folder):
    for path in sources(folder):
        for module in imports_of(path):
            # `llmalign` alone is the package's light front door
            if module == "llmalign" or module == "llmalign.__init__":
                continue
            assert floor_of(module) in {None, folder} | MAY_IMPORT[folder], f"{path}: {module}"


@pytest.mark.parametrize("folder", ["verifiers", "rewards", "recipes"])
def test_lower_floors_import_no_heavy_library(folder):
    for path in sources(folder):
        heavy = {m.partition(".")[0] for m in imports_of(path)} & HEAVY
        assert not heavy, f"{path}: imports {', '.join(sorted(heavy))}"


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_bare_names_of_our_folders_are_never_imported(folder):
    for path in sources(folder):
        bare = {m.partition(".")[0] for m in imports_of(path)} & {"rewards", "verifiers", "recipes"}
        assert not bare, f"{path}: write llmalign.{bare.pop()}"


@pytest.mark.parametrize("folder", PURE)
def test_losses_and_advantages_know_only_tensors_and_their_registry(folder):
    for path in sources(folder):
        for module in imports_of(path):
            allowed = module.startswith((folder.replace("/", "."), "llmalign.verifiers.registry"))
            assert floor_of(module) is None or allowed, f"{path}: imports {module}"


@pytest.mark.parametrize("folder", ["rewards", "verifiers", "recipes"])
def test_link_leads_to_its_folder(folder):
    link = ROOT / "llmalign" / folder
    assert link.is_symlink(), f"{link} is no link; run: ln -s ../{folder} {link}"
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("module", ["llmalign.verifiers", "llmalign.verifiers.worker"])
def test_verifiers_start_without_any_heavy_library(module):
    # Workers start from this import; the graph is checked, not the time.
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {m.partition(".")[0] for m in loaded} & (
        HEAVY | {"numpy", "sympy", "math_verify", "pydantic", "yaml"}
    )
    assert not heavy
