"""Post-train language models with verifiable rewards, preferences, or no labels at all."""

from typing import Any

__version__ = "0.1.0"
__all__ = [
    "attack",
    "contrast_rubrics",
    "evaluate",
    "load_recipe",
    "score",
    "select_hard",
    "train",
    "verify",
]

# Imported late: verifier workers import this package and must stay free of torch. No submodule
# may bear one of these names, or importing it would put the module in the function's place.
_HOMES = {
    "attack": "llmalign.saved",
    "contrast_rubrics": "llmalign.curate",
    "evaluate": "llmalign.evaluation.run",
    "load_recipe": "llmalign.recipe",
    "score": "llmalign.saved",
    "select_hard": "llmalign.curate",
    "train": "llmalign.training",
    "verify": "llmalign.verifiers.audit",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'llmalign' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
