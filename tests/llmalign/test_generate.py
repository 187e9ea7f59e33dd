"""Generators: right answers, an exact share of wrong working, splits that never meet."""

import hashlib
import re
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmalign.generate import GENERATORS, generate_rows

# a busy machine is no fault of the generator
CALM = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def arithmetic(count, *, seed=0, split="train", **options):
    return generate_rows("arithmetic", count, seed=seed, split=split, options=options)


def countdown(count, *, seed=0, split="train", **options):
    return generate_rows("countdown", count, seed=seed, split=split, options=options)


def final(solution):
    return solution.rpartition("#### ")[2]


@settings(CALM, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    terms=st.integers(2, 6),
    max_operand=st.integers(9, 99),
    operators=st.sampled_from(["+", "-", "+-", "+-*", "*"]),
    split=st.sampled_from(["train", "eval"]),
)
def test_every_answer_is_what_python_says(seed, terms, max_operand, operators, split):
    rows = arithmetic(
        8, seed=seed, split=split, terms=terms, max_operand=max_operand, operators=operators
    )
    for row in rows:
        assert row["answer"] == str(eval(row["problem"]))
        assert final(row["solution"]) == row["answer"]
        assert row["solution_is_right"]
        operands = [int(n) for n in re.findall(r"\d+", row["problem"])]
        assert len(operands) == terms and max(operands) <= max_operand
        assert set(re.sub(r"\d", "", row["problem"])) <= set(operators)


@settings(CALM, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 60),
    share=st.floats(0, 1),
    terms=st.integers(2, 5),
)
def test_exactly_the_share_is_wrong_in_one_step_and_in_the_end(seed, count, share, terms):
    rows = arithmetic(count, seed=seed, terms=terms, wrong_share=share)
    wrong = [row for row in rows if not row["solution_is_right"]]
    assert len(wrong) == round(count * share)
    for row in rows:
        lines = row["solution"].splitlines()
        steps = [line.split("=") for line in lines[:-1]]
        errors = [eval(left) != int(right) for left, right in steps]
        assert row["answer"] == str(eval(row["problem"]))
        assert len(errors) == terms - 1
        assert sum(errors) == (not row["solution_is_right"])
        assert (final(row["solution"]) == row["answer"]) == row["solution_is_right"]
        assert lines[-2].endswith(f"={final(row['solution'])}")


def test_products_are_worked_before_the_rest():
    rows = arithmetic(2000)
    row = next(r for r in rows if re.fullmatch(r"\d\+\d\*\d", r["problem"]))
    a, b, c = map(int, re.findall(r"\d", row["problem"]))
    assert row["solution"] == f"{b}*{c}={b * c}\n{a}+{b * c}={a + b * c}\n#### {a + b * c}"


def test_the_rest_is_worked_from_left_to_right():
    row = next(r for r in arithmetic(2000) if re.fullmatch(r"\d-\d\+\d", r["problem"]))
    a, b, c = map(int, re.findall(r"\d", row["problem"]))
    assert row["solution"] == f"{a}-{b}={a - b}\n{a - b}+{c}={a - b + c}\n#### {a - b + c}"


@pytest.mark.parametrize("kind", ["arithmetic", "countdown"])
def test_the_same_arguments_give_the_same_rows(kind):
    def rows(seed):
        return generate_rows(kind, 30, seed=seed, split="train", options={})

    assert rows(3) == rows(3)
    assert [r["solution"] for r in rows(3)] != [r["solution"] for r in rows(4)]


def test_the_first_rows_stay_what_they_were():
    rows = arithmetic(400, seed=0)
    digest = hashlib.sha256("\n".join(r["problem"] for r in rows).encode()).hexdigest()
    assert digest == "afc2b16031a3bb6fbb816dbddc2ded1ef22b9f175035bed6d1a3a3fb9b032f3f"


@settings(CALM, max_examples=15)
@given(seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)), terms=st.integers(2, 4))
def test_arithmetic_splits_never_share_a_problem(seeds, terms):
    train = arithmetic(150, seed=seeds[0], terms=terms)
    held_out = arithmetic(20, seed=seeds[1], split="eval", terms=terms)
    assert not {r["problem"] for r in train} & {r["problem"] for r in held_out}


def test_countdown_splits_share_no_problem_in_any_order_of_its_numbers():
    options = {"max_number": 9, "max_numbers": 3}
    keys = [
        {(*sorted(r["nums"]), r["target"]) for r in countdown(count, split=split, **options)}
        for split, count in (("train", 400), ("eval", 40))
    ]
    assert not keys[0] & keys[1]


def test_problems_are_distinct_while_there_are_enough():
    assert len({r["problem"] for r in arithmetic(2000)}) == 2000
    keys = {(*sorted(r["nums"]), r["target"]) for r in countdown(500)}
    assert len(keys) == 500


def test_more_rows_than_problems_repeat_problems_under_ids_of_their_own():
    rows = arithmetic(60, terms=2, max_operand=1, operators="+")
    assert len({r["problem"] for r in rows}) <= 4
    assert len({r["id"] for r in rows}) == 60


@settings(CALM, max_examples=15)
@given(seed=st.integers(0, 10**6), max_number=st.integers(10, 99), most=st.integers(3, 5))
def test_countdown_solutions_use_each_number_once_and_reach_the_target(seed, max_number, most):
    for row in countdown(6, seed=seed, max_number=max_number, max_numbers=most):
        exact = re.sub(r"(\d+)", r"Fraction(\1)", row["solution"])
        assert eval(exact, {"Fraction": Fraction}) == row["target"]
        assert sorted(map(int, re.findall(r"\d+", row["solution"]))) == sorted(row["nums"])
        assert 3 <= len(row["nums"]) <= most and max(row["nums"]) <= max_number
        assert 10 <= row["target"] <= 99


@pytest.mark.parametrize(
    ("kind", "split", "options", "message"),
    [
        ("arithmatic", "train", {}, "did you mean 'arithmetic'"),
        ("arithmetic", "train", {"term": 3}, "did you mean 'terms'"),
        ("arithmetic", "train", {"terms": "3"}, "terms is '3', expected an integer"),
        ("arithmetic", "test", {}, "split is 'test', expected 'train' or 'eval'"),
        ("arithmetic", "train", {"terms": 1}, "terms is 1, expected an integer >= 2"),
        ("arithmetic", "train", {"operators": "+/"}, "operators is '+/', expected some of"),
        ("arithmetic", "train", {"operators": ""}, "operators is '', expected some of"),
        ("arithmetic", "train", {"wrong_share": 1.5}, "wrong_share is 1.5, expected a share"),
        ("arithmetic", "train", {"padding": 1.0}, "padding is 1.0, expected a chance in [0, 1)"),
        ("countdown", "train", {"max_numbers": 2}, "max_numbers is 2, expected at least 3"),
        ("countdown", "train", {"max_target": 5}, "max_target is 5, expected at least 10"),
    ],
    ids=[
        "unknown-kind", "unknown-option", "wrong-type", "unknown-split", "one-term",
        "operator-not-known", "no-operator", "share-over-one", "endless-padding",
        "numbers-reversed", "targets-reversed",
    ],
)  # fmt: skip
def test_a_bad_request_says_what_was_expected(kind, split, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        generate_rows(kind, 3, seed=0, split=split, options=options)


def test_every_generator_has_a_line_of_help():
    assert {e.name for e in GENERATORS.entries()} >= {"arithmetic", "countdown"}
    assert all(entry.summary for entry in GENERATORS.entries())


def test_targets_out_of_reach_are_an_error_and_no_endless_search():
    options = {"max_number": 2, "max_numbers": 3, "min_target": 90}
    with pytest.raises(ValueError, match="no numbers up to 2 reached a target from 90 to 99"):
        generate_rows("countdown", 2, seed=0, split="train", options=options)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_chains_have_at_most_max_products(most):
    options = {"terms": 6, "max_products": most}
    rows = generate_rows("arithmetic", 200, seed=0, split="train", options=options)
    assert max(row["problem"].count("*") for row in rows) == most


def test_products_alone_cannot_be_limited():
    with pytest.raises(ValueError, match="leaves no chain of 3 terms"):
        options = {"operators": "*", "max_products": 1}
        generate_rows("arithmetic", 2, seed=0, split="train", options=options)


def test_padding_adds_lines_that_add_nothing_and_changes_nothing_else():
    def bare(solution):
        return re.sub(r"(?m)^(-?\d+)\+0=\1\n", "", solution)

    plain = arithmetic(400, wrong_share=0.5)
    padded = arithmetic(400, wrong_share=0.5, padding=0.5)
    lines = [row["solution"].count("\n") for row in padded]
    for before, after in zip(plain, padded, strict=True):
        assert {**before, "solution": ""} == {**after, "solution": ""}
        assert bare(before["solution"]) == bare(after["solution"])
        assert before["solution"].splitlines()[0] == after["solution"].splitlines()[0]
    assert 2 + 1.8 < sum(lines) / len(lines) < 2 + 2.2  # one a step on average
    assert len(set(lines)) > 5


def test_no_working_holds_a_sign_behind_an_operator():
    options = {"wrong_share": 1.0, "max_operand": 2}
    for row in generate_rows("arithmetic", 300, seed=0, split="train", options=options):
        assert not re.search(r"[+*-]-", row["solution"]), row


def test_routes_reach_right_ends_in_several_ways_and_wrong_ones_by_chance():
    options = {"operators": "+*", "max_operand": 6, "max_products": 1}
    rows = arithmetic(400, routes=True, wrong_share=0.5, **options)
    assert [r["problem"] for r in rows] == [r["problem"] for r in arithmetic(400, **options)]
    assert 150 < sum(not row["solution_is_right"] for row in rows) < 250
    for row in rows:
        steps = row["solution"].splitlines()[:-1]
        off = [step for step in steps if eval(step.replace("=", "-"))]
        assert len(steps) == 2
        assert bool(off) >= (not row["solution_is_right"]) and len(off) <= 1
        assert row["solution_is_right"] == (final(row["solution"]) == row["answer"])
    right = [r for r in arithmetic(4000, routes=True, **options) if r["problem"] == "1+2+3"]
    assert len({row["solution"] for row in right}) > 1
    with pytest.raises(ValueError, match="operators is '\\+-', expected no - with routes"):
        arithmetic(3, routes=True, operators="+-")
