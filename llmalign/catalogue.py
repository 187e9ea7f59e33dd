"""What the registries hold, for three readers: a person at a terminal, an editor (JSON schema) and
the pages under docs/. All of it is read from signatures and docstrings, so none of it can be stale.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from llmalign.rewards import REWARDS, build_reward
from llmalign.rewards.node import Node
from llmalign.verifiers.registry import REQUIRED, Entry, describe, unknown

_ARGUMENT = re.compile(r"    (\w+(?:, \w+)*): (.*)")
_SENTENCE_END = re.compile(r"\.(?:\s|$)")
_SECTIONS = re.compile(r"<!-- rewards: ([\w ]+) -->\n.*?<!-- end -->\n", re.DOTALL)
_NAME_HELP = "What it is called in logs; a suffix makes it unique."
_WEIGHT_HELP = "What its value is multiplied by, as written."


def row(entry: Entry) -> dict[str, Any]:
    """An entry in one line: name, summary, signature, paper and the names of its options."""
    return {
        "name": entry.name,
        "summary": entry.summary,
        "signature": entry.signature,
        "paper": entry.paper,
        "options": ", ".join(entry.options()),
    }


def full_row(entry: Entry) -> dict[str, Any]:
    """All there is to know of an entry, as JSON values: ``row``, whose ``options`` are mappings
    with ``name``, ``type``, ``default``, ``required`` and ``help``, and ``doc``; for a reward
    ``need``, ``range`` and ``example`` too.
    """
    found = {**row(entry), "options": _options(entry), "doc": inspect.getdoc(entry.thing) or ""}
    if entry.name in REWARDS and REWARDS.get(entry.name, "").thing is entry.thing:
        found |= {
            "need": reward_need(entry),
            "range": reward_range(entry),
            "example": entry.traits.get("example"),
        }
    return found


def _options(entry: Entry) -> list[dict[str, Any]]:
    helps = argument_help(entry.thing)
    return [
        {
            "name": name,
            "type": _type(entry, name, annotation),
            "default": None if default is REQUIRED else default,
            "required": default is REQUIRED,
            "help": helps.get(name, ""),
        }
        for name, (annotation, default) in _own_options(entry).items()
    ]


def _own_options(entry: Entry) -> dict[str, tuple[Any, Any]]:
    """Options but ``name``, which every reward has and which is not required in a recipe."""
    return {name: given for name, given in entry.options().items() if name != "name"}


def _type(entry: Entry, name: str, annotation: Any) -> str:
    return "a reward, or a list of rewards" if name in _children(entry) else describe(annotation)


def _children(entry: Entry) -> tuple[str, ...]:
    children = entry.traits.get("children", ())
    return (children,) if isinstance(children, str) else tuple(children)


def argument_help(thing: Callable[..., Any]) -> dict[str, str]:
    """What the ``Args:`` of a docstring say of each argument; those of a class over its bases'."""
    found: dict[str, str] = {}
    for owner in reversed(thing.__mro__) if inspect.isclass(thing) else [thing]:
        found |= _arguments(inspect.cleandoc(owner.__doc__ or ""))
    return found


def _arguments(doc: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    for line in doc.partition("Args:\n")[2].splitlines():
        if line and not line.startswith(" "):
            break
        if match := _ARGUMENT.fullmatch(line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found


def reward_range(entry: Entry) -> str:
    """The first sentence of the docstring's ``Range:`` paragraph."""
    doc = inspect.getdoc(entry.thing) or ""
    paragraph = doc.partition("Range:")[2].partition("\n\n")[0]
    return _SENTENCE_END.split(" ".join(paragraph.split()), maxsplit=1)[0]


def reward_need(entry: Entry) -> str:
    """What the host must have ready: a reward's ``need``, or where it comes from."""
    declared = getattr(entry.thing, "need", None)
    if isinstance(declared, str):
        return declared
    shown = _need_in_example(entry)
    if not _children(entry):
        return f"by its options; {shown} in the example"
    if declared is not Node.__dict__["need"]:
        return f"of its children, at least {shown}"
    whole = getattr(entry.thing, "whole_batch", False)
    return "of its children, all groups of a step at once" if whole else "of its children"


def _need_in_example(entry: Entry) -> str:
    built = build_reward(entry.traits["example"]) if "example" in entry.traits else None
    return "unknown" if built is None else built.need


def in_lines(given: Mapping[str, Any]) -> list[str]:
    """A ``full_row`` for a person: docstring, options, and the example as YAML."""
    lines = [given["name"], "", *given["doc"].splitlines()]
    facts = [(k, given.get(k)) for k in ("paper", "signature", "need")]
    lines += ["", *(f"{key}: {value}" for key, value in facts if value)]
    if given["options"] or "paper" in given:
        lines += ["", "options:" if given["options"] else "options: none"]
    for option in given["options"]:
        shown = json.dumps(option["default"], ensure_ascii=False)
        default = "required" if option["required"] else f"default {shown}"
        lines.append(f"  {option['name']}: {option['type']}; {default}")
    if given.get("example") is not None:
        lines += ["", "example:", *("  " + line for line in _block(given["example"]))]
    return lines


def _block(example: Any) -> list[str]:
    text = yaml.safe_dump({"reward": example}, sort_keys=False, allow_unicode=True, width=80)
    return text.splitlines()


# --- JSON schema of a recipe's reward block


def reward_schemas() -> dict[str, Any]:
    """Definitions ``Reward`` and ``ChildReward`` (the same with a weight) of a JSON schema."""
    found: dict[str, Any] = {"RewardName": _bare_names()}
    for kind, prefix in (("Reward", "reward"), ("ChildReward", "child")):
        weighted = kind == "ChildReward"
        for entry in REWARDS.entries():
            found[f"{prefix}_{entry.name}"] = _entry_schema(entry, weighted=weighted)
        found[f"{prefix}_function"] = _entry_schema(
            REWARDS.get("call", ""), weighted=weighted, without=("function",)
        )
        names = {e.name: {"$ref": f"#/$defs/{prefix}_{e.name}"} for e in REWARDS.entries()}
        mapping = {
            "type": "object",
            "description": "One reward and its options.",
            "properties": names,
            "patternProperties": {":": {"$ref": f"#/$defs/{prefix}_function"}},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
        found[kind] = {"anyOf": [{"$ref": "#/$defs/RewardName"}, mapping]}
    return found


def _bare_names() -> dict[str, Any]:
    bare = [entry.name for entry in REWARDS.entries() if not _required(entry)]
    function = {"type": "string", "pattern": "^[^:]+:[^:]+$", "description": "pkg.mod:function"}
    return {"anyOf": [{"enum": bare}, function]}


def _required(entry: Entry) -> list[str]:
    return [name for name, (_, default) in _own_options(entry).items() if default is REQUIRED]


def _entry_schema(entry: Entry, *, weighted: bool, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """What may stand after a reward's name: its options, its short form, or nothing."""
    options = {k: v for k, v in _own_options(entry).items() if k not in without}
    required = [name for name in _required(entry) if name not in without]
    helps = argument_help(entry.thing)
    properties: dict[str, Any] = {"name": {"type": "string", "description": _NAME_HELP}}
    if weighted:
        properties["weight"] = {"type": "number", "default": 1.0, "description": _WEIGHT_HELP}
    for name, (annotation, default) in options.items():
        properties[name] = _option_schema(entry, name, annotation)
        if default is not REQUIRED:
            properties[name]["default"] = list(default) if isinstance(default, tuple) else default
        if name in helps:
            properties[name]["description"] = helps[name]
    mapping = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    short = entry.traits.get("short")
    forms = [mapping]
    if short in options and set(required) <= {short}:
        forms.append(_short_schema(entry, short, options[short][0]))
    if not required:
        forms.append({"type": "null"})
    told = [entry.summary, f"Range: {reward_range(entry)}.", entry.paper]
    return {"description": "\n".join(filter(None, told)), "anyOf": forms}


def _option_schema(entry: Entry, name: str, annotation: Any) -> dict[str, Any]:
    if name not in _children(entry):
        return type_schema(annotation)
    return {"anyOf": [{"$ref": _child_ref(entry)}, _child_list(entry)]}


def _short_schema(entry: Entry, short: str, annotation: Any) -> dict[str, Any]:
    if short not in _children(entry):
        return type_schema(annotation)
    return {"anyOf": [{"$ref": "#/$defs/RewardName"}, _child_list(entry)]}


def _child_ref(entry: Entry) -> str:
    return f"#/$defs/{'ChildReward' if entry.traits.get('weighted') else 'Reward'}"


def _child_list(entry: Entry) -> dict[str, Any]:
    found = {"type": "array", "items": {"$ref": _child_ref(entry)}, "minItems": 1}
    return found | ({"maxItems": 1} if getattr(entry.thing, "single", False) else {})


_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def type_schema(annotation: Any) -> dict[str, Any]:
    """The JSON schema of a type hint, as ``registry.coerce`` reads it; {} for what it lets in."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, UnionType):
        return {"anyOf": [type_schema(one) for one in inner]}
    if origin in (list, tuple) or annotation in (list, tuple):
        return {"type": "array", "items": type_schema(inner[0]) if inner else {}}
    if origin is dict or annotation is dict:
        return {"type": "object"}
    return {"type": _JSON_TYPES[annotation]} if annotation in _JSON_TYPES else {}


# --- pages under docs/


def shipped_rewards() -> list[Entry]:
    """The rewards of this package, without those that others registered."""
    return [e for e in REWARDS.entries() if e.thing.__module__.startswith("llmalign.rewards.")]


def with_sections(page: str) -> str:
    """A page of documentation with the section of each reward that its comments
    ``<!-- rewards: NAME NAME … -->`` … ``<!-- end -->`` name, in place of what stood there.

    Raises:
        ValueError: a name is no reward, stands twice, or a reward stands nowhere.
    """
    named = [name for match in _SECTIONS.finditer(page) for name in match[1].split()]
    known = [entry.name for entry in shipped_rewards()]
    for name in named:
        if name not in known:
            raise ValueError(f"page: {unknown('reward', name, known)}")
        if named.count(name) > 1:
            raise ValueError(f"page: reward {name!r} stands {named.count(name)} times, expected 1")
    if missing := sorted(set(known) - set(named)):
        raise ValueError(
            f"page: rewards {', '.join(missing)} have no section; add the names to one of the "
            "lines `<!-- rewards: … -->` and run `python -m llmalign.catalogue PAGE`"
        )
    return _SECTIONS.sub(lambda match: _sections(match[1].split()), page)


def _sections(names: Iterable[str]) -> str:
    sections = "\n".join(_section(REWARDS.get(name, "page")) for name in names)
    return f"<!-- rewards: {' '.join(names)} -->\n\n{sections}\n<!-- end -->\n"


def _section(entry: Entry) -> str:
    facts = [f"need: {reward_need(entry)}", f"range: {reward_range(entry)}"]
    facts += [f"source: {entry.paper}"] if entry.paper else []
    text = f"### {entry.name}\n{_markdown(entry.summary)}\n\n{_markdown(' · '.join(facts))}\n"
    if "example" not in entry.traits:
        return text
    spec = {"reward": entry.traits["example"]}
    line = yaml.safe_dump(spec, default_flow_style=True, width=10_000, sort_keys=False)
    return f"{text}```yaml\n{line.strip()[1:-1]}\n```\n"


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace(" * ", r" \* ")


def main(paths: list[str]) -> None:
    """Rewrites the sections of each page."""
    for path in map(Path, paths):
        path.write_text(with_sections(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
