"""From what a recipe says about its reward to a tree of rewards."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmalign.rewards.base import Reward
from llmalign.verifiers.registry import Registry, coerce

# A reward is a keyword-only dataclass with a ``name``; its fields are its options. Traits:
# ``short`` (the option that a bare value stands for, as in ``format: PATTERN``), ``children`` (the
# option or options that hold rewards; each arrives as a list of ``Child``), ``weighted`` (whether
# its children take a weight) and ``example`` (what a recipe may say after ``reward:``).
REWARDS = Registry("reward")


@dataclass(frozen=True)
class Child:
    """A reward below a node, and the weight its parent gives it."""

    reward: Reward
    weight: float = 1.0


def build_reward(spec: Any, where: str = "reward") -> Reward:
    """The reward a recipe describes.

    Args:
        spec: a name (``math``), a mapping from one name to its options
            (``{math: {right: 2}}``), a sum (``{sum: [math, {format: PATTERN}]}``), or a function
            of your own (``my_pkg.my_mod:f`` or ``{call: my_pkg.my_mod:f}``). Every reward takes
            ``name`` (for logs; made unique by a suffix) and, below a sum, ``weight``.
        where: the place of ``spec``, for messages.
    Raises:
        ValueError: with its place: an unknown reward or option, a value of the wrong type.
    """
    return _build(spec, where, set(), weighted=False).reward


def _build(spec: Any, where: str, taken: set[str], *, weighted: bool) -> Child:
    kind, value = _kind_and_value(spec, where)
    if ":" in kind:
        value = {"function": kind, **_options(value, "function", f"{where}.call")}
        kind = "call"
    entry = REWARDS.get(kind, where)
    where = f"{where}.{kind}"
    options = _options(value, entry.traits.get("short"), where)
    weight = _weight(options, where, weighted)
    name = coerce(options.get("name", _own_name(kind, options)), str, f"{where}.name")
    if not name:
        raise ValueError(f"{where}.name is '', expected what the reward is called in logs")
    options["name"] = _unique(name, taken)
    nodes = _listed(entry.traits.get("children", ()))
    if nodes:
        _refuse_rewards_as_options(options, entry.options(), where)
    for listed in nodes:
        options[listed] = _as_list(options.get(listed), f"{where}.{listed}")
    options = entry.resolve(options, where)
    for option, value in options.items():
        if option not in nodes:
            _refuse_not_finite(value, f"{where}.{option}")
    for listed in nodes:
        options[listed] = _children(options[listed], where, taken, entry.traits)
    try:
        return Child(entry.thing(**options), weight)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _listed(children: str | tuple[str, ...]) -> tuple[str, ...]:
    return (children,) if isinstance(children, str) else children


def _as_list(given: Any, where: str) -> list[Any]:
    if isinstance(given, str | Mapping):
        return [given]  # one reward may stand without a list
    if not isinstance(given, list | tuple):
        raise ValueError(f"{where} is {given!r:.80}, expected a reward or a list of rewards")
    return list(given)


def _refuse_rewards_as_options(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """A list of rewards written without its dashes reads as a mapping of options."""
    for name in given:
        if name not in known and name in REWARDS:
            raise ValueError(
                f"{where}: {name!r} is a reward, expected an option; "
                f"put a dash before each reward to make them a list: [{name}: …]"
            )


def _refuse_not_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, expected a finite number; leave it out or mend it")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_not_finite(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            _refuse_not_finite(inner, f"{where}[{i}]")


def _children(specs: Any, where: str, taken: set[str], traits: Mapping[str, Any]) -> list[Child]:
    weighted = traits.get("weighted", False)
    return [
        _build(child, f"{where}[{i}]", taken, weighted=weighted) for i, child in enumerate(specs)
    ]


def _kind_and_value(spec: Any, where: str) -> tuple[str, Any]:
    if isinstance(spec, str) and spec:
        return spec, None
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((kind, value),) = spec.items()
        return str(kind), value
    raise ValueError(
        f"{where} is {repr(spec)[:80]}, expected a reward's name or a mapping from one name to its "
        f"options; {_way_out(spec)}"
    )


def _way_out(spec: Any) -> str:
    if isinstance(spec, Mapping) and "weight" in spec:
        return "indent weight below the name, with the other options: {NAME: {weight: …}}"
    if isinstance(spec, Mapping | list | tuple) and spec:
        return "put several rewards below a node, such as {sum: [NAME, NAME]}"
    return "say for example `math`"


def _options(value: Any, short: str | None, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    if short is None:
        raise ValueError(f"{where} is {repr(value)[:80]}, expected a mapping of options")
    return {short: value}


def _weight(options: dict[str, Any], where: str, weighted: bool) -> float:
    if "weight" in options and not weighted:
        raise ValueError(
            f"{where}.weight is {options['weight']!r:.80}, expected none; "
            "only a reward below a sum or a gate has a weight"
        )
    weight = coerce(options.pop("weight", 1.0), float, f"{where}.weight")
    if not math.isfinite(weight):
        raise ValueError(f"{where}.weight is {weight}, expected a finite number")
    return float(weight)


def _own_name(kind: str, options: Mapping[str, Any]) -> str:
    # A function is known by its own name: several of them would all be "call".
    function = str(options.get("function", "")) if kind == "call" else ""
    return function.rpartition(":")[2] or kind


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate
