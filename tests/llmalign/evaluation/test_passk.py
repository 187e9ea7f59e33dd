import itertools
import statistics

import numpy as np
import pytest

from llmalign.evaluation.passk import (
    ProblemRecord,
    bootstrap_interval,
    majority_at_k,
    pass_at_k,
    summarize,
)


def record(name, marks, answers=None):
    """One sample per mark: r right, w wrong, u undecided."""
    return ProblemRecord(
        problem_id=name,
        answers=answers or [{"r": "42", "w": "41", "u": None}[m] for m in marks],
        right=[m == "r" for m in marks],
        undecided=[m == "u" for m in marks],
        tokens=[10] * len(marks),
        truncated=[m == "u" for m in marks],
    )


def vote_by_hand(subset):
    """Mean correctness of the most frequent answers of (answer, right) pairs."""
    voters = [answer for answer, _ in subset if answer is not None]
    if not voters:
        return 0.0
    winners = statistics.multimode(voters)
    return statistics.mean(dict(subset)[winner] for winner in winners)


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        expected = sum(map(any, subsets)) / len(subsets)
        assert pass_at_k(c, n, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_stable_where_the_binomials_overflow_a_float():
    # C(4000, 2000) has 1203 digits; with one right sample the chance to draw it is k / n
    assert pass_at_k(1, 4000, 2000) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("c", "n", "k", "message"),
    [
        (1, 4, 5, r"k is 5, expected 1 to 4, the number of samples; draw more"),
        (1, 4, 0, r"k is 0, expected 1 to 4"),
        (5, 4, 2, r"num_right is 5, expected 0 to num_samples = 4"),
        (-1, 4, 2, r"num_right is -1"),
    ],
    ids=["k over n", "k zero", "more right than samples", "negative"],
)
def test_pass_at_k_refuses_what_cannot_be(c, n, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(c, n, k)


@pytest.mark.parametrize(
    ("answers", "right", "expected"),
    [
        (["a", "a", "b"], [True, True, False], 1.0),
        (["a", "b", "b"], [True, False, False], 0.0),
        (["a", "b"], [True, False], 0.5),
        (["a", "b", "c"], [True, False, False], 1 / 3),
        (["a", None, None, None], [True, False, False, False], 1.0),
        ([None, None], [False, False], 0.0),
        (["a", "a", "b"], [True, False, False], 0.5),
    ],
    ids=["won", "lost", "tie of two", "tie of three", "none does not vote", "no votes", "mixed"],
)
def test_the_majority_of_all_samples_is_exact(answers, right, expected):
    assert majority_at_k(answers, right, len(answers), draws=1, seed=0) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_majority_at_k_approaches_the_mean_over_all_subsets(k):
    answers, right = ["a", "a", "b", "c", None], [True, True, False, False, False]
    subsets = list(itertools.combinations(zip(answers, right, strict=True), k))
    expected = statistics.mean(map(vote_by_hand, subsets))
    # 4,000 draws of a value in [0, 1]: standard error below 0.008
    assert majority_at_k(answers, right, k, draws=4000, seed=3) == pytest.approx(expected, abs=0.03)


def test_majority_draws_repeat_with_their_seed():
    answers, right = list("aabbbcd"), [True, True, False, False, False, False, False]
    values = [majority_at_k(answers, right, 3, draws=25, seed=s) for s in (1, 1, 2, 3, 4)]
    assert values[0] == values[1]
    assert len(set(values)) > 1


def test_majority_refuses_lists_of_different_length_and_no_draws():
    with pytest.raises(ValueError, match="right has 1 entries, expected 2 like answers"):
        majority_at_k(["a", "b"], [True], 1, draws=5, seed=0)
    with pytest.raises(ValueError, match="draws is 0, expected at least 1"):
        majority_at_k(["a", "b"], [True, False], 1, draws=0, seed=0)


def test_the_bootstrap_matches_all_resamples_of_a_small_set():
    values = np.array([0.0, 0.25, 1.0, 0.5])
    means = [statistics.mean(draw) for draw in itertools.product(values, repeat=4)]
    expected = np.quantile(means, [0.1, 0.9])
    assert bootstrap_interval(values, draws=20000, level=0.8, seed=0) == pytest.approx(
        tuple(expected), abs=0.0626
    )  # one step of the lattice of means is 0.0625


def test_the_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.random(60), draws=200, level=0.9, seed=seed)
        hits += low <= 0.5 <= high
    assert 0.82 <= hits / 200 <= 0.97  # standard error 0.02


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        (np.array([]), 0.95, r"shape \(0,\)"),
        (np.ones((2, 2)), 0.95, r"shape \(2, 2\)"),
        (np.array([1.0, np.nan]), 0.95, "finite"),
        (np.ones(3), 1.0, "level is 1.0"),
    ],
    ids=["empty", "2-d", "nan", "level"],
)
def test_the_bootstrap_refuses_what_has_no_interval(values, level, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, level=level, seed=0)


def test_a_summary_counts_and_averages_over_problems():
    found = summarize([record("a", "rrww"), record("b", "wwww"), record("c", "rruu")], [1, 2])
    assert found["problems"] == 3
    assert found["samples"] == 10
    assert found["undecided"] == 2
    assert found["pass@1"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert found["pass@k"]["1"] == pytest.approx(found["pass@1"])
    assert found["pass@k"]["2"] == pytest.approx((5 / 6 + 0 + 1) / 3)  # 1 - C(2,2)/C(4,2) = 5/6
    assert found["tokens_mean"] == 10
    assert found["distinct_answers"] == pytest.approx((2 + 1 + 1) / 3)
    assert found["truncated_share"] == pytest.approx(2 / 12)
    low, high = found["ci"]
    assert 0 <= low < found["pass@1"] < high <= 1
    assert found["pass@k_ci"]["2"][0] <= found["pass@k"]["2"] <= found["pass@k_ci"]["2"][1]
    assert found["maj@k_ci"]["2"][0] <= found["maj@k"]["2"] <= found["maj@k_ci"]["2"][1]


def test_undecided_samples_change_neither_pass_nor_majority():
    plain = summarize([record("a", "rrw"), record("b", "rww")], [1, 3])
    muddied = summarize([record("a", "urruw"), record("b", "rwuw"), record("c", "uuu")], [1, 3])
    for key in ("pass@1", "pass@k", "maj@k", "ci", "problems", "samples"):
        assert muddied[key] == plain[key]
    assert (plain["undecided"], muddied["undecided"]) == (0, 6)
    assert (plain["problems_left_out"], muddied["problems_left_out"]) == (0, 1)


def test_a_k_over_the_samples_drawn_is_refused_with_the_problem_named():
    with pytest.raises(ValueError, match=r"ks has 4, expected 1 to 3, .*\('short'\)"):
        summarize([record("long", "rrww"), record("short", "rww")], [1, 4])


def test_a_problem_with_too_few_decided_samples_leaves_that_k_alone():
    found = summarize([record("a", "rrww"), record("b", "rwuu")], [1, 4])
    assert found["pass@k"]["4"] == 1.0  # only problem a has four decided samples
    assert found["pass@1"] == pytest.approx(0.5) and found["problems"] == 2
    assert summarize([record("b", "rwuu")], [4])["pass@k"]["4"] is None


def test_a_summary_of_undecided_samples_only_has_no_figures():
    found = summarize([record("a", "uu")], [1])
    assert found["pass@1"] is None and found["ci"] is None and found["maj@k"] == {"1": None}
    assert (found["problems"], found["problems_left_out"], found["undecided"]) == (0, 1, 2)


def test_a_record_with_fields_of_different_length_is_refused():
    with pytest.raises(ValueError, match="tokens of problem 'x' has 1 entries, expected 2"):
        ProblemRecord("x", ["a", "b"], [True, False], [False, False], [3], [False, False])
