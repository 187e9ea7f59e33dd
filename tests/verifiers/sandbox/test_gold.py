import json
from typing import Any

import pytest

from llmalign.verifiers import GoldError
from llmalign.verifiers.sandbox.gold import read_gold

STDIO = {"type": "stdio", "cases": [{"stdin": "1", "stdout": "1"}]}
FUNCTION = {"type": "function", "entry_point": "f", "cases": [{"args": [1], "expected": 1}]}
ASSERTS = {"type": "asserts", "entry_point": "f", "code": "assert f(1) == 1"}


def test_what_is_not_said_has_a_default() -> None:
    tests = read_gold(STDIO | {"time_limit_s": None})
    assert (tests.time_limit_s, tests.memory_limit_mb, tests.checker) == (5.0, 512, "tokens")
    assert read_gold(STDIO | {"checker": "float"}).float_tol == 1e-6


def test_a_gold_may_be_its_own_json_text() -> None:
    assert read_gold(json.dumps(ASSERTS)) == read_gold(ASSERTS)


def test_tags_stand_for_types_where_the_gold_is_typed() -> None:
    expected = {"__dict__": [[{"__tuple__": [1, 2]}, {"__set__": [3]}], ["b", {"__bytes__": "00"}]]}
    gold = FUNCTION | {"cases": [{"args": [expected], "expected": expected}]}
    value = {(1, 2): {3}, "b": b"\x00"}
    assert read_gold(gold | {"typed": True}).cases[0]["expected"] == value
    assert read_gold(gold).cases[0]["expected"] == expected


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        (None, "gold is None, expected a mapping"),
        ([1], "expected a mapping"),
        ("{", "expected JSON"),
        ("[]", "expected a mapping"),
        ({}, "type is None, expected one of stdio"),
        (STDIO | {"type": "magic"}, "type is 'magic'"),
        (STDIO | {"time_limits": 3}, "key 'time_limits', expected keys among"),
        (STDIO | {"cases": []}, "cases is empty"),
        (STDIO | {"cases": "x"}, "cases is 'x', expected a list"),
        (STDIO | {"cases": [{"stdin": "1"}]}, "expected keys stdin, stdout"),
        (STDIO | {"cases": [{"stdin": 1, "stdout": "1"}]}, "expected texts"),
        (STDIO | {"time_limit_s": 0}, "time_limit_s is 0, expected seconds > 0"),
        (STDIO | {"time_limit_s": True}, "time_limit_s is True"),
        (STDIO | {"memory_limit_mb": 0.5}, "memory_limit_mb is 0.5"),
        (STDIO | {"memory_limit_mb": float("inf")}, "memory_limit_mb is inf"),
        (STDIO | {"time_limit_s": float("nan")}, "time_limit_s is nan"),
        (STDIO | {"float_tol": -1}, "float_tol is -1"),
        (STDIO | {"checker": "fuzzy"}, "checker is 'fuzzy'"),
        (STDIO | {"checker": "custom"}, "expected it to define check"),
        (STDIO | {"checker": "custom", "checker_code": "def check(:"}, "checker_code is no Python"),
        (STDIO | {"checker": "custom", "checker_code": "1/0"}, "ZeroDivisionError"),
        (STDIO | {"checker": "no_such_module:check"}, "cannot be imported"),
        (FUNCTION | {"entry_point": None}, "entry_point is missing"),
        (FUNCTION | {"entry_point": "a b"}, "entry_point is 'a b'"),
        (FUNCTION | {"entry_point": "a.b.c"}, "expected f or Class.f"),
        (FUNCTION | {"cases": [{"args": 1, "expected": 1}]}, "args as a list"),
        (FUNCTION | {"cases": [{"args": [{1}], "expected": 1}]}, "expected JSON values"),
        (ASSERTS | {"code": " "}, "code is empty"),
        (ASSERTS | {"code": "assert ("}, "code is no Python"),
        (ASSERTS | {"prelude": "import"}, "prelude is no Python"),
        (ASSERTS | {"shared_interpreter": "yes"}, "expected true or false"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_gold_that_cannot_be_used_is_refused_with_its_reason(gold: Any, message: str) -> None:
    with pytest.raises(GoldError) as raised:
        read_gold(gold)
    assert message in str(raised.value)
