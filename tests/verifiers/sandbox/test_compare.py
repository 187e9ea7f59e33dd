import math
from decimal import Decimal
from typing import Any

import pytest

from llmalign.verifiers.sandbox.compare import (
    floats_differ,
    same_value,
    show,
    texts_differ,
    tokens_differ,
)


@pytest.mark.parametrize(
    ("got", "same"),
    [
        (b"1 2\n3\n", True), (b"1 2\n3", True), (b"1  2 \r\n3\r\n\r\n\n", True),
        (b"\t1 2\n3", True),
        (b"1 2 3\n", False), (b"1\n2\n3\n", False), (b"12\n3\n", False), (b"1 2\n\n3\n", False),
        (b"\n1 2\n3\n", False), (b"1 2\n3\n4\n", False), (b"1 2\n", False), (b"", False),
        (b"1 2\n3.0\n", False), (b"1 2\n03\n", False), (b"\x1b[31m1 2\n3", False),
        (b"1\xc2\xa02\n3", False),
    ],
    ids=repr,
)  # fmt: skip
def test_words_and_lines_count_and_blanks_do_not(got: bytes, same: bool) -> None:
    assert (tokens_differ(b"1 2\n3\n", got) == "") is same


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        (b"0.333333", b"0.3333333333", True),
        (b"1000000", b"1000000.5", True),  # 0.5 <= 1e-6 * 1e6
        (b"1", b"1.0000011", False),
        (b"0", b"0.0000009", True),
        (b"0.0", b"-0.0", True),
        (b"1.25e-1", b"0.125", True),
        (b"inf", b"inf", True),
        (b"1", b"inf", False),
        (b"inf", b"1e400", False),
        (b"1", b"nan", False),
        (b"1000", b"1_000", False),
        (b"yes 1", b"yes 1.0", True),
        (b"yes 1", b"no 1.0", False),
        (b"1 2", b"1", False),
        (b"1\n2", b"1 2", False),
        (b"1", b"1" + b"0" * 1000, False),
    ],
)
def test_numbers_agree_within_the_tolerance(expected: bytes, got: bytes, same: bool) -> None:
    assert (floats_differ(expected, got, 1e-6) == "") is same


def test_exact_texts_may_differ_in_their_last_line_end_only() -> None:
    assert texts_differ(b"a b\n", b"a b") == ""
    assert texts_differ(b"a b\n", b"a  b\n")
    assert texts_differ(b"a\nb", b"a\r\nb")


def test_the_reason_names_the_first_line_that_differs() -> None:
    assert tokens_differ(b"1\n2\n", b"1\n3\n") == "line 2 is '3', expected '2'"
    assert tokens_differ(b"1\n2\n", b"1\n") == "1 lines of output, expected 2"


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        (3, 3, True), (3, 3.0, True), (True, 1, True), (math.nan, math.nan, True),
        (3, "3", False),
        (3, None, False), (None, None, True), (None, 0, False), ("a", "a", True),
        ("a", b"a", False),
        ([1, 2], [1, 2], True), ([1, 2], (1, 2), True), ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ([[1]], [(1,)], True), ({"a": [1]}, {"a": [1]}, True), ({"1": 2}, {1: 2}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False), ([], {}, False), ([1], {1}, False), (0, [], False),
        (1.5, Decimal("1.5"), False), (0.3, 0.1 + 0.2, False),
    ],
    ids=repr,
)  # fmt: skip
def test_values_are_the_same(expected: Any, got: Any, same: bool) -> None:
    assert same_value(expected, got, tolerance=None, typed=False) is same


def test_a_tuple_is_no_list_where_types_are_given() -> None:
    assert not same_value([1], (1,), tolerance=None, typed=True)
    assert same_value({"a": (1,)}, {"a": (1,)}, tolerance=None, typed=True)
    assert same_value(frozenset({1}), frozenset({1}), tolerance=None, typed=True)
    assert not same_value({1}, frozenset({1}), tolerance=None, typed=True)


@pytest.mark.parametrize(
    ("got", "same"),
    [(2.0000001, True), (2, True), (2.001, False), (math.inf, False), (math.nan, False),
     (True, False), (10**400, False), ("2.0", False)],
    ids=repr,
)  # fmt: skip
def test_a_tolerance_reaches_numbers_only(got: Any, same: bool) -> None:
    assert same_value(2.0, got, tolerance=1e-6, typed=False) is same
    assert same_value([{"a": 2.0}], [{"a": got}], tolerance=1e-6, typed=False) is same


def test_any_value_is_shown_in_few_words() -> None:
    assert show(10 ** (10**6)) == "an integer of 3321929 bits"
    assert show([0] * 1000) == "a list of 1000 values"
    assert len(show("x" * 10**6)) <= 60
