from llmalign.rewards import Score, build_reward
from llmalign.rewards.disagreement import disagreement

A, B = {"length": {"name": "a", "per_token": 1}}, {"length": {"name": "b", "per_token": 1}}
REWARD = build_reward({"sum": [{"ensemble": [A, B]}, "math"]})


def row(*pairs: tuple[float | None, float | None]) -> list[Score]:
    return [Score(0.0, {"a": a, "b": b}) for a, b in pairs]


def test_members_that_order_alike_agree_whatever_their_scale() -> None:
    assert disagreement(REWARD, [row((1, 100), (2, 101), (3, 300))]) == 0.0


def test_each_pair_ordered_differently_counts() -> None:
    assert disagreement(REWARD, [row((1, 3), (2, 2), (3, 1))]) == 1.0
    assert disagreement(REWARD, [row((1, 1), (2, 2)), row((1, 2), (2, 1))]) == 0.5


def test_ties_and_missing_values_say_nothing() -> None:
    assert disagreement(REWARD, [row((1, 1), (1, 2), (None, 3))]) is None


def test_without_an_ensemble_there_is_nothing_to_disagree() -> None:
    assert disagreement(build_reward("math"), [row((1, 1), (2, 2))]) is None
