import math
from typing import Any

import pytest
from support import bigram
from support.scoring import no_verifier

from llmalign.rewards import Group, Problem, Sample, Score, build_reward
from llmalign.rewards.base import Prompt, Services, TokenScores
from llmalign.rewards.self_aligned import self_aligned_reward, without_question

NAN = math.nan


def score(
    prompt: Prompt, *texts: str, model: Any = None, options: dict[str, Any] | None = None
) -> list[Score]:
    reward = build_reward({"self_aligned": options or {}})
    reward.bind(Services(verify=no_verifier, policy=model or bigram.BigramModel()))
    group = Group(Problem("p", prompt), tuple(bigram.sampled(text) for text in texts))
    return reward.score([group])[0]


def test_the_reward_by_hand() -> None:
    # ppl exp(1) without and exp(0.25) with the question: (e - e^0.25) / e = 1 - e^-0.75.
    found = self_aligned_reward([-0.2, -0.3], [-1.5, -0.5])
    assert found.reward == pytest.approx(1 - math.exp(-0.75))
    assert (found.given, found.without) == pytest.approx((math.exp(0.25), math.e))


def test_a_question_that_surprises_is_floored() -> None:
    assert self_aligned_reward([-3.0], [-0.1]).reward == -1.0


def test_a_response_certain_without_the_question_earns_nothing() -> None:
    assert self_aligned_reward([0.0, 0.0], [0.0, 0.0]).reward == 0.0
    reward = self_aligned_reward([-0.1, 0.0], [0.0, 0.0]).reward
    assert reward is not None and reward < 0.0


@pytest.mark.parametrize("bad", [NAN, -math.inf])
def test_a_log_probability_that_is_not_finite_leaves_the_mean_on_both_sides(bad: float) -> None:
    clean = self_aligned_reward([-0.2, -0.3], [-1.5, -0.5])
    assert self_aligned_reward([-0.2, bad, -0.3], [-1.5, -9.0, -0.5]) == clean
    assert self_aligned_reward([-0.2, -9.0, -0.3], [-1.5, bad, -0.5]) == clean


def test_a_response_without_tokens_gets_nothing() -> None:
    assert self_aligned_reward([], []).reward == 0.0
    assert self_aligned_reward([], [], use_log=True).reward == 0.0


def test_a_hopeless_response_does_not_overflow() -> None:
    assert self_aligned_reward([-9000.0], [-9000.0]).reward == 0.0


def test_the_variants_by_hand() -> None:
    given, without = [-0.2, -0.3], [-1.5, -0.5]
    assert self_aligned_reward(given, without, use_log=True).reward == pytest.approx(0.75)
    difference = self_aligned_reward(given, without, use_denominator=False)
    assert difference.reward == pytest.approx(math.e - math.exp(0.25))
    alone = self_aligned_reward(given, None, use_denominator=False, use_comparison=False)
    assert alone.reward == pytest.approx(5 - math.exp(0.25))
    assert alone.without is None
    raised = self_aligned_reward(given, without, min_logprob=-0.25)
    assert raised.reward == pytest.approx(1 - math.exp(0.225 - 0.25))


def test_sides_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError):
        self_aligned_reward([-0.1], [-0.1, -0.2])


def test_an_answer_to_the_question_beats_one_that_fits_any() -> None:
    question = "How many zebras graze by the quiet river?"
    special, filler = score(
        question, "Many zebras graze by the quiet river", "One should think about it, and then"
    )
    assert special.value is not None and filler.value is not None
    assert special.value > filler.value
    assert special.value > 0.0


def test_the_value_is_that_of_both_forwards() -> None:
    model, sample = bigram.BigramModel(), bigram.sampled("abc abc")
    (score_,) = score("abcabc", "abc abc", model=model)
    with_question, without = (
        math.exp(-sum(s.logprobs) / len(s.logprobs))
        for s in model([("abcabc", sample), ("", sample)])
    )
    assert score_.value == pytest.approx((without - with_question) / (without + 1e-9))
    assert score_.aspects["self_aligned_ppl_given"] == pytest.approx(with_question)
    assert score_.aspects["self_aligned_ppl_without"] == pytest.approx(without)


def test_only_the_question_is_emptied() -> None:
    system, user = {"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}
    empty = {"role": "user", "content": ""}
    assert without_question("why?") == ""
    assert without_question((system, user)) == (system, empty)
    assert without_question((user,)) == (empty,)
    shown = {"role": "assistant", "content": "because"}
    assert without_question((system, user, shown, user)) == (system, empty)


def test_the_policy_is_asked_once_for_all_samples_of_all_groups() -> None:
    model = bigram.BigramModel()
    reward = build_reward("self_aligned")
    reward.bind(Services(verify=no_verifier, policy=model))
    groups = [Group(Problem(q, q), (bigram.sampled("x"), bigram.sampled("y"))) for q in "ab"]
    found = reward.score(groups)
    assert model.asked == [["a", "a", "b", "b", "", "", "", ""]]
    assert [len(scores) for scores in found] == [2, 2]


def test_without_comparison_there_is_one_forward() -> None:
    model = bigram.BigramModel()
    options = {"use_comparison": False, "use_denominator": False}
    (found,) = score("abc", "abc", model=model, options=options)
    assert model.asked == [["abc"]]
    assert found.aspects["self_aligned_ppl_without"] is None


@pytest.mark.parametrize("said", [(), (NAN, NAN)])
def test_a_scorer_without_answer_is_no_zero(said: tuple[float, ...]) -> None:
    def silent(pairs: Any, *, hidden: bool = False) -> list[TokenScores]:
        return [TokenScores(said if s.token_ids else (), (), ()) for _, s in pairs]

    reward = build_reward("self_aligned")
    reward.bind(Services(verify=no_verifier, policy=silent))
    samples = (bigram.sampled("ab"), Sample("", (), (), "eos"))
    (scores,) = reward.score([Group(Problem("p", "q"), samples)])
    assert [s.value for s in scores] == [None, 0.0]
    assert scores[0].note == "self_aligned: no token has a finite log-probability"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_comparison": False}, "set use_denominator to false"),
        ({"min_logprob": 0.0}, "min_logprob is 0.0, expected < 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_reward({"self_aligned": options})


def test_a_host_without_a_policy_is_refused() -> None:
    reward = build_reward("self_aligned")
    group = Group(Problem("p", "q"), (bigram.sampled("x"),))
    with pytest.raises(RuntimeError, match="'self_aligned' is not bound"):
        reward.score([group])
    reward.bind(Services(verify=no_verifier, frozen=bigram.BigramModel()))
    with pytest.raises(RuntimeError, match="of a policy model and the host lends none"):
        reward.score([group])


def test_it_is_one_line_of_a_recipe_beside_correctness() -> None:
    spec = {"sum": ["math", {"self_aligned": {"weight": 0.2}}]}
    assert build_reward(spec).need == "policy_logprobs"
