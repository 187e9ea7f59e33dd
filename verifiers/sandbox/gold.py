"""The tests of a program as a gold answer: every key, checked once, ready to use."""

import ast
import builtins
import functools
import importlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llmalign.verifiers.sandbox import Limits
from llmalign.verifiers.verdict import GoldError

CHECKERS = ("tokens", "float", "exact", "custom")
TYPES = ("stdio", "function", "asserts")
DEFAULT_TOLERANCE = 1e-6

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)?")
_REFERENCE = re.compile(r"[\w.]+:\w+")


@dataclass(frozen=True, kw_only=True)
class Tests:
    """What a program must do.

    Attributes:
        type: ``stdio``: whole runs, output compared; ``function``: calls, results compared;
            ``asserts``: test code.
        cases: of stdio: ``{"stdin": text, "stdout": text}``; of function: ``{"args": list,
            "expected": value}`` and ``kwargs`` where needed.
        code: of asserts: Python that raises where the program is wrong. Trusted: it runs in the
            judging process. It may use what the program defines by name.
        entry_point: name that the program must define; ``Solution.f`` for a method of a class.
        time_limit_s: wall time, of one case (stdio, function) or of all the code (asserts).
        memory_limit_mb: address space of the program, in MiB.
        checker: of stdio: ``tokens``, ``float``, ``exact``; ``custom`` with ``checker_code``, or
            ``pkg.mod:function``. A custom checker is trusted and takes (stdin, got, expected).
        checker_code: Python that defines ``check``.
        float_tol: a and b agree where |a - b| <= float_tol max(1, |b|).
        typed: args and expected hold tags such as ``{"__tuple__": […]}``; a tuple is then no list.
        prelude: trusted code whose names the program and the tests may use, such as imports.
        shared_interpreter: run test code inside the sandbox, next to the program, where it can
            be forged: only for tests that cannot work through stand-ins.
    """

    type: str
    cases: tuple[Mapping[str, Any], ...] = ()
    code: str = ""
    entry_point: str = ""
    time_limit_s: float = 5.0
    memory_limit_mb: int = 512
    checker: str = "tokens"
    checker_code: str = ""
    float_tol: float | None = None
    typed: bool = False
    prelude: str = ""
    shared_interpreter: bool = False
    custom: Callable[..., Any] | None = field(default=None, init=False)

    @property
    def limits(self) -> Limits:
        """Limits of one run."""
        return Limits(time_s=self.time_limit_s, memory_mb=int(self.memory_limit_mb))

    @property
    def session_limits(self) -> Limits:
        """Limits of one run in which every case may take its whole time."""
        total = self.time_limit_s * (len(self.cases) + 1)
        return Limits(time_s=total, memory_mb=int(self.memory_limit_mb))

    @functools.cached_property
    def wanted_names(self) -> list[str]:
        """Names that the test code reads, and the entry point."""
        read = [
            node.id
            for node in ast.walk(ast.parse(self.code))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        ]
        entry = [self.entry_point.partition(".")[0]] if self.entry_point else []
        return list(dict.fromkeys(entry + read))

    @functools.cached_property
    def own_names(self) -> set[str]:
        """Names that the test code gives a meaning to at its top level."""
        return _bound_at_top(ast.parse(self.code))

    @functools.cached_property
    def modules(self) -> set[str]:
        """Modules of the standard library that the tests use without importing them."""
        unknown = [name for name in self.wanted_names if not hasattr(builtins, name)]
        return (set(unknown) - self.own_names) & sys.stdlib_module_names


def _bound_at_top(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.add(part.id)
            elif isinstance(part, ast.alias):
                names.add((part.asname or part.name).partition(".")[0])
    return names


def read_gold(gold: Any) -> Tests:
    """The tests in ``gold``, a mapping or its JSON text.

    Raises:
        GoldError: a key is unknown or missing, a value has the wrong type, code does not parse.
    """
    if isinstance(gold, Mapping):
        gold = json.dumps(gold, default=_not_json)
    if not isinstance(gold, str):
        raise GoldError(f"gold is {repr(gold)[:80]}, expected a mapping with type and its tests")
    return _read(gold)


def _not_json(value: Any) -> Any:
    raise GoldError(
        f"gold holds {repr(value)[:80]}, expected JSON values; use typed: true and tags"
    )


@functools.lru_cache(maxsize=8)
def _read(text: str) -> Tests:
    """Cached: the samples of a group and the pool's questions come with the same gold."""
    try:
        gold = json.loads(text)
    except ValueError as error:
        raise GoldError(f"gold is {text[:80]!r}, expected JSON: {error}") from None
    if not isinstance(gold, dict):
        raise GoldError(f"gold is {text[:80]!r}, expected a mapping with type and its tests")
    known = {item.name: item for item in fields(Tests) if item.init}
    for key, value in gold.items():
        if key not in known:
            raise GoldError(f"gold has key {key!r}, expected keys among: {', '.join(known)}")
        _check_kind(key, value)
    if gold.get("type") not in TYPES:
        raise GoldError(f"type is {gold.get('type')!r}, expected one of {', '.join(TYPES)}")
    given = {key: value for key, value in gold.items() if value is not None}
    given["cases"] = tuple(_case(given, case) for case in given.get("cases", ()))
    tests = Tests(**given)
    _CHECKS[tests.type](tests)
    _check_code("prelude", tests.prelude)
    return tests


_TEXT = ("type", "code", "entry_point", "checker", "checker_code", "prelude")


def _check_kind(key: str, value: Any) -> None:
    """Raises GoldError unless a value is of its key's kind; null stands for the default."""
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
    checks: dict[str, tuple[bool, str]] = {
        "cases": (isinstance(value, list), "a list"),
        "time_limit_s": (number and 0 < value < 1e6, "seconds > 0"),
        "memory_limit_mb": (number and value == int(value) > 0, "MiB > 0"),
        "float_tol": (number and value >= 0, "a number >= 0"),
        "typed": (isinstance(value, bool), "true or false"),
        "shared_interpreter": (isinstance(value, bool), "true or false"),
    }
    fits, expected = checks.get(key, (isinstance(value, str), "a string"))
    if not fits:
        raise GoldError(f"{key} is {repr(value)[:80]}, expected {expected}")


def _case(gold: Mapping[str, Any], case: Any) -> Mapping[str, Any]:
    wanted = {"stdin", "stdout"} if gold["type"] == "stdio" else {"args", "expected"}
    if not isinstance(case, dict) or not wanted <= case.keys():
        raise GoldError(f"case is {repr(case)[:80]}, expected keys {', '.join(sorted(wanted))}")
    if gold["type"] == "stdio":
        if not (isinstance(case["stdin"], str) and isinstance(case["stdout"], str)):
            raise GoldError(f"case is {repr(case)[:80]}, expected texts")
        return case
    named = case.get("kwargs") or {}
    if not isinstance(case["args"], list) or not isinstance(named, dict):
        raise GoldError(f"case is {repr(case)[:80]}, expected args as a list, kwargs as a mapping")
    untag = _untag if gold.get("typed") else _as_it_is
    return {
        "args": [untag(value) for value in case["args"]],
        "kwargs": {name: untag(value) for name, value in named.items()},
        "expected": untag(case["expected"]),
    }


def _as_it_is(value: Any) -> Any:
    return value


def _untag(value: Any) -> Any:
    """A value whose tagged parts are what their tags say."""
    if isinstance(value, list):
        return [_untag(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, body),) = value.items()
        if tag in _TAGS:
            try:
                return _TAGS[tag](_untag(body))
            except (TypeError, ValueError) as error:
                raise GoldError(f"{tag} holds {repr(body)[:80]}: {error}") from None
    return {key: _untag(item) for key, item in value.items()}


_TAGS: dict[str, Callable[[Any], Any]] = {
    "__tuple__": tuple,
    "__list__": list,
    "__set__": set,
    "__frozenset__": frozenset,
    "__dict__": lambda pairs: {key: item for key, item in pairs},
    "__bytes__": lambda body: bytes.fromhex(body) if isinstance(body, str) else bytes(body),
    "__float__": lambda body: float.fromhex(body) if "0x" in body else float(body),
    "__complex__": lambda parts: complex(*parts),
    "__int__": lambda body: int(body, 0),
}


def _check_stdio(tests: Tests) -> None:
    _need_cases(tests)
    if tests.checker_code or tests.checker == "custom":
        _set_custom(tests, _from_code(tests.checker_code))
    elif _REFERENCE.fullmatch(tests.checker):
        _set_custom(tests, _from_module(tests.checker))
    elif tests.checker not in CHECKERS:
        raise GoldError(
            f"checker is {tests.checker!r}, expected one of {', '.join(CHECKERS)} or pkg.mod:name"
        )
    if tests.checker == "float" and tests.float_tol is None:
        object.__setattr__(tests, "float_tol", DEFAULT_TOLERANCE)


def _check_function(tests: Tests) -> None:
    _need_cases(tests)
    _check_entry(tests)
    if not tests.entry_point:
        raise GoldError("entry_point is missing; name the function that the cases call")


def _check_asserts(tests: Tests) -> None:
    _check_entry(tests)
    if not tests.code.strip():
        raise GoldError("code is empty, expected test code that raises where a program is wrong")
    _check_code("code", tests.code)


_CHECKS = {"stdio": _check_stdio, "function": _check_function, "asserts": _check_asserts}


def _need_cases(tests: Tests) -> None:
    if not tests.cases:
        raise GoldError("cases is empty, and every program passes no tests; drop the row")


def _check_entry(tests: Tests) -> None:
    if tests.entry_point and not _DOTTED.fullmatch(tests.entry_point):
        raise GoldError(f"entry_point is {tests.entry_point!r}, expected f or Class.f")


def _check_code(name: str, code: str) -> None:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise GoldError(f"{name} is no Python: {error}: {code[:80]!r}") from None


def _set_custom(tests: Tests, check: Callable[..., Any]) -> None:
    object.__setattr__(tests, "custom", check)


def _from_code(code: str) -> Callable[..., Any]:
    space: dict[str, Any] = {"__name__": "checker"}
    _check_code("checker_code", code)
    try:
        exec(compile(code, "checker", "exec"), space)
    except Exception as error:  # noqa: BLE001  (the gold's own code, reported as its fault)
        raise GoldError(f"checker_code raises {type(error).__name__}: {error}") from None
    if not callable(space.get("check")):
        raise GoldError(f"checker_code is {code[:80]!r}, expected it to define check")
    return space["check"]


def _from_module(reference: str) -> Callable[..., Any]:
    module, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise GoldError(f"checker {reference!r} cannot be imported: {error}") from None
    if not callable(found):
        raise GoldError(f"checker {reference!r} is no function")
    return found
