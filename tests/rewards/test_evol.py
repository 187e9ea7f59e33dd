from collections.abc import Iterator
from typing import Any

import pytest
from support import bigram

from llmalign.rewards import Group, Problem, Score, build_reward
from llmalign.rewards.base import Services, TokenScores
from llmalign.rewards.evol import evol_rewards, novelty
from llmalign.verifiers import Judgement, Verdict
from llmalign.verifiers.pool import VerifierPool


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(1, 2.0) as pool:
        yield pool


def group(*texts: str) -> Group:
    return Group(Problem("p", "q"), tuple(bigram.sampled(text) for text in texts))


def score(pool: VerifierPool, group: Group, **options: Any) -> list[Score]:
    reward = build_reward({"evol": options})
    reward.bind(Services(verify=pool.judge_many, policy=bigram.BigramModel()))
    return reward.score([group])[0]


def values(scores: list[Score]) -> list[float | None]:
    return [s.value for s in scores]


ADDS = r"add the numbers and the sum is \boxed{7}"
COUNTS = r"zigzag quickly: count up one by one! \boxed{7}"
OTHER = r"perhaps it could be \boxed{8}"


def test_novelty_by_hand() -> None:
    # 0: own side {1} has 0.8, closest anywhere 0.8; 2 is alone on its side: mean of 0.2 and 0.4.
    similarity = [[1.0, 0.8, 0.2], [0.8, 1.0, 0.4], [0.2, 0.4, 1.0]]
    found = novelty(similarity, [True, True, False])
    assert found == pytest.approx([0.2, 0.2, 1 - 0.5 * 0.3 - 0.5 * 0.4])


def test_who_is_left_out_is_compared_with_nobody() -> None:
    similarity: list[list[float | None]] = [[1.0, 1.0, 0.2], [1.0, 1.0, 1.0], [0.2, 1.0, 1.0]]
    assert novelty(similarity, [True, None, True]) == [0.8, None, 0.8]
    assert novelty([[1.0]], [True]) == [None]


@pytest.mark.parametrize(
    ("raw", "sides", "expected"),
    [
        pytest.param([0.1, 0.3, 0.2], [True] * 3, [0.5, 1.0, 0.75], id="majority"),
        pytest.param([0.1, 0.3], [False] * 2, [-1.0, -0.5], id="minority"),
        pytest.param([0.2, 0.2 + 1e-12], [True] * 2, [0.75, 0.75], id="a tie up to rounding"),
        pytest.param([0.4, 0.4], [False] * 2, [-0.75, -0.75], id="a tied minority"),
        pytest.param([0.9, 0.1], [True, False], [1.0, -0.5], id="each alone on its side"),
        pytest.param([0.9, None, 0.1], [True, None, True], [1.0, -1.0, 0.5], id="one invalid"),
        pytest.param([None, None], [None, None], [-1.0, -1.0], id="all invalid"),
        pytest.param([], [], [], id="nobody"),
    ],
)
def test_novelty_fills_the_band_of_its_side(
    raw: list[float | None], sides: list[bool | None], expected: list[float]
) -> None:
    assert evol_rewards(raw, sides) == pytest.approx(expected)
    assert evol_rewards(raw, sides, mapping="paper") == pytest.approx(expected)


def test_the_mappings_differ_where_only_one_answer_is_valid() -> None:
    raw, sides = [None, None, None], [True, None, None]
    assert evol_rewards(raw, sides, mapping="released") == [-1.0, -1.0, -1.0]
    assert evol_rewards(raw, sides, mapping="paper") == [1.0, -1.0, -1.0]
    assert evol_rewards([None], [False], mapping="released") == [0.0]
    assert evol_rewards([None], [False], mapping="paper") == [-0.5]


@pytest.mark.parametrize("embedder", ["policy", "ngrams"])
def test_the_odd_reasoning_of_the_majority_is_paid_most(pool: VerifierPool, embedder: str) -> None:
    scores = score(pool, group(ADDS, ADDS, COUNTS, OTHER), embedder=embedder)
    assert values(scores) == pytest.approx([0.5, 0.5, 1.0, -0.5])
    assert [s.aspects["evol_majority"] for s in scores] == [1.0, 1.0, 1.0, 0.0]
    odd, usual = scores[2].aspects["evol_novelty"], scores[0].aspects["evol_novelty"]
    assert odd is not None and usual is not None and odd > usual
    assert scores[0].aspects["evol_ratio"] == 0.75


def test_equal_answers_are_one_side_however_they_are_written(pool: VerifierPool) -> None:
    found = score(pool, group(r"a \boxed{1/2}", r"b \boxed{0.5}", r"c \boxed{3}"))
    assert [s.aspects["evol_majority"] for s in found] == [1.0, 1.0, 0.0]


def test_letters_are_answers_unless_digits_are_asked_for(pool: VerifierPool) -> None:
    given = group(r"pick \boxed{B}", r"so \boxed{B}", r"or \boxed{C}")
    assert values(score(pool, given, embedder="ngrams")) == pytest.approx([0.75, 0.75, -0.5])
    assert values(score(pool, given, embedder="ngrams", digits=True)) == [-1.0, -1.0, -1.0]


def test_a_sample_without_answer_is_invalid_and_changes_no_novelty(pool: VerifierPool) -> None:
    with_it = score(pool, group(ADDS, COUNTS, OTHER, "I have no idea at all"))
    without = score(pool, group(ADDS, COUNTS, OTHER))
    assert values(with_it) == [*values(without), -1.0]
    assert with_it[3].note == "evol: no valid answer"


def test_only_what_follows_the_thought_is_compared_as_text(pool: VerifierPool) -> None:
    thoughts = group(*(f"<think>{t}</think> {a}" for t, a in [("x y", ADDS), ("dogs", ADDS)]))
    first, second = score(pool, thoughts, embedder="ngrams")
    assert first.aspects["evol_novelty"] == pytest.approx(0.0, abs=1e-9)
    assert first.value == second.value == 0.75


def test_a_failure_to_embed_is_not_scored_and_stands_out_of_the_way(pool: VerifierPool) -> None:
    class Failing(bigram.BigramModel):  # type: ignore[name-defined]
        def __call__(self, pairs: Any, *, hidden: bool = False) -> list[TokenScores]:
            scores = super().__call__(pairs, hidden=hidden)
            return [TokenScores((), (), ()), *scores[1:]]

    reward = build_reward("evol")
    reward.bind(Services(verify=pool.judge_many, policy=Failing()))
    (scores,) = reward.score([group(ADDS, ADDS, COUNTS, OTHER)])
    assert values(scores) == pytest.approx([None, 0.5, 1.0, -0.5])
    assert scores[0].note == "evol: no vector for this sample"


def test_an_undecided_answer_is_not_scored() -> None:
    def verify(kind: str, pairs: Any, options: Any) -> list[Judgement]:
        undecided = Judgement(Verdict.UNDECIDED, None, "timed out")
        return [undecided, *[Judgement(Verdict.WRONG, "7", "")] * (len(pairs) - 1)]

    reward = build_reward({"evol": {"embedder": "ngrams"}})
    reward.bind(Services(verify=verify))
    (scores,) = reward.score([group(ADDS, ADDS, COUNTS)])
    assert values(scores) == [None, 0.75, 0.75]
    assert scores[0].note == "evol: timed out"


def test_it_needs_the_policy_only_for_its_hidden_states(pool: VerifierPool) -> None:
    assert build_reward("evol").need == "policy_logprobs"
    assert build_reward({"evol": {"embedder": "ngrams"}}).need == "groupwise"
    reward = build_reward("evol")
    reward.bind(Services(verify=pool.judge_many))
    with pytest.raises(RuntimeError, match="lends no policy scorer; choose embedder 'ngrams'"):
        reward.score([group(ADDS)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedder": "sentence_transformers"}, "needs a model"),
        ({"embedder": "ngrams", "model": "m"}, "the others take none"),
        ({"embedder": "bert"}, "expected one of 'policy', 'ngrams'"),
        ({"mapping": "mine"}, "expected one of 'released', 'paper'"),
        ({"markers": []}, "markers is empty"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_reward({"evol": options})


def test_scoring_without_a_host_is_refused() -> None:
    with pytest.raises(RuntimeError, match="'evol' is not bound"):
        build_reward("evol").score([group(ADDS)])
