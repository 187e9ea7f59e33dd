"""Scored groups as JSON values and back, exactly: for state that must outlive the process.

What JSON has, stays as it is; anything else is ``{"is": what, "of": content}``. Only the words of
the house are known, so that reading a checkpoint never runs anything else.
"""

import base64
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from llmalign.experience import ScoredGroup
from llmalign.rewards import Group, Problem, Sample, Score, StepScore
from llmalign.rollout.tree import Leaf, TreeGroup
from llmalign.verifiers import Judgement, Verdict

_WHAT, _CONTENT = "is", "of"
_WORDS: dict[str, Any] = {
    word.__name__: word
    for word in (
        *(ScoredGroup, Group, Problem, Sample, Score, StepScore, Judgement),
        *(TreeGroup, Leaf),
    )
}


def encode(value: Any) -> Any:
    """JSON values that ``decode`` turns back into ``value``: words of the house, and what they hold
    (numbers, text, bytes, lists, tuples, mappings).

    Raises: TypeError: ``value`` holds something else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [encode(v) for v in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and _WHAT not in value:
            return {key: encode(v) for key, v in value.items()}
        return _named("dict", [[encode(k), encode(v)] for k, v in value.items()])
    if isinstance(value, tuple):
        return _named("tuple", [encode(v) for v in value])
    if isinstance(value, bytes):
        return _named("bytes", base64.b64encode(value).decode())
    if isinstance(value, Verdict):
        return _named("Verdict", value.value)
    name = type(value).__name__
    if _WORDS.get(name) is not type(value):
        raise TypeError(
            f"a group holds {value!r:.80} of type {name}, expected numbers, text, bytes, lists, "
            "tuples and mappings; leave the column out of the data, or write it as text"
        )
    return _named(name, {f.name: encode(getattr(value, f.name)) for f in fields(value)})


def decode(state: Any) -> Any:
    """What ``encode`` was given.

    Raises: ValueError: it names a word that the house does not have.
    """
    if isinstance(state, list):
        return [decode(v) for v in state]
    if not isinstance(state, dict):
        return state
    if _WHAT not in state:
        return {key: decode(v) for key, v in state.items()}
    what, content = state[_WHAT], state[_CONTENT]
    if what == "dict":
        return {decode(k): decode(v) for k, v in content}
    if what == "tuple":
        return tuple(decode(v) for v in content)
    if what == "bytes":
        return base64.b64decode(content)
    if what == "Verdict":
        return Verdict(content)
    if what not in _WORDS:
        raise ValueError(
            f"the saved state holds a {what!r:.80}, expected one of {', '.join(_WORDS)}; "
            "go on with the version of llmalign that saved it"
        )
    return _WORDS[what](**{name: decode(v) for name, v in content.items()})


def _named(what: str, content: Any) -> dict[str, Any]:
    return {_WHAT: what, _CONTENT: content}
