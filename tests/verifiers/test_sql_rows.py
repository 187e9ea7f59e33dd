import itertools
import random
import time
from collections import Counter

from llmalign.verifiers.sql_rows import Row, normal_form, same_rows


def test_columns_are_aligned_as_trying_every_order_would() -> None:
    chance = random.Random(0)
    outcomes: Counter[bool] = Counter()
    for _ in range(400):
        width, height = chance.randint(1, 4), chance.randint(1, 4)
        left: list[Row] = [tuple(chance.choices((0, 1, "a", None), k=width)) for _ in range(height)]
        right = [tuple(row[::-1]) for row in chance.sample(left, height)]
        if chance.random() < 0.7:
            right[0] = tuple(chance.sample(right[0], width))
        orders = list(itertools.permutations(range(width)))
        turned = [[tuple(row[i] for i in order) for row in right] for order in orders]
        expected = any(Counter(rows) == Counter(left) for rows in turned)
        assert same_rows(left, right, ordered=False)[0] is expected, (left, right)
        assert same_rows(left, right, ordered=True)[0] is any(rows == left for rows in turned)
        outcomes[expected] += 1
    assert min(outcomes.values()) > 30


def _with_parity(parity: int, width: int) -> list[Row]:
    every = itertools.product((0, 1), repeat=width)
    return [bits for bits in every if sum(bits) % 2 == parity]


def test_too_many_orders_of_columns_are_beyond_us_and_end_soon() -> None:
    # All bits of even and of odd parity: any columns but all of them together look the same.
    assert same_rows(_with_parity(0, 4), _with_parity(1, 4), ordered=False)[0] is False
    began = time.perf_counter()
    assert same_rows(_with_parity(0, 9), _with_parity(1, 9), ordered=False)[0] is None
    assert time.perf_counter() - began < 2


def test_numbers_in_a_long_row_of_near_neighbours_stay_apart() -> None:
    near = [(1 + i * 6e-7,) for i in range(50)]
    assert same_rows(near, [(1.0,)] * 50, ordered=False)[0] is False
    assert same_rows([(1.0,), (2.0,)], [(2.0000001,), (0.9999999,)], ordered=False)[0] is True


def test_a_long_result_has_a_short_normal_form_of_its_own() -> None:
    rows: list[Row] = [(i, "x" * 50) for i in range(1000)]
    forms = {normal_form(rows, True), normal_form(rows[::-1], True), normal_form(rows[:-1], True)}
    assert len(forms) == 3 and max(map(len, forms)) < 300
    assert normal_form(rows, False) == normal_form(rows[::-1], False)
