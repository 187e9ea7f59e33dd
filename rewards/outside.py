"""What a worker process runs of a function of your own; see ``rewards.callable``."""

import importlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from llmalign.verifiers import Judgement, Verdict

KIND = f"{__name__}:run"  # as a verifier pool names it


def import_function(path: str) -> Callable[..., Any]:
    """The function at ``pkg.mod:function``.

    Raises:
        ValueError: there is none, or it is no ordinary function.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"function is {path!r:.80}, expected 'package.module:function'")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"function is {path!r:.80}, but: {error}; is it on PYTHONPATH?") from error
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise ValueError(f"function is {path!r:.80}, expected an ordinary function")
    return found


def values_of(path: str, arguments: dict[str, Any]) -> list[Any]:
    """What the function returns, one entry per completion: a number, None, or both a value and
    scores of steps, ``{"value": number, "steps": [[start, end, number], ...]}``.

    Raises: TypeError, ValueError: it returned something else.
    """
    found = import_function(path)(**arguments)
    count = len(arguments["completions"]) if "completions" in arguments else None
    try:
        values = list(found)
    except TypeError:
        raise TypeError(f"returned {repr(found)[:80]}, expected one value per completion") from None
    if count is not None and len(values) != count:
        raise TypeError(f"returned {len(values)} values, expected {count}: one per completion")
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return None if value is None else float(value)
    if unknown := value.keys() - {"value", "steps"}:
        raise TypeError(f"returned key {min(map(repr, unknown))}, expected value and steps")
    steps = [[int(start), int(end), float(one)] for start, end, one in value.get("steps", ())]
    for start, end, one in steps:
        if not (0 <= start <= end and math.isfinite(one)):
            raise ValueError(
                f"returned step {[start, end, one]}, expected [start, end, number] in characters"
            )
    return {"value": _plain(value.get("value")), "steps": steps}


def run(text: str, gold: Any, *, function: str) -> Judgement:
    """Calls ``function`` with the arguments in ``gold``; the answer is its values as JSON.

    Whatever it raises, and whatever time it takes, is for the worker to turn into UNDECIDED.
    """
    values = values_of(function, gold["arguments"])
    return Judgement(Verdict.RIGHT, json.dumps(values), "")


# Imported before the clock of the first call starts.
run.traits = {"prepare": lambda function: import_function(function)}  # type: ignore[attr-defined]
