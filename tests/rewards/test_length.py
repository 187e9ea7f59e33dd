from typing import Any

import pytest

from llmalign.rewards import Group, Problem, Sample, build_reward
from llmalign.rewards.length import soft_overlong_penalty


def group(*lengths: int, limit: int | None = None) -> Group:
    samples = tuple(Sample("x", (1,) * n, (0.0,) * n, "eos") for n in lengths)
    return Group(Problem("p", "q"), samples, limit)


def values(spec: Any, group: Group) -> list[float | None]:
    return [score.value for score in build_reward(spec).score([group])[0]]


@pytest.mark.parametrize(
    ("num_tokens", "penalty"),
    [(100, 0.0), (16384, 0.0), (17408, -0.25), (18432, -0.5), (20480, -1.0), (20481, -1.0)],
)
def test_soft_overlong_agrees_with_the_paper(num_tokens: int, penalty: float) -> None:
    # L_max 20480, L_cache 4096: (16384 - 17408) / 4096 = -0.25, and so on.
    assert soft_overlong_penalty(num_tokens, 20480, 4096) == penalty


@pytest.mark.parametrize("buffer_tokens", [0, -1, 101])
def test_the_buffer_must_fit_below_the_limit(buffer_tokens: int) -> None:
    with pytest.raises(ValueError, match="expected > 0 and <= max_tokens"):
        soft_overlong_penalty(10, 100, buffer_tokens)


def test_soft_overlong_takes_the_limit_of_the_group_unless_told_otherwise() -> None:
    spec = {"soft_overlong": {"buffer_tokens": 4, "factor": 2.0}}
    assert values(spec, group(6, 7, 8, 10, limit=10)) == [0.0, -0.5, -1.0, -2.0]
    spec = {"soft_overlong": {"buffer_tokens": 4, "max_tokens": 8}}
    assert values(spec, group(4, 6, 9, limit=10)) == [0.0, -0.5, -1.0]


def test_soft_overlong_without_any_limit_is_refused() -> None:
    with pytest.raises(RuntimeError, match="max_tokens is null"):
        values({"soft_overlong": {"buffer_tokens": 4}}, group(6))


def test_a_buffer_larger_than_the_limit_of_the_group_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer_tokens is 4, expected > 0 and <= max_tokens"):
        values({"soft_overlong": {"buffer_tokens": 4}}, group(1, limit=3))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"min_tokens": 3}, [-1.0, 0.0, 0.0]),
        ({"max_tokens": 3}, [0.0, 0.0, -1.0]),
        ({"min_tokens": 3, "max_tokens": 3}, [-1.0, 0.0, -1.0]),
        ({"per_token": -0.5}, [-1.0, -1.5, -2.0]),
        ({"max_tokens": 3, "per_token": 0.25}, [0.5, 0.75, 0.0]),
    ],
)
def test_length_counts_its_bounds_as_inside(options: dict[str, Any], expected: list[float]) -> None:
    assert values({"length": options}, group(2, 3, 4)) == expected


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="min_tokens is 5, expected <= 4"):
        build_reward({"length": {"min_tokens": 5, "max_tokens": 4}})


def test_a_factor_must_be_positive() -> None:
    with pytest.raises(ValueError, match="factor is -1.0, expected > 0"):
        build_reward({"soft_overlong": {"buffer_tokens": 4, "factor": -1.0}})


def test_a_sample_without_its_tokens_is_no_short_sample() -> None:
    sample = Sample("some text", (), (), "eos")
    with pytest.raises(RuntimeError, match="token_ids is empty"):
        build_reward({"length": {"max_tokens": 3}}).score([Group(Problem("p", "q"), (sample,))])
