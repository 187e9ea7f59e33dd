"""Named things that a recipe can choose, each with its options, its paper and one line of help.

A thing is registered by decorator where it is defined. Its options are its keyword-only
parameters, so that a recipe is checked against the signature itself and adding a thing touches
no schema. Standard library only: verifier workers start from this floor.
"""

import difflib
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

ThingT = TypeVar("ThingT", bound=Callable[..., Any])
_REQUIRED = object()


@dataclass(frozen=True)
class Entry:
    """One registered thing: a function or a class, its recipe defaults and where it comes from."""

    name: str
    thing: Callable[..., Any]
    defaults: Mapping[str, Any]
    paper: str
    traits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.thing) or "").partition("\n")[0]

    @property
    def signature(self) -> str:
        """All that can change what it says, such as ``math|v2``; empty where it states none."""
        return str(self.traits.get("signature", ""))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its positional parameters: what it is called with, besides its options."""
        named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(self.thing).parameters.values()
        return tuple(p.name for p in parameters if p.kind in named)

    def options(self) -> dict[str, tuple[Any, Any]]:
        """Option name -> (annotation, default); the default is ``REQUIRED`` where there is none."""
        signature = inspect.signature(self.thing)
        target = self.thing.__init__ if inspect.isclass(self.thing) else self.thing
        hints = get_type_hints(target)
        found = {}
        for name, parameter in signature.parameters.items():
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or name.startswith("_"):
                continue
            default = parameter.default
            if default is inspect.Parameter.empty:
                default = _REQUIRED
            found[name] = (hints.get(name, Any), self.defaults.get(name, default))
        return found

    def resolve(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        """All options, given over defaults, checked; raises ValueError that names the place."""
        options = self.options()
        for name in given:
            if name not in options:
                raise ValueError(f"{where}: {unknown('option', name, options)}")
        resolved = {}
        for name, (annotation, default) in options.items():
            value = given.get(name, default)
            if value is _REQUIRED:
                raise ValueError(
                    f"{where}: {self.name} needs option {name!r}; it has no default on purpose"
                )
            resolved[name] = coerce(value, annotation, f"{where}.{name}")
        return resolved


REQUIRED = _REQUIRED


def with_traits(**traits: Any) -> Callable[[ThingT], ThingT]:
    """Decorator: gives a function that no registry knows the traits that an entry would have."""

    def add(thing: ThingT) -> ThingT:
        thing.__dict__["traits"] = traits
        return thing

    return add


class Registry:
    """Things of one kind by name: ``registry.register("clipped", paper="…", clip_low=0.2)``."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(
        self, name: str, *, paper: str, traits: Mapping[str, Any] | None = None, **defaults: Any
    ) -> Callable[[ThingT], ThingT]:
        """Decorator. ``defaults`` are recipe defaults of keyword-only parameters that have none."""

        def add(thing: ThingT) -> ThingT:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice; choose another name")
            self._entries[name] = Entry(name, thing, defaults, paper, traits or {})
            return thing

        return add

    def get(self, name: str, where: str) -> Entry:
        """The entry called ``name``; raises ValueError with place and nearest name."""
        if name not in self._entries:
            raise ValueError(f"{where}: {unknown(self.kind, name, self._entries)}")
        return self._entries[name]

    def entries(self) -> list[Entry]:
        """All entries, by name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """``unknown KIND 'x'; did you mean 'y'?`` or the list of what there is."""
    names = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(names)) or 'none'}"
    return f"unknown {kind} {name!r}; {hint}"


def coerce(value: Any, annotation: Any, where: str) -> Any:
    """``value`` if it fits ``annotation`` (an int fits float), else ValueError at ``where``."""
    if _fits(value, annotation):
        return float(value) if annotation is float else value
    shown = repr(value)[:80]
    raise ValueError(f"{where} is {shown}, expected {describe(annotation)}")


def _fits(value: Any, annotation: Any) -> bool:
    origin = get_origin(annotation)
    if annotation is Any or annotation is inspect.Parameter.empty:
        return True
    if annotation is None or annotation is type(None):
        return value is None
    if origin is Literal:
        return value in get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(annotation))
    if origin in (list, tuple) or annotation in (list, tuple):
        inner = get_args(annotation)[:1]
        return isinstance(value, list | tuple) and all(_fits(v, i) for v in value for i in inner)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or annotation)


def describe(annotation: Any) -> str:
    """A type in the words of an error message."""
    origin = get_origin(annotation)
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in get_args(annotation))
    if annotation is None or annotation is type(None):
        return "null"
    if origin in (list, tuple) or annotation in (list, tuple):
        inner = [one for one in get_args(annotation)[:1] if one is not Any]
        return f"a list, each {describe(inner[0])}" if inner else "a list"
    return _WORDS.get(origin or annotation, str(annotation))


_WORDS = {
    float: "a number",
    int: "an integer",
    str: "a string",
    bool: "true or false",
    dict: "a mapping",
    Any: "any value",
}
