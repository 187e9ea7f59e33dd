import math
from typing import Any

import pytest
from support import bigram
from support.scoring import no_verifier

from llmalign.rewards import Group, Problem, Sample, Score, build_reward
from llmalign.rewards.base import Services, TokenScores
from llmalign.rewards.certainty import (
    negative_entropy,
    self_certainty,
    token_certainty,
    token_entropy,
)

NAN = math.nan


def score(spec: Any, *texts: str, prompt: str = "q", model: Any = None) -> list[Score]:
    reward = build_reward(spec)
    reward.bind(Services(verify=no_verifier, policy=model or bigram.BigramModel()))
    samples = tuple(bigram.sampled(text) for text in texts)
    return reward.score([Group(Problem("p", prompt), samples)])[0]


def test_certainty_is_the_divergence_from_uniform_plus_log_of_the_vocabulary() -> None:
    logits = [2.0, 0.5, -1.0, 0.0]
    z = sum(map(math.exp, logits))
    kl = sum(0.25 * math.log(0.25 / (math.exp(q) / z)) for q in logits)
    assert token_certainty(logits) == pytest.approx(kl + math.log(4))


def test_entropy_by_hand_and_at_its_limits() -> None:
    assert token_entropy([math.log(3), 0.0]) == pytest.approx(
        -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    )
    assert token_entropy([0.0] * 8) == pytest.approx(math.log(8))
    assert token_entropy([1000.0, -1000.0]) == 0.0


def test_a_padded_vocabulary_changes_nothing() -> None:
    logits, padded = [2.0, 0.5, -1.0], [2.0, 0.5, -1.0, -math.inf]
    assert token_certainty(padded) == token_certainty(logits)
    assert token_entropy(padded) == token_entropy(logits)


def test_an_offset_of_the_logits_changes_nothing() -> None:
    logits, moved = [2.0, 0.5, -1.0], [902.0, 900.5, 899.0]
    assert token_certainty(moved) == pytest.approx(token_certainty(logits))
    assert token_entropy(moved) == pytest.approx(token_entropy(logits))


@pytest.mark.parametrize("tokens", [(), (1.0, NAN), (math.inf,)])
def test_without_finite_tokens_there_is_no_value(tokens: tuple[float, ...]) -> None:
    assert self_certainty(tokens) is None
    assert negative_entropy(tokens) is None


def test_entropy_can_look_at_the_last_tokens_only() -> None:
    assert negative_entropy([5.0, 1.0, 2.0], last_tokens=2) == -1.5
    assert negative_entropy([5.0, 1.0], last_tokens=9) == -3.0


def test_what_the_policy_expects_is_certain_and_of_low_entropy() -> None:
    texts, prompt = ("abababab", "a!c?e#g%"), "abababababab"
    for spec in ("self_certainty", "entropy"):
        expected, odd = (s.value for s in score(spec, *texts, prompt=prompt))
        assert expected is not None and odd is not None
        assert expected > odd


def test_the_leaves_are_the_means_of_what_the_policy_says() -> None:
    (said,) = bigram.BigramModel()([("q", bigram.sampled("hello"))])
    (certain,) = score("self_certainty", "hello")
    (entropy,) = score("entropy", "hello")
    assert certain.value == pytest.approx(sum(said.certainties) / 5)
    assert entropy.value == pytest.approx(-sum(said.entropies) / 5)
    assert certain.aspects == {"self_certainty": certain.value}
    assert entropy.aspects == {"entropy": entropy.value}


def test_a_response_without_tokens_is_not_scored() -> None:
    for spec in ("self_certainty", "entropy"):
        (found,) = score(spec, "")
        assert found.value is None
        assert "no tokens" in found.note


def test_a_response_without_answer_can_be_given_a_value_of_its_own() -> None:
    texts = (r"so \boxed{7}", "I have no idea at all")
    plain = score("entropy", *texts)
    marked = score({"entropy": {"no_answer": -7.0}}, *texts)
    assert [s.value for s in marked] == [plain[0].value, -7.0]
    hashes = score({"entropy": {"no_answer": -7.0, "markers": ["hashes"]}}, *texts)
    assert [s.value for s in hashes] == [-7.0, -7.0]


def test_each_sample_is_scored_after_its_own_prompt() -> None:
    model, reward = bigram.BigramModel(), build_reward("self_certainty")
    reward.bind(Services(verify=no_verifier, policy=model))
    groups = [
        Group(Problem("1", "aaaa"), (bigram.sampled("aaa"),)),
        Group(Problem("2", "bbbb"), (bigram.sampled("aaa"), bigram.sampled("bbb"))),
    ]
    (first,), (second, third) = reward.score(groups)
    assert model.asked == [["aaaa", "bbbb", "bbbb"]]
    assert first.value == pytest.approx(third.value)
    assert first.value != pytest.approx(second.value)


@pytest.mark.parametrize("last_tokens", [0, -1])
def test_no_last_tokens_are_refused(last_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"last_tokens is {last_tokens}, expected > 0"):
        build_reward({"entropy": {"last_tokens": last_tokens}})


def test_the_policy_is_needed() -> None:
    for spec in ("self_certainty", "entropy"):
        reward = build_reward(spec)
        assert reward.need == "policy_logprobs"
        reward.check(Problem("p", "q"))
        reward.bind(Services(verify=no_verifier))
        with pytest.raises(RuntimeError, match="of a policy model and the host lends none"):
            reward.score([Group(Problem("p", "q"), (bigram.sampled("x"),))])


def test_a_nan_of_the_policy_is_not_scored() -> None:
    def broken(pairs: Any, *, hidden: bool = False) -> list[TokenScores]:
        return [TokenScores((-1.0,), (NAN,), (NAN,)) for _ in pairs]

    sample = Sample("x", (1,), (0.0,), "length")
    for spec in ("self_certainty", "entropy"):
        reward = build_reward(spec)
        reward.bind(Services(verify=no_verifier, policy=broken))
        assert reward.score([Group(Problem("p", "q"), (sample,))])[0][0].value is None
