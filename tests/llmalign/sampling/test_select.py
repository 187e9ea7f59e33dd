import itertools
import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmalign.advantages import ADVANTAGES
from llmalign.experience import ScoredGroup
from llmalign.rewards import Group, Problem, Sample, Score
from llmalign.sampling.select import chosen_rows, keep_only, select

HOWS = ["first", "spread", "balanced", "best", "random"]
# Few different values, so that ties are common; the offset makes sums of float squares useless.
GRID = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.7, 1.0, 1e8, 1e8 + 0.5])
REWARDS = st.lists(GRID, min_size=1, max_size=8)


def variance(values):
    exact = [Fraction(v) for v in values]
    mean = sum(exact) / len(exact)
    return sum((v - mean) ** 2 for v in exact) / len(exact)


@pytest.mark.parametrize(
    "how, reward, count, expected",
    [
        pytest.param("first", [0.0, 1.0, 0.0], 2, [0, 1], id="as they come"),
        pytest.param("best", [0.1, 0.7, 0.9, 0.7], 2, [1, 2], id="best: the first of equals"),
        pytest.param("spread", [0, 1, 0, 1, 1, 1], 4, [0, 1, 2, 3], id="spread: half and half"),
        pytest.param("spread", [1, 0, 0, 1], 3, [0, 1, 3], id="spread: odd, more of the right"),
        pytest.param("spread", [0.5, 0.5, 0.5], 2, [0, 1], id="spread: all equal, the first"),
        pytest.param("spread", [0.2, 0.9, 0.4], 1, [1], id="spread: of one, the best"),
        # {0, .75, 1} and {0, .25, 1} have the same variance, 13/72: fewer of the lowest
        pytest.param("spread", [0.0, 0.25, 0.75, 1.0], 3, [0, 2, 3], id="spread: equal both ways"),
        # {0, 9, 10}: 181/3 - (19/3)^2 = 20.2; {0, 0.5, 10}: 100.25/3 - (10.5/3)^2 = 21.2
        pytest.param("spread", [5, 0, 9, 0.5, 10], 3, [1, 3, 4], id="spread: two low, one high"),
        pytest.param("balanced", [1, 1, 1, 0, 1, 0], 4, [0, 1, 3, 5], id="two of each side"),
        pytest.param("balanced", [1, 1, 1, 0, 1], 4, [0, 1, 2, 3], id="a side lacks one"),
        pytest.param("balanced", [0.5, 1, 0, 0.5, 1, 0], 3, [1, 2, 4], id="the mean comes last"),
        pytest.param("balanced", [0.1] * 7, 2, [0, 1], id="balanced: all equal, the first"),
    ],
)
def test_each_rule_on_a_group_by_hand(how, reward, count, expected):
    assert select(reward, count, how=how, seed=0) == expected


@given(REWARDS, st.data())
def test_spread_finds_the_largest_variance_of_all_choices(reward, data):
    count = data.draw(st.integers(1, len(reward)))
    chosen = select(reward, count, how="spread", seed=0)
    every = itertools.combinations(reward, count)
    assert variance([reward[i] for i in chosen]) == max(map(variance, every))


@given(REWARDS, st.data())
def test_balanced_pairs_as_many_above_with_below_as_there_are(reward, data):
    count = data.draw(st.integers(1, len(reward)))
    mean = sum(map(Fraction, reward)) / len(reward)

    def sides(values):
        return [sum(v > mean for v in values), sum(v < mean for v in values)]

    chosen = sides([reward[i] for i in select(reward, count, how="balanced", seed=0)])
    assert min(chosen) == min(count // 2, *sides(reward))
    # a sample at the mean, which has no advantage, only where nothing else is left
    assert sum(chosen) == min(count, sum(sides(reward)))


@given(st.lists(st.none() | GRID | st.just(math.nan), min_size=1, max_size=9), st.data())
@pytest.mark.parametrize("how", HOWS)
def test_what_is_not_scorable_is_taken_only_when_nothing_else_is_left(how, reward, data):
    count = data.draw(st.integers(1, len(reward)))
    chosen = select(reward, count, how=how, seed=data.draw(st.integers(0, 99)))
    scored = [i for i, r in enumerate(reward) if r is not None and not math.isnan(r)]
    assert chosen == sorted(set(chosen)) and len(chosen) == count
    assert len(set(chosen) & set(scored)) == min(count, len(scored))


@given(REWARDS, st.data())
@pytest.mark.parametrize("how", ["spread", "balanced", "best"])
def test_equal_rewards_go_by_index(how, reward, data):
    count = data.draw(st.integers(1, len(reward)))
    chosen = select(reward, count, how=how, seed=0)
    for i, j in itertools.combinations(range(len(reward)), 2):
        if reward[i] == reward[j]:
            assert i in chosen or j not in chosen


def test_an_infinite_reward_is_not_scorable():
    assert select([math.inf, 0.0, -math.inf, 1.0], 2, how="spread", seed=0) == [1, 3]


def test_the_draw_is_seeded_and_does_not_look_at_the_reward():
    def draws(reward):
        return [select(reward, 2, how="random", seed=seed) for seed in range(200)]

    assert draws([0, 0, 0, 1]) == draws([1, 0, 1, 0])
    assert len({tuple(d) for d in draws([0.0] * 4)}) == 6  # every pair of four


@pytest.mark.parametrize("count", [0, 4])
def test_a_count_out_of_range_is_refused(count):
    with pytest.raises(ValueError, match=f"count is {count}, expected 1 to 3"):
        select([0, 1, 1], count, how="first", seed=0)


def test_an_unknown_rule_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="how is 'worst', expected one of first, spread"):
        select([0, 1], 1, how="worst", seed=0)


# -- which baseline --------------------------------------------------------------------------------


def scored_group(reward):
    samples = tuple(Sample(str(i), (i, 1), (-1.0, -2.0), "eos") for i in range(len(reward)))
    return ScoredGroup(Group(Problem("p", "q"), samples, 16), [Score(r) for r in reward], (7, 8))


def centred(group):
    """Reward less the mean of the group given."""
    count = len(group.scores)
    reward_B = torch.tensor([s.value for s in group.scores], dtype=torch.float64)
    ones_BT = torch.ones(count, 1, dtype=torch.bool)
    adv_BT = ADVANTAGES.get("group", "kind").thing(
        *(reward_B, torch.zeros(count, dtype=torch.int64), ones_BT, ones_BT.double() * 0),
        **{"scale": "none", "eps": 1e-4, "ddof": 1, "lone": "zero"},
    )
    return adv_BT[:, 0]


def test_the_caller_chooses_whether_the_baseline_is_of_the_chosen_or_of_all():
    group = scored_group([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    chosen = select([s.value for s in group.scores], 2, how="spread", seed=0)
    assert chosen == [0, 2]
    assert centred(keep_only(group, chosen)).tolist() == [-0.5, 0.5]  # mean 1/2
    assert centred(group)[chosen_rows([chosen], [8])].tolist() == [-0.125, 0.875]  # mean 1/8


def test_a_cut_group_keeps_its_problem_and_each_sample_its_score():
    group = scored_group([0.1, 0.2, 0.3])
    cut = keep_only(group, [0, 2])
    assert [s.text for s in cut.group.samples] == ["0", "2"]
    assert [s.value for s in cut.scores] == [0.1, 0.3]
    assert (cut.group.problem, cut.group.max_new_tokens) == (group.group.problem, 16)
    assert cut.prompt_ids == (7, 8) and len(group.scores) == 3


def test_comparisons_of_a_cut_group_name_the_samples_that_are_left():
    group = scored_group([0.1, 0.2, 0.3, 0.4])
    leads = [{1: (1.0,), 3: (2.0,)}, {3: (3.0,)}, {}, {0: (-2.0,), 1: (-3.0, None)}]
    group.scores = [replace(s, versus=v) for s, v in zip(group.scores, leads, strict=True)]
    cut = keep_only(group, [1, 3])
    assert [s.versus for s in cut.scores] == [{1: (3.0,)}, {0: (-3.0, None)}]


def test_the_rows_of_several_groups_follow_each_other():
    rows_B = chosen_rows([[0, 2], [], [1]], [3, 2, 2])
    assert rows_B.tolist() == [True, False, True, False, False, False, True]


def test_an_index_beyond_its_group_is_refused():
    with pytest.raises(ValueError, match=r"chosen is \[2\], expected indices below 2"):
        chosen_rows([[0], [2]], [2, 2])
