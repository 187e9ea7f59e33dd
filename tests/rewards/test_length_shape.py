import math
from typing import Any

import pytest

import llmalign.rewards.length_shape  # noqa: F401  (registers itself)
from llmalign.rewards import Group, Problem, RewardHost, Sample, Score, build_reward
from llmalign.rewards.base import Services
from llmalign.rewards.length_shape import cosine_value, er_term, harmo_terms, o1_pruner_term

WORTH = {"call": {"function": "llmalign_worth:worth", "in_process": True}}
VALUES = '''
def worth(completions, **columns):
    """What the completion says it is worth; None where it says nothing."""
    return [float(text) if text else None for text in completions]
'''


@pytest.fixture(autouse=True)
def _values(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llmalign_worth.py").write_text(VALUES)
    monkeypatch.syspath_prepend(tmp_path)


def score(kind: str, samples: list[tuple[str, int]], **options: Any) -> list[Score]:
    """Scores of samples of the given (worth, length); their limit is 100 tokens."""
    made = tuple(
        Sample(text, (1,) * n, (0.0,) * n, "length" if n >= 100 else "eos") for text, n in samples
    )
    reward = build_reward({kind: {"of": WORTH, **options}})
    reward.bind(Services(verify=lambda kind, pairs, options: []))
    return reward.score([Group(Problem("p", "q"), made, 100)])[0]


def values(kind: str, samples: list[tuple[str, int]], **options: Any) -> list[float | None]:
    return [s.value for s in score(kind, samples, **options)]


def test_harmo_leaves_a_band_free_and_bounds_the_penalty() -> None:
    # mean of the right ones 20; free from 10 to 30; at 35 the excess is 0.75 - 0.5
    samples = [("1", 15), ("1", 25), ("0", 10), ("0", 30), ("0", 35), ("0", 90)]
    assert values("harmo_length", samples) == [1.0, 1.0, 0.0, 0.0, -0.25, -0.5]


@pytest.mark.parametrize("kind", ["harmo_length", "er_length"])
def test_without_a_right_response_length_counts_for_nothing(kind: str) -> None:
    assert values(kind, [("0", 10), ("-1", 90)]) == [0.0, -1.0]


def test_right_responses_without_tokens_are_no_mean_to_divide_by() -> None:
    assert harmo_terms([0, 5], [True, False], 0.5, 0.5) == [0.0, 0.0]


def test_er_pays_right_responses_by_their_distance_from_the_right_ones() -> None:
    # mean 20, std 10: z = -1 and 1; 2 sigmoid(1) - 1 = 0.4621; the wrong one counts for nobody
    short, long, wrong = values("er_length", [("1", 10), ("1", 30), ("0", 99)])
    assert short == pytest.approx(1.4621, abs=1e-4)
    assert long == pytest.approx(0.5379, abs=1e-4)
    assert wrong == 0.0


def test_er_gives_a_lone_right_response_and_equal_ones_no_term() -> None:
    assert er_term(10, [10]) == er_term(10, [10, 10]) == 0.0


def test_er_survives_lengths_far_apart() -> None:
    assert er_term(10**9, [1] * 10_000 + [10**9]) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("length", "lengths", "term"),
    [(100, [100, 300, 200], 1.0), (200, [100, 300, 200], 0.0), (400, [400, 100], -0.375),
     (0, [0, 10], 1.0), (0, [0, 0], 0.0)],
)  # fmt: skip
def test_o1_pruner_pays_the_short_side_of_the_groups_mean(
    length: int, lengths: list[int], term: float
) -> None:
    assert o1_pruner_term(length, lengths) == pytest.approx(term)


def test_o1_pruner_needs_no_verifier() -> None:
    made = tuple(Sample("x", (1,) * n, (0.0,) * n, "eos") for n in (10, 30))
    reward = build_reward("o1_pruner_length")
    assert reward.need == "groupwise"
    found = [s.value for s in reward.score([Group(Problem("p", "q"), made)])[0]]
    assert found == [1.0, pytest.approx(-1 / 3)]


@pytest.mark.parametrize("kind", ["harmo_length", "er_length"])
def test_what_is_not_scorable_stays_so_and_counts_for_nobody(kind: str) -> None:
    without = values(kind, [("1", 10), ("1", 30)])
    assert values(kind, [("1", 10), ("", 90), ("1", 30)]) == [without[0], None, without[1]]


def test_factor_and_threshold_reach_the_term() -> None:
    samples = [("0.2", 10), ("0.9", 40)]
    assert values("harmo_length", samples, right_above=0.5, factor=2.0) == [
        pytest.approx(0.2 - 2 * 0.25), 0.9]  # fmt: skip


def test_cosine_prefers_short_right_and_long_wrong_responses() -> None:
    right = values("cosine_length", [("1", 1), ("1", 50), ("1", 99)])
    wrong = values("cosine_length", [("0", 1), ("0", 50), ("0", 99)])
    assert right == [pytest.approx(value, abs=1e-2) for value in (2.0, 1.5, 1.0)]
    assert wrong == [pytest.approx(value, abs=1e-2) for value in (-10.0, -5.0, 0.0)]
    assert cosine_value(0, 100, 2.0, 1.0) == 2.0 and cosine_value(100, 100, 2.0, 1.0) == 1.0


def test_cosine_pays_a_response_at_the_limit_alike_right_or_wrong() -> None:
    assert values("cosine_length", [("1", 100), ("0", 100), ("", 100)]) == [-10.0, -10.0, None]
    assert values("cosine_length", [("1", 60)], max_tokens=60, exceeded=-1.0) == [-1.0]


def test_cosine_of_a_quarter_by_hand() -> None:
    assert cosine_value(25, 100, 2.0, 1.0) == pytest.approx(1.5 + 0.5 * math.sqrt(0.5))


def test_cosine_without_any_limit_is_refused() -> None:
    reward = build_reward({"cosine_length": {"of": WORTH}})
    sample = Sample("1", (1,), (0.0,), "eos")
    with pytest.raises(RuntimeError, match="max_tokens is null"):
        reward.score([Group(Problem("p", "q"), (sample,))])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("harmo_length", {"tolerance": -1.0}, "tolerance is -1.0, expected >= 0"),
        ("cosine_length", {"wrong_long": 1.0}, "a wrong response can earn as much as a right one"),
        ("cosine_length", {"max_tokens": 0}, "max_tokens is 0, expected >= 1"),
        ("er_length", {"of": ["math", "math"]}, "of lists 2 rewards, expected one"),
    ],
)
def test_options_out_of_range_are_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_reward({kind: {"of": "math", **options}})


def test_the_answer_is_verified_once_and_logged_below_its_length_term() -> None:
    made = tuple(Sample(text, (1,) * n, (0.0,) * n, "eos")
                 for text, n in [("#### 5", 10), ("#### 5", 30), ("#### 6", 20)])  # fmt: skip
    reward = build_reward({"er_length": "math"})
    assert reward.need == "groupwise"
    host = RewardHost(reward, workers=1)
    try:
        ((short, long, wrong),) = host.score([Group(Problem("p", "q", {"answer": "5"}), made)])
    finally:
        host.close()
    assert short.aspects["math"] == long.aspects["math"] == 1.0
    assert short.value is not None and long.value is not None and short.value > 1 > long.value
    assert wrong.value == 0.0 and wrong.judgement is not None
