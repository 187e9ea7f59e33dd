"""The recipe: one YAML file describes one run completely, and nothing unknown gets in.

A raw mapping goes through three stages: ``--set`` overrides, the algorithm's preset below what the
user wrote, and the strict schema. The result is frozen, has a hash, and is written back in full.
"""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError

from llmalign.presets import PRESETS
from llmalign.schema import PolicyJudgeOptions, Recipe
from llmalign.verifiers.registry import unknown


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """A checked recipe from a file or a shipped name, with ``key.path=value`` overrides.

    Raises:
        FileNotFoundError: neither a file nor a shipped recipe.
        ValueError: one line per fault, each with its place and the way out.
    """
    raw = read_recipe(name_or_path)
    for override in overrides:
        _apply(raw, override)
    return build_recipe(raw)


def build_recipe(raw: Mapping[str, Any]) -> Recipe:
    """A checked recipe from plain values: preset below, schema and registries above."""
    algorithm = raw.get("algorithm")
    if not isinstance(algorithm, str) or algorithm not in PRESETS:
        raise ValueError(f"algorithm: {unknown('algorithm', str(algorithm), PRESETS)}")
    merged = _merge(PRESETS[algorithm].choices, raw)
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(e) for e in error.errors())) from None
    return _resolve_choices(recipe)


def read_recipe(name_or_path: str) -> dict[str, Any]:
    """The raw mapping of a recipe file, or of the shipped recipe of that name."""
    path = Path(name_or_path).expanduser()
    if path.suffix not in {".yaml", ".yml"}:
        if name_or_path not in (names := list_recipes()):
            raise FileNotFoundError(
                f"{unknown('recipe', name_or_path, names)}; "
                "give a shipped name or a path to a .yaml file"
            )
        path = Path(str(resources.files("llmalign.recipes"))) / f"{name_or_path}.yaml"
    elif not path.is_file():
        raise FileNotFoundError(f"recipe {str(path)!r} does not exist, expected a .yaml file")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=RecipeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: holds {type(raw).__name__}, expected a mapping of recipe keys")
    raw.setdefault("name", path.stem)
    return raw


def list_recipes() -> dict[str, str]:
    """Shipped recipes: name -> first comment line."""
    root = Path(str(resources.files("llmalign.recipes")))
    found = {}
    for path in sorted(root.rglob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[str(path.relative_to(root).with_suffix(""))] = first.lstrip("# ").strip()
    return found


def json_schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors; what registries know by their signatures."""
    from llmalign.advantages import ADVANTAGES
    from llmalign.catalogue import reward_schemas
    from llmalign.losses import LOSSES

    schema = Recipe.model_json_schema()
    schema["$defs"] |= reward_schemas()
    schema["properties"]["reward"] = {
        "description": "A reward's name, or a mapping from one name to its options.",
        "anyOf": [{"$ref": "#/$defs/Reward"}, {"type": "null"}],
        "default": None,
    }
    schema["properties"]["algorithm"] = {"enum": sorted(PRESETS)}
    for key, registry in (("loss", LOSSES), ("advantage", ADVANTAGES)):
        schema["properties"][key] = {
            "type": "object",
            "properties": {"kind": {"enum": [entry.name for entry in registry.entries()]}},
            "description": "; ".join(
                f"{e.name}: {', '.join(e.options())}" for e in registry.entries()
            ),
        }
    schema["properties"]["judge"] = _judge_schema()
    schema["required"] = ["algorithm", "model", "data"]
    return schema


def _judge_schema() -> dict[str, Any]:
    """Either form of the ``judge`` block, or none."""
    from llmalign.catalogue import type_schema
    from llmalign.rewards.judge import JudgeOptions

    forms: list[dict[str, Any]] = []
    for options in (PolicyJudgeOptions, JudgeOptions):
        hints = get_type_hints(options)
        form = {"properties": {name: type_schema(hint) for name, hint in hints.items()}}
        forms.append(
            {"type": "object", "required": ["model"], "additionalProperties": False} | form
        )
    forms[1]["properties"]["model"] |= {"not": {"const": "frozen_policy"}}
    description = "A model behind an API, or the policy as the run starts (frozen_policy)."
    return {"description": description, "anyOf": [*forms, {"type": "null"}], "default": None}


class RecipeLoader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number (YAML 1.1 wants 1.0e-3) and refuses a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).replace("_", ""))


def _install_floats() -> None:
    RecipeLoader.add_implicit_resolver(
        "tag:llmalign,float",
        re.compile(r"^[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )
    RecipeLoader.add_constructor("tag:llmalign,float", _read_float)


_install_floats()


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, mapping by mapping; another ``kind`` drops the options below it."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            if "kind" in value and value["kind"] != under.get("kind"):
                under = {}
            merged[key] = _merge(under, value)
        else:
            merged[key] = value
    return merged


def _apply(raw: dict[str, Any], override: str) -> None:
    """Writes one ``a.b.c=value`` into ``raw``; a number addresses a list item."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ValueError(f"--set is {override!r}, expected key.path=value")
    value = yaml.load(text, Loader=RecipeLoader)
    node: Any = raw
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                place = ".".join(keys[:depth])
                raise ValueError(f"--set {path}: {place} has {len(node)} items, no item {key!r}")
            if last:
                node[int(key)] = value
            else:
                node = node[int(key)]
            continue
        if last:
            node[key] = value
        else:
            if not isinstance(node.get(key), dict | list):
                node[key] = {}
            node = node[key]


def _explain(error: Any) -> str:
    """One pydantic fault in the words of the house: place, value, what was expected."""
    location = [p for p in error["loc"]]
    place = ".".join(str(p) for p in location)
    if error["type"] == "extra_forbidden":
        parent = ".".join(str(p) for p in location[:-1])
        known = _known_keys(location[:-1])
        return f"{parent + ': ' if parent else ''}{unknown('key', str(location[-1]), known)}"
    if error["type"] == "missing":
        return f"{place} is missing; it has no default on purpose"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place} is {error['input']!r:.80}, expected: {message[0].lower()}{message[1:]}"


def _known_keys(location: Sequence[Any]) -> list[str]:
    block: Any = Recipe
    blocks: list[Any] = []
    for key in location:
        if key not in block.model_fields:  # one of several forms, by its kind
            block = next(b for b in blocks if key in get_args(b.model_fields["kind"].annotation))
            continue
        annotation = block.model_fields[key].annotation
        blocks = [a for a in (annotation, *get_args(annotation)) if _is_block(a)]
        block = blocks[0]
    return list(block.model_fields)


def _is_block(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _resolve_choices(recipe: Recipe) -> Recipe:
    """Fills in what the registries know, and checks what only a whole recipe can say."""
    from llmalign.advantages import ADVANTAGES, convention
    from llmalign.contradictions import check
    from llmalign.losses import LOSSES
    from llmalign.token_weights import TOKEN_WEIGHTS

    update = {}
    for key, registry in (
        ("loss", LOSSES),
        ("advantage", ADVANTAGES),
        ("token_weights", TOKEN_WEIGHTS),
    ):
        choice = getattr(recipe, key)
        if choice is not None:
            entry = registry.get(choice.kind, f"{key}.kind")
            given = choice.options
            if key == "advantage" and recipe.advantage.like is not None:
                given = convention(recipe.advantage.like, choice.kind) | given
            options = entry.resolve(given, key)
            update[key] = choice.model_copy(update=options)
    recipe = recipe.model_copy(update=update)
    check(recipe)
    return recipe
