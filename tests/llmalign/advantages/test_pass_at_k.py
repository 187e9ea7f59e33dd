import itertools
import math
import statistics

import pytest
import torch

from llmalign.advantages import max_minus_second, pass_at_k, pass_at_k_bootstrap

NAN = math.nan


def call(function, rewards: list[float], groups: list[int] | None = None, **options) -> list[float]:
    mask_BT = torch.ones(len(rewards), 1, dtype=torch.bool)
    group_B = torch.tensor(groups or [0] * len(rewards))
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    return function(reward_B, group_B, mask_BT, torch.zeros(len(rewards), 1), **options)[
        :, 0
    ].tolist()


def oracle(rewards: list[float], k: int, eps: float) -> list[float]:
    """Every set of k is drawn; a sample takes the mean of its sets' z-scores."""
    sets = list(itertools.combinations(range(len(rewards)), k))
    best = [max(rewards[i] for i in chosen) for chosen in sets]
    mean, std = statistics.mean(best), statistics.pstdev(best)
    z = [(value - mean) / (std + eps) for value in best]
    return [
        statistics.mean(a for a, chosen in zip(z, sets, strict=True) if i in chosen)
        for i in range(len(rewards))
    ]


def test_one_of_three_right_by_hand() -> None:
    # sets of 2: {1, 0} twice, {0, 0} once: rho = 2/3, sigma = sqrt(2)/3 = 0.4714045
    # right: (1/3) / sigma = 0.7071068; wrong: (1/3 - 1/2) / sigma = -0.3535534
    found = call(pass_at_k, [1.0, 0.0, 0.0], k=2, eps=1e-12)
    assert found == pytest.approx([0.7071068, -0.3535534, -0.3535534], abs=1e-7)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "rewards",
    [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.3, -1.0, 0.7, 0.7, 2.0, 0.1]],
    ids=["right and wrong", "any rewards"],
)
def test_agrees_with_all_sets_drawn(rewards: list[float], k: int) -> None:
    found = call(pass_at_k, rewards, k=k, eps=1e-6)
    assert found == pytest.approx(oracle(rewards, k, 1e-6), rel=1e-9, abs=1e-12)


def test_agrees_with_the_printed_form() -> None:
    num, wrong, k, eps = 8, 6, 3, 1e-6
    rho = 1 - math.comb(wrong, k) / math.comb(num, k)
    sigma = math.sqrt(rho * (1 - rho))
    right = (1 - rho) / (sigma + eps)
    other = (1 - rho - math.comb(wrong - 1, k - 1) / math.comb(num - 1, k - 1)) / (sigma + eps)
    found = call(pass_at_k, [1.0] * 2 + [0.0] * 6, k=k, eps=eps)
    assert found == pytest.approx([right] * 2 + [other] * 6, rel=1e-12)


@pytest.mark.parametrize(
    "rewards",
    [
        pytest.param([0.1] * 7, id="all equal"),
        pytest.param([1.0] * 5 + [0.0] * 2, id="fewer than k wrong"),
        pytest.param([1.0, 0.0, NAN, NAN, NAN], id="fewer than k scored"),
    ],
)
def test_where_every_draw_has_the_same_best_nothing_is_learned(rewards: list[float]) -> None:
    assert call(pass_at_k, rewards, k=3, eps=1e-12) == [0.0] * len(rewards)
    assert call(pass_at_k_bootstrap, rewards, k=3, draws=9, eps=1e-12, seed=0) == [0.0] * len(
        rewards
    )


def test_groups_are_apart_and_large_ones_do_not_overflow() -> None:
    rewards = [1.0, 0.0, 0.0] + [1.0] + [0.0] * 255
    found = call(pass_at_k, rewards, [0] * 3 + [1] * 256, k=2, eps=1e-6)
    assert found[:3] == pytest.approx(oracle(rewards[:3], 2, 1e-6))
    large = call(pass_at_k, rewards[3:], k=128, eps=1e-6)
    assert large[0] == pytest.approx(1.0, abs=1e-5) and all(map(math.isfinite, large))


def test_drawn_sets_tend_to_all_sets() -> None:
    rewards = [1.0, 0.0, 0.2, 0.0, 1.0, 0.5]
    found = call(pass_at_k_bootstrap, rewards, k=3, draws=20_000, eps=1e-6, seed=1)
    assert found == pytest.approx(call(pass_at_k, rewards, k=3, eps=1e-6), abs=0.03)


def test_draws_follow_the_seed_and_a_sample_never_drawn_has_nothing() -> None:
    rewards = [1.0, 0.0, 0.5, 0.25]
    options = {"k": 2, "draws": 2, "eps": 1e-6}
    first, again, other = (
        call(pass_at_k_bootstrap, rewards, **options, seed=seed) for seed in (3, 3, 4)
    )
    assert first == again and first != other
    assert 0.0 in call(pass_at_k_bootstrap, rewards * 3, k=2, draws=3, eps=1e-6, seed=0)


def test_only_the_best_has_its_lead() -> None:
    rewards = [0.2, NAN, 0.9, 0.6, 0.5, 0.5, 0.1, 7.0]
    groups = [0, 0, 0, 0, 1, 1, 1, 2]
    raw = call(max_minus_second, rewards, groups, scaled=False, eps=1e-6)
    assert raw == pytest.approx([0, 0, 0.9 - 0.6, 0, 0, 0, 0, 0], abs=1e-12)
    scaled = call(max_minus_second, rewards, groups, scaled=True, eps=1e-6)
    assert scaled[2] == pytest.approx(0.3 / (statistics.stdev([0.2, 0.9, 0.6]) + 1e-6))


@pytest.mark.parametrize(
    ("function", "option", "message"),
    [
        (pass_at_k, {"k": 0, "eps": 1e-6}, "k is 0, expected >= 1"),
        (pass_at_k, {"k": 2, "eps": 0.0}, "eps is 0.0, expected > 0"),
        (
            pass_at_k_bootstrap,
            {"k": 2, "eps": 1e-6, "draws": 0, "seed": 0},
            "draws is 0, expected >= 1 or None",
        ),
        (max_minus_second, {"scaled": True, "eps": 0.0}, "eps is 0.0, expected > 0"),
    ],
)
def test_a_wrong_option_is_named(function, option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(function, [0.0, 1.0], **option)
