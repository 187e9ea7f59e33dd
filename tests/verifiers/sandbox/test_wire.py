import enum
import json
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from llmalign.verifiers.sandbox import wire

Point = namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 3


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __add__(self, other: object) -> int:
        return 42

    __hash__ = int.__hash__


class LiarList(list):
    def __iter__(self) -> Any:
        return iter([42])

    def __getitem__(self, key: Any) -> Any:
        return [42]


class LiarStr(str):
    def __getitem__(self, key: Any) -> str:
        return "42"

    def __str__(self) -> str:
        return "42"


class LiarDict(dict):
    def items(self) -> Any:
        return [("x", 42)]


def there_and_back(value: Any) -> Any:
    return wire.decode(wire.loads(wire.dumps(wire.encode(value))))


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -1, 2**53, 2**53 + 1, -(10**5000), 0.1, -0.0, math.inf, 1e-320, 1 + 2j,
        "", "ä\n\x00", "\ud800", b"\x00\xff", bytearray(b"ab"), [], [[1], [2.5]], (), (1, (2,)),
        {1, 2}, frozenset({"a"}), {"a": 1, 2: "b", (1, 2): None, True: 0.0}, Fraction(-1, 3),
        Decimal("1.50"), Decimal("NaN"), int, type(None), [{"f": "0x1p+0"}], {"h": 3},
    ],
    ids=lambda value: f"{type(value).__name__}",
)  # fmt: skip
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    found = there_and_back(value)
    assert type(found) is type(value)
    # repr tells -0.0 from 0.0, 1 from True and NaN from NaN; it cannot show huge integers.
    assert found == value if isinstance(value, int) else repr(found) == repr(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, 3),
        (Point(1, 2), (1, 2)),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Liar(7), 7),
        (LiarList([1, 2]), [1, 2]),
        (LiarStr("abc"), "abc"),
        (LiarDict(a=1), {"a": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_is_reduced_by_the_base_types_own_methods(value: Any, plain: Any) -> None:
    found = there_and_back(value)
    assert type(found) is type(plain)
    assert repr(found) == repr(plain)


def test_numpy_numbers_are_plain_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    found = there_and_back([numpy.int64(3), numpy.float32(0.5), numpy.bool_(True)])
    assert found == [3, 0.5, True]
    assert [type(value) for value in found] == [int, float, bool]


def cyclic() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (cyclic(), "nested deeper"),
        ([0] * (wire.MAX_ITEMS + 1), "more than"),
        (object(), "type object cannot be sent"),
        (lambda: 1, "type function cannot be sent"),
        (len, "cannot be sent"),
        (Counter, "cannot be sent"),
    ],
    ids=["cycle", "many", "object", "lambda", "builtin", "class"],
)
def test_what_cannot_be_sent_is_refused(value: Any, message: str) -> None:
    with pytest.raises(wire.WireError, match=message):
        wire.encode(value)


def test_a_message_over_the_limit_is_refused_before_it_is_sent() -> None:
    with pytest.raises(wire.WireError, match="at most"):
        wire.dumps("x" * (wire.MAX_BYTES + 1))


@pytest.mark.parametrize(
    "body",
    [
        b"\xff", b"{", b"", b"[" * 100_000, b"1" * 10_000, b"[" + b"0," * (2 * wire.MAX_ITEMS + 2),
    ],
    ids=["not ascii", "cut", "empty", "deep", "long number", "many"],
)  # fmt: skip
def test_a_malformed_message_is_refused(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(wire.loads(body))


@pytest.mark.parametrize(
    "data",
    [
        1.5, {}, {"a": 1}, {"f": "x"}, {"f": 1}, {"i": "9" * 10 + "z"}, {"i": None}, {"b": "0"},
        {"t": 3}, {"s": [[1]]}, {"d": [[1]]}, {"d": [[[1], 2]]}, {"d": 3}, {"q": ["1", "0"]},
        {"c": ["0x1p+0"]}, {"m": "x"}, {"m": "1" * 20_000}, {"k": "eval"}, {"k": [1]}, {"h": 1},
        {"i": "1", "f": "0x1p+0"},
    ],
    ids=repr,
)  # fmt: skip
def test_a_forged_value_is_refused(data: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data)


def test_keys_made_to_collide_are_refused() -> None:
    modulus = 2**61 - 1  # hash(n * modulus) is 0 for every n
    forged = {"s": [{"i": hex(n * modulus)} for n in range(3000)]}
    with pytest.raises(wire.WireError, match="collide"):
        wire.decode(forged)


def test_a_handle_is_what_resolve_says() -> None:
    sent = wire.encode([1, object], lambda value: {"h": 5})
    assert sent == [1, {"k": "object"}]
    sent = wire.encode([1, wire.encode], lambda value: {"h": 5})
    assert wire.decode(json.loads(json.dumps(sent)), lambda tag: tag["h"] * 10) == [1, 50]
