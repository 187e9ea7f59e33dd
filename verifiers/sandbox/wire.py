"""Values as typed JSON: what passes between a program and its judge, in both directions.

null, booleans, strings, lists and integers up to 2^53 stand for themselves; everything else is an
object with one key, its type:

    {"i": "-0x1f…"} int     {"f": "0x1.8p+1"} float     {"c": [re, im]} complex
    {"q": [n, d]} Fraction  {"m": "1.50"} Decimal       {"b": "00ff"} bytes, {"y": …} bytearray
    {"t": […]} tuple        {"s": […]} set, {"z": […]} frozenset        {"d": [[k, v], …]} dict
    {"k": "int"} a builtin type
    {"h": id, …} an object that stays where it is

A subclass of one of these types is reduced to it by the base type's own methods, so that nothing
a program overrides has a say. There is no pickle here and no repr is ever evaluated.
"""

import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_DEPTH = 150
MAX_ITEMS = 2_000_000  # values in one message
MAX_BYTES = 32 * 2**20  # of one message
MAX_DECIMAL = 10_000  # characters

_SAFE = 2**53
_COLLIDING = 1000  # keys of one set or dict that may share their hashes with others

Refer = Callable[[Any], dict[str, Any]]
Resolve = Callable[[dict[str, Any]], Any]

_dumps = json.JSONEncoder(separators=(",", ":")).encode
_loads = json.JSONDecoder().decode


class WireError(ValueError):
    """The value cannot be sent, or the message is malformed or too large."""


def refuse(value: Any) -> dict[str, Any]:
    """A ``refer`` for where objects must not pass."""
    raise WireError(f"a value of type {type(value).__name__} cannot be sent")


def dumps(message: Any) -> bytes:
    """A message of plain JSON as bytes; raises WireError over ``MAX_BYTES``."""
    body = _dumps(message).encode("ascii")
    if len(body) > MAX_BYTES:
        raise WireError(f"{len(body)} bytes, at most {MAX_BYTES} can be sent")
    return body


def loads(body: bytes) -> Any:
    """The message in ``body``; raises WireError whatever the bytes are."""
    if len(body) > MAX_BYTES or sum(map(body.count, (b",", b"[", b"{"))) > 2 * MAX_ITEMS:
        raise WireError("the message is too large")
    try:
        return _loads(body.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"malformed message: {str(error)[:80]}") from None


class _Encoder:
    def __init__(self, refer: Refer) -> None:
        self._refer = refer
        self._items = 0

    def encode(self, value: Any, depth: int = 0) -> Any:
        self._items += 1
        if depth > MAX_DEPTH:
            raise WireError(f"nested deeper than {MAX_DEPTH}")
        if self._items > MAX_ITEMS:
            raise WireError(f"more than {MAX_ITEMS} values")
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if -_SAFE <= value <= _SAFE else {"i": hex(value)}
        if kind is list:
            return self._all(value, depth)
        if kind in _ATOMS:
            return _ATOMS[kind](value)
        if isinstance(value, type) and value in _TYPES.values():
            return {"k": value.__name__}
        return self._container(kind, value, depth)

    def _all(self, values: Iterable[Any], depth: int) -> list[Any]:
        return [self.encode(value, depth + 1) for value in values]

    def _container(self, kind: type, value: Any, depth: int) -> Any:
        if kind is tuple:
            return {"t": self._all(value, depth)}
        if kind is dict:
            return {"d": [self._all(pair, depth + 1) for pair in value.items()]}
        if kind is set:
            return {"s": self._all(value, depth)}
        if kind is frozenset:
            return {"z": self._all(value, depth)}
        for base, reduce in _REDUCTIONS:
            if issubclass(kind, base):
                return self.encode(reduce(value), depth)
        if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "dtype"):
            if getattr(value, "shape", None) == ():  # a NumPy number, not an array
                return self.encode(value.item(), depth + 1)
        return self._refer(value)


_ATOMS: dict[type, Callable[[Any], dict[str, Any]]] = {
    float: lambda value: {"f": value.hex()},
    bytes: lambda value: {"b": value.hex()},
    bytearray: lambda value: {"y": value.hex()},
    complex: lambda value: {"c": [value.real.hex(), value.imag.hex()]},
    Fraction: lambda value: {"q": [hex(value.numerator), hex(value.denominator)]},
    Decimal: lambda value: {"m": str(value)},
}
_BUILTIN: tuple[type, ...] = (
    bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, object
)  # fmt: skip
_TYPES: dict[str, type] = {kind.__name__: kind for kind in (*_BUILTIN, type(None))}
_EVERYTHING = slice(None)
_REDUCTIONS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, lambda value: int.__add__(value, 0)),
    (float, lambda value: float.__pos__(value)),
    (str, lambda value: str.__getitem__(value, _EVERYTHING)),
    (list, lambda value: list.__getitem__(value, _EVERYTHING)),
    (tuple, lambda value: tuple.__getitem__(value, _EVERYTHING)),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
    (bytes, lambda value: bytes.__getitem__(value, _EVERYTHING)),
    (bytearray, lambda value: bytearray.__getitem__(value, _EVERYTHING)),
)


def encode(value: Any, refer: Refer = refuse) -> Any:
    """``value`` as plain JSON; raises WireError where it is too large or ``refer`` refuses.

    Args:
        refer: gives the tagged object for what has no form of its own, such as a function.
    """
    try:
        return _Encoder(refer).encode(value)
    except RecursionError:
        raise WireError("nested too deep") from None


def decode(data: Any, resolve: Resolve | None = None) -> Any:
    """The value that ``encode`` gave ``data`` for; raises WireError whatever ``data`` is.

    Every part is exactly of a builtin type, or what ``resolve`` returns for a tag ``h``.
    """
    try:
        return _decode(data, resolve, 0)
    except WireError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise WireError(f"malformed value: {type(error).__name__}: {str(error)[:80]}") from None


def _decode(data: Any, resolve: Resolve | None, depth: int) -> Any:
    if depth > 2 * MAX_DEPTH + 2:
        raise WireError("nested too deep")
    if data is None or isinstance(data, bool | int | str):
        return data
    if isinstance(data, list):
        return [_decode(item, resolve, depth + 1) for item in data]
    if isinstance(data, dict) and "h" in data and resolve:
        return resolve(data)
    if not isinstance(data, dict) or len(data) != 1:
        raise WireError("malformed value: an object of one key was expected")
    ((tag, body),) = data.items()
    if tag in _LEAVES:
        return _LEAVES[tag](body)
    if tag == "d":
        pairs = [_decode(pair, resolve, depth + 1) for pair in body]
        _check_hashes([key for key, _ in pairs])
        return dict(pairs)
    if tag not in _GROUPS or not isinstance(body, list):
        raise WireError(f"malformed value: unknown tag {tag!r:.20}")
    items = [_decode(item, resolve, depth + 1) for item in body]
    if tag != "t":
        _check_hashes(items)
    return _GROUPS[tag](items)


def _check_hashes(keys: list[Any]) -> None:
    """Refuses keys made to collide, which would take quadratic time to insert."""
    if len(keys) > _COLLIDING and len(keys) - len({hash(key) for key in keys}) > _COLLIDING:
        raise WireError("the keys of a set or dict collide")


def _decimal(text: str) -> Decimal:
    if len(text) > MAX_DECIMAL:
        raise WireError("a decimal is too long")
    return Decimal(text)


_GROUPS: dict[str, Callable[[list[Any]], Any]] = {"t": tuple, "s": set, "z": frozenset}
_LEAVES: dict[str, Callable[[Any], Any]] = {
    "i": lambda body: int(body, 16),
    "f": lambda body: float.fromhex(body),
    "b": lambda body: bytes.fromhex(body),
    "y": lambda body: bytearray.fromhex(body),
    "c": lambda body: complex(float.fromhex(body[0]), float.fromhex(body[1])),
    "q": lambda body: Fraction(int(body[0], 16), int(body[1], 16)),
    "m": _decimal,
    "k": lambda body: _TYPES[body],
}
