"""What can be known before training: the machine, and whether a recipe's golds can be scored."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from llmalign.schema import Recipe, Source

_PACKAGES = ("llmalign", "torch", "transformers", "trl", "accelerate", "datasets", "math-verify")
_SHOWN = 20  # bad golds in words


def machine() -> dict[str, Any]:
    """Versions, cores, memory in GiB, and how well untrusted programs can be kept apart here."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "sandbox": _sandbox(),
    }


def golds(recipe: Recipe) -> dict[str, Any]:
    """How many problems a recipe's data has, and which of them its reward could never score.

    No model is loaded.

    Raises:
        ValueError, FileNotFoundError: the data cannot be read or the reward cannot be built.
    """
    from llmalign.rewards import build_reward
    from llmalign.rewards.host import never_scorable

    sources = {"train": recipe.data.train}
    sources |= {"eval": recipe.data.eval} if recipe.data.eval is not None else {}
    found: dict[str, Any] = {"name": recipe.name, "problems": {}, "bad_golds": []}
    if recipe.reward is None:
        found["note"] = f"algorithm {recipe.algorithm!r} has no reward: no golds to check"
        return found
    reward = build_reward(recipe.reward)
    for split, source in sources.items():
        problems = _problems(recipe, source, split)
        found["problems"][split] = len(problems)
        bad = never_scorable(reward, problems)
        found["bad_golds"] += [{"id": p.id, "split": split, "why": why} for p, why in bad]
    return found


def _problems(recipe: Recipe, source: Source, split: str) -> list[Any]:
    from llmalign.data import to_problems
    from llmalign.problems import load_rows

    data = recipe.data
    rows, name = load_rows(source, split=split)
    return to_problems(
        rows,
        source=name,
        columns=data.columns,
        template=data.template,
        system=data.system,
        chat=data.chat != "never",  # whether there is a template only the model's tokenizer knows
    )


def describe(found: dict[str, Any]) -> str:
    """The findings in lines for a person."""
    here = found["machine"]
    versions = [f"{name} {number or 'missing'}" for name, number in here["versions"].items()]
    lines = [
        f"python {here['python']} on {here['system']}",
        "  " + " · ".join(versions),
        f"  {here['cores']} cores · {here['memory_gib']} GiB memory",
    ]
    sandbox = here["sandbox"]
    lines.append(f"sandbox: level {sandbox['level']}")
    lines.append(f"  works: {', '.join(sandbox['active']) or 'nothing'}")
    lines += [f"  missing: {name}: {why}" for name, why in sandbox["missing"].items()]
    lines += [f"  cannot stop: {gap}" for gap in sandbox["cannot_stop"]]
    if "recipe" in found:
        lines += _describe_recipe(found["recipe"])
    return "\n".join(lines)


def _describe_recipe(recipe: dict[str, Any]) -> list[str]:
    if "note" in recipe:
        return [f"recipe {recipe['name']}: {recipe['note']}"]
    counts = ", ".join(f"{count} {split}" for split, count in recipe["problems"].items())
    bad = recipe["bad_golds"]
    if not bad:
        return [f"recipe {recipe['name']}: {counts} problems, every gold can be scored"]
    lines = [f"recipe {recipe['name']}: {counts} problems, {len(bad)} golds cannot be scored"]
    lines += [f"  {one['split']} {one['id']}: {one['why']}" for one in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        lines.append(f"  and {len(bad) - _SHOWN} more")
    return [*lines, "  mend them, or leave them out with data.on_bad_gold=drop"]


def _sandbox() -> dict[str, Any]:
    from llmalign.verifiers import sandbox

    try:
        found = sandbox.probe()
    except sandbox.SandboxError as error:
        return {
            "level": "unusable",
            "active": [],
            "missing": {"all": str(error)},
            "cannot_stop": [],
        }
    return {
        "level": found.level,
        "active": list(found.active),
        "missing": dict(found.missing),
        "cannot_stop": list(found.cannot_stop),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory_gib() -> float | None:
    """Physical memory, or the limit of the container where that is lower."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return round(total / 2**30, 1)
