import json
import math
from collections import Counter

import pytest

from llmalign.experience import ScoredGroup
from llmalign.rewards import Group, Problem, Sample, Score
from llmalign.sampling.codec import decode, encode
from llmalign.sampling.replay import ReplayBuffer, half_priority


def buffer(**changes):
    options = {"capacity": 4, "max_age": 3, "max_uses": 2, "pick": "priority"}
    return ReplayBuffer(**{**options, "encode": encode, "decode": decode, **changes})


def filled(*priorities, **changes):
    """Items a, b, c ... of steps 0, 1, 2 ... with these priorities."""
    made = buffer(**{"capacity": len(priorities), "max_age": 100, **changes})
    for step, priority in enumerate(priorities):
        made.put(step, "abcdefgh"[step], priority)
    return made


@pytest.mark.parametrize("rate, expected", [(0, 0), (0.25, 0.5), (0.5, 1), (0.75, 0.5), (1, 0)])
def test_a_pass_rate_of_one_half_comes_first(rate, expected):
    assert half_priority(rate) == expected


def test_a_pass_rate_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match="pass_rate is 1.5, expected 0 to 1"):
        half_priority(1.5)


def test_the_highest_priority_is_taken_first_with_its_age():
    assert filled(0.5, 1.0, 0.75).take(5, 2, seed=0) == [("b", 4), ("c", 3)]


def test_of_equal_priorities_the_less_used_goes_first_then_the_newer():
    made = filled(0.5, 0.5, 0.5, max_uses=3)
    taken = [made.take(3, 1, seed=0)[0][0] for _ in range(9)]
    assert taken == list("cbacbacba")


def test_an_item_is_used_so_often_and_no_more():
    made = filled(1.0, 0.5, max_uses=2)
    taken = Counter(item for _ in range(5) for item, _ in made.take(2, 2, seed=0))
    assert taken == {"a": 2, "b": 2} and len(made) == 0
    assert made.lost == {"stale": 0, "full": 0}


def test_nothing_older_than_the_bound_is_taken_and_what_is_lost_is_counted():
    made = buffer(max_age=3)
    for step in range(3):
        made.put(step, f"of {step}", 1.0)
    assert made.take(3, 9, seed=0) == [("of 2", 1), ("of 1", 2), ("of 0", 3)]  # 3 is not too old
    assert made.expire(4) == [("of 0", 4)]
    assert made.lost["stale"] == 0  # it had been of use
    made.put(4, "never used", 1.0)
    assert made.take(8, 9, seed=0) == [] and len(made) == 0
    assert made.lost["stale"] == 1


@pytest.mark.parametrize("pick", ["priority", "uniform"])
def test_what_the_present_weights_sampled_waits_and_is_not_used_up(pick):
    made = buffer(max_uses=1, pick=pick)
    made.put(5, "a", 1.0)
    assert made.take(5, 1, seed=0) == []
    assert made.take(6, 1, seed=0) == [("a", 1)]


def test_a_full_buffer_gives_up_what_would_go_last():
    made = filled(0.5, 0.25, 1.0, capacity=2)
    assert made.take(3, 9, seed=0) == [("c", 1), ("a", 3)]
    assert made.lost["full"] == 1
    oldest_goes = filled(1.0, 0.5, 0.1, capacity=2, pick="uniform")
    assert {item for item, _ in oldest_goes.take(3, 9, seed=0)} == {"b", "c"}


def test_a_uniform_draw_is_seeded_and_ignores_the_priority():
    def draw(seed, *priorities):
        return filled(*priorities, pick="uniform").take(5, 2, seed=seed)

    assert draw(7, 0, 0, 0, 1) == draw(7, 1, 1, 0, 0)
    counts = Counter(item for seed in range(400) for item, _ in draw(seed, 0, 0, 0, 1))
    assert set(counts) == set("abcd")
    # 200 expected of each; the standard deviation is 10
    assert all(abs(count - 200) < 60 for count in counts.values())


def test_a_step_before_that_of_an_item_is_refused():
    with pytest.raises(ValueError, match="step is 1, expected at least 2, that of the newest item"):
        filled(1.0, 1.0, 1.0).take(1, 1, seed=0)


def test_a_priority_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="priority is nan, expected a number"):
        buffer().put(0, "a", math.nan)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"capacity": 0}, "capacity is 0, expected >= 1"),
        ({"max_age": 0}, "max_age is 0, expected >= 1"),
        ({"max_uses": 0}, "max_uses is 0, expected >= 1"),
        ({"pick": "newest"}, "pick is 'newest', expected 'priority' or 'uniform'"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        buffer(**changes)


def scored_group(step):
    """Two samples of the weights of ``step``, with what truncated sampling leaves."""
    samples = tuple(
        Sample(
            f"{step}-{i}",
            (step, i),
            (-0.1 * step, -1 / 3),
            "eos",
            weights_version=step,
            kept_ids=bytes([step, i, 255]),
            kept_counts=bytes([1, 0]),
        )
        for i in range(2)
    )
    problem = Problem(f"p{step}", ({"role": "user", "content": "?"},), {"answer": str(step)})
    return ScoredGroup(Group(problem, samples, 8), [Score(1.0), Score(0.0)], (1, 2))


@pytest.mark.parametrize("pick", ["priority", "uniform"])
def test_a_resumed_buffer_goes_on_as_the_unbroken_one(pick):
    def run(steps, state=None):
        made = buffer(pick=pick, max_age=5)
        if state is not None:
            made.load_state_dict(state)
        trace = []
        for step in steps:
            trace.append((made.expire(step), made.take(step, 2, seed=step)))
            for _ in range(2):
                made.put(step, scored_group(step), half_priority(step % 5 / 4))
        return trace, json.loads(json.dumps(made.state_dict()))

    whole, end = run(range(20))
    first, middle = run(range(9))
    rest, resumed = run(range(9, 20), middle)
    assert first + rest == whole and resumed == end
    replayed = [pair for _, taken in whole for pair in taken]
    assert len(replayed) > 10
    # the age is that of the weights which the samples say they are of
    assert all(
        sample.weights_version + age == step
        for step, (_, taken) in enumerate(whole)
        for group, age in taken
        for sample in group.group.samples
    )
