import json

import pytest

from llmalign.observe.monitors import Alarm, Monitors
from llmalign.schema import Limit
from llmalign.schema import Monitors as Options


def look(monitors: Monitors, metric: str, *values: float | None) -> list[list[Alarm]]:
    return [monitors.look({metric: value}) for value in values]


def test_a_level_warns_once_after_enough_steps_and_again_after_it_was_below() -> None:
    monitors = Monitors(Options(truncated=Limit(warn=0.5), patience=2))
    found = look(monitors, "truncated_share", 0.6, 0.6, 0.6, 0.5, 0.9, 0.9)
    assert [len(alarms) for alarms in found] == [0, 1, 0, 0, 0, 1]
    assert not found[1][0].stop
    assert found[1][0].message == (
        "share of samples cut at the limit is 0.6, above monitors.truncated.warn 0.5 for 2 steps; "
        "raise rollout.max_new_tokens, or put a price on length (overlong)"
    )


def test_a_stop_comes_with_every_step_from_there_on() -> None:
    options = Options(reward_length=Limit(warn=0.7, stop=0.9), patience=2)
    found = look(Monitors(options), "reward_length", 0.95, 0.95, 0.95)
    assert [[alarm.stop for alarm in alarms] for alarms in found] == [[], [False, True], [True]]


def test_what_was_not_measured_is_not_over_any_limit() -> None:
    monitors = Monitors(Options(disagreement=Limit(warn=0.1), patience=2))
    assert look(monitors, "disagreement", 0.9, None, 0.9) == [[], [], []]
    assert monitors.look({}) == []


def test_a_jump_is_seen_against_the_steps_before_and_a_slow_drift_is_not() -> None:
    steady = [1.0 + 0.01 * (i % 3) for i in range(20)]
    *quiet, last = look(Monitors(Options(jump=Limit(stop=10.0))), "grad_norm", *steady, 5.0)
    assert not any(quiet)
    assert last[0].stop and "grad_norm jumped from about 1.01 to 5" in last[0].message
    drift = look(Monitors(Options(jump=Limit(warn=10.0))), "reward", *(i * 0.01 for i in range(60)))
    assert not any(drift)


def test_a_flat_stretch_makes_no_jump_of_a_small_change() -> None:
    assert not any(look(Monitors(Options()), "entropy", *[0.5] * 20, 0.51))


def test_too_little_history_is_no_ground_for_a_jump() -> None:
    assert not any(look(Monitors(Options()), "loss", *[1.0] * 9, 1e6))


@pytest.mark.parametrize("broken_at", [1, 3, 14])
def test_a_resumed_monitor_says_what_the_unbroken_one_says(broken_at: int) -> None:
    options = Options(truncated=Limit(warn=0.5), jump=Limit(warn=5.0), patience=3)
    rows = [{"truncated_share": 0.6, "loss": 1 + 0.01 * i} for i in range(15)] + [{"loss": 9.0}]
    whole = Monitors(options)
    expected = [whole.look(row) for row in rows]
    first, second = Monitors(options), Monitors(options)
    found = [first.look(row) for row in rows[:broken_at]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert found + [second.look(row) for row in rows[broken_at:]] == expected
    assert any(expected[:5]) and expected[-1]
