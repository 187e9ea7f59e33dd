import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scoring import no_verifier

import llmalign.rewards.bmas
from llmalign.rewards import Group, Problem, RewardHost, Sample, Score, build_reward
from llmalign.rewards.base import Services
from llmalign.rewards.bmas import Bmas, max_average_similarity
from llmalign.verifiers import GoldError

EAST, NORTH, WEST, NORTH_EAST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 1.0)
HALF = math.sqrt(0.5)  # cosine of 45 degrees


def embed(texts: Any) -> list[np.ndarray]:
    """One vector per word: its own direction, the same every time; nothing for no words."""
    return [np.stack([_direction(w) for w in text.split()]) if text.split() else np.zeros((0, 64))
            for text in texts]  # fmt: skip


def _direction(word: str) -> np.ndarray:
    seed = int.from_bytes(word.encode(), "big") % 2**32
    return np.random.default_rng(seed).standard_normal(64).astype(np.float32)


def score(references: Any, *texts: str, embedder: Any = embed) -> list[Score]:
    reward = build_reward("bmas")
    reward.bind(Services(verify=no_verifier, embed_tokens=embedder))
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return reward.score([Group(Problem("p", "x", {"references": references}), samples)])[0]


def values(references: Any, *texts: str) -> list[float]:
    return [float(found.value or 0.0) for found in score(references, *texts)]


def test_both_directions_by_hand() -> None:
    # east finds itself; north finds north-east at 45 degrees; north-east finds either at 45
    found = max_average_similarity([EAST, NORTH], [EAST, NORTH_EAST])
    precision, recall = (1 + HALF) / 2, (1 + HALF) / 2
    assert found == pytest.approx(((precision + recall) / 2, precision, recall))
    found = max_average_similarity([EAST], [EAST, NORTH, WEST])
    assert found == pytest.approx(((1 + 0) / 2, 1.0, 0.0))  # recall (1 + 0 - 1) / 3


def test_length_of_the_vectors_does_not_count() -> None:
    small, large = [(1e-30, 0.0), (0.0, 1e-30)], [(1e200, 0.0), (0.0, 1e200)]
    assert max_average_similarity(small, large) == pytest.approx((1.0, 1.0, 1.0))


def test_opposite_vectors_give_the_least_value() -> None:
    assert max_average_similarity([EAST], [WEST]) == (-1.0, -1.0, -1.0)


def test_a_vector_of_zeros_is_like_nothing() -> None:
    assert max_average_similarity([(0.0, 0.0)], [EAST]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [[], [(math.nan, 0.0)], [(math.inf, 0.0)]])
def test_what_cannot_be_compared_has_no_value(bad: Any) -> None:
    assert max_average_similarity(bad, [EAST]) is None
    assert max_average_similarity([EAST], bad) is None


_VECTORS = st.lists(
    st.tuples(*[st.floats(-9, 9, allow_subnormal=False)] * 3), min_size=1, max_size=9
)


@given(_VECTORS, _VECTORS)
def test_it_is_bounded_symmetric_and_what_a_plain_loop_says(one: Any, other: Any) -> None:
    found = max_average_similarity(one, other)
    turned = max_average_similarity(other, one)
    assert found is not None and turned is not None
    assert all(-1 <= value <= 1 for value in found)
    assert turned == pytest.approx((found[0], found[2], found[1]))

    def cosine(a: Any, b: Any) -> float:
        norm = math.hypot(*a) * math.hypot(*b)
        return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0

    precision = sum(max(cosine(a, r) for r in other) for a in one) / len(one)
    assert found[1] == pytest.approx(precision, abs=1e-6)


def test_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0).standard_normal
    answer, reference = draw((70, 8)), draw((30, 8))
    whole = max_average_similarity(answer, reference)
    monkeypatch.setattr(llmalign.rewards.bmas, "_ROWS", 16)
    assert max_average_similarity(answer, reference) == pytest.approx(whole)


def test_the_reference_itself_gets_one_and_other_words_less() -> None:
    same, close, far = values("the cat sat", "the cat sat", "the dog sat", "some other words")
    assert same == pytest.approx(1.0)
    assert 1.0 > close > far


def test_one_good_token_said_often_keeps_precision_and_loses_recall() -> None:
    honest, repeated, once = score("the cat sat down", "the cat sat", "cat " * 50, "cat")
    assert repeated.aspects["bmas.precision"] == pytest.approx(1.0)
    assert repeated.aspects["bmas.recall"] < honest.aspects["bmas.recall"] - 0.3  # type: ignore[operator]
    assert repeated.value == pytest.approx(once.value)  # saying it again earns nothing more
    assert repeated.value < honest.value  # type: ignore[operator]


def test_more_words_than_the_reference_lose_precision() -> None:
    honest, padded = score("the cat", "the cat", "the cat and many further words besides")
    assert padded.aspects["bmas.recall"] == pytest.approx(1.0)
    assert padded.value < honest.value - 0.2  # type: ignore[operator]


def test_the_best_of_several_references_counts() -> None:
    assert values(["a b c", "the cat sat"], "the cat sat") == pytest.approx([1.0])


def test_the_answer_is_what_stands_in_its_tag_after_the_thinking() -> None:
    text = "<think>many other words</think><answer>the cat</answer>"
    assert values("the cat", text) == pytest.approx([1.0])


def test_an_empty_answer_matches_nothing() -> None:
    (found,) = score("the cat", "<think>still at it</think>")
    assert found.value == 0.0


def test_an_embedding_that_is_not_finite_is_not_scorable() -> None:
    def broken(texts: Any) -> list[np.ndarray]:
        return [np.full((2, 3), np.nan) for _ in texts]

    (found,) = score("the cat", "the cat", embedder=broken)
    assert found.value is None and "not finite" in found.note


def test_one_broken_reference_of_several_is_not_passed_over() -> None:
    def broken(texts: Any) -> list[np.ndarray]:
        return [v * np.nan if text == "the dog" else v
                for text, v in zip(texts, embed(texts), strict=True)]  # fmt: skip

    (found,) = score(["the cat", "the dog"], "the cat", embedder=broken)
    assert found.value is None


def test_a_reference_without_tokens_is_not_scorable() -> None:
    def nothing(texts: Any) -> list[np.ndarray]:
        return [np.zeros((0, 3)) for _ in texts]

    (found,) = score("the cat", "", embedder=nothing)
    assert found.value is None and "no token" in found.note


@pytest.mark.parametrize("given", [None, "", [], ["fine", " "], [{"text": "x"}]])
def test_a_problem_without_a_reference_is_listed_before_training(given: Any) -> None:
    problem = Problem("p7", "x", {} if given is None else {"references": given})
    with pytest.raises(GoldError, match="problem 'p7': column 'references'"):
        build_reward("bmas").check(problem)


def test_another_column_can_hold_the_references() -> None:
    build_reward({"bmas": {"column": "answer"}}).check(Problem("p", "x", {"answer": "the cat"}))
    with pytest.raises(ValueError, match="column is ''"):
        Bmas(name="bmas", column="")


def test_a_host_without_embeddings_is_refused_and_one_with_them_scores_at_once() -> None:
    with pytest.raises(ValueError, match="reward 'bmas' needs frozen_embeddings"):
        RewardHost(build_reward("bmas"))
    host = RewardHost(build_reward("bmas"), embed_tokens=embed)
    assert not host.after_generation  # a look into a table disturbs no generation
    problem = Problem("p", "x", {"references": "the cat"})
    future = host.submit(Group(problem, (Sample("the cat", (1,), (0.0,), "eos"),)))
    assert future.result()[0].value == pytest.approx(1.0)
    host.close()
    with pytest.raises(RuntimeError, match="'bmas' needs token embeddings"):
        build_reward("bmas").score([])
