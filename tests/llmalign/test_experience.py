import pytest

from llmalign.experience import ScoredGroup, reward_length
from llmalign.rewards import Group, Problem, Sample, Score


def group(*pairs: tuple[float | None, int]) -> ScoredGroup:
    """Of (reward, length in tokens)."""
    samples = tuple(Sample("", (1,) * length, (), "eos") for _, length in pairs)
    return ScoredGroup(Group(Problem("a", "q"), samples), [Score(r) for r, _ in pairs], (1,))


def test_reward_and_length_are_compared_within_groups() -> None:
    paid_by_length = [group((0.0, 1), (1.0, 5)), group((5.0, 1), (6.0, 5))]
    assert reward_length(paid_by_length) == pytest.approx(1.0)
    # A hard problem is long and poorly paid: that is no price on length.
    assert reward_length([group((1.0, 2), (1.0, 3)), group((0.0, 8), (0.0, 9))]) is None
    assert reward_length([group((1.0, 2), (0.0, 9)), group((1.0, 1), (0.0, 3))]) < -0.8  # type: ignore[operator]


def test_samples_without_a_score_are_left_out() -> None:
    assert reward_length([group((0.0, 1), (1.0, 5), (None, 90))]) == pytest.approx(1.0)
    assert reward_length([group((None, 1), (1.0, 5))]) is None
