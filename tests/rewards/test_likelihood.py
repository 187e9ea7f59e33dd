import math
import time
from typing import Any

import pytest
from support import bigram
from support.scoring import no_verifier

from llmalign.rewards import Group, Problem, Score, build_reward
from llmalign.rewards.base import Prompt, Services, TokenScores
from llmalign.rewards.likelihood import (
    demonstration_ratio,
    endogenous_rewards,
    follow_up_likelihood,
    hidden_reasoning,
    option_probability,
    state_value,
    total,
    transcript,
)
from llmalign.verifiers import GoldError

NAN = math.nan


def score(
    spec: Any, prompt: Prompt, *texts: str, columns: Any = None, model: Any = None
) -> list[Score]:
    reward = build_reward(spec)
    reward.bind(Services(verify=no_verifier, frozen=model or bigram.BigramModel()))
    problem = Problem("p7", prompt, columns or {})
    reward.check(problem)
    return reward.score([Group(problem, tuple(bigram.sampled(text) for text in texts))])[0]


# -- endogenous -----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.0])
def test_token_rewards_are_q_minus_the_value_of_the_next_state(alpha: float) -> None:
    logits, actions = [[2.0, 0.5, -1.0], [0.0, 1.0, 0.5]], [0, 1]
    values = [state_value(row, alpha=alpha) for row in logits]
    logps = [(row[a] - v) / alpha for row, a, v in zip(logits, actions, values, strict=True)]
    found = endogenous_rewards(logps, values, alpha=alpha)
    # Q(s_1, a_1) - V(s_2), then Q(s_2, a_2) - 0 after the last token.
    assert found == pytest.approx([2.0 - values[1], 1.0])
    assert sum(found) == pytest.approx(alpha * sum(logps) + values[0])


def test_the_value_of_a_state_is_a_soft_maximum() -> None:
    assert state_value([1.0, 1.0]) == pytest.approx(1.0 + math.log(2))
    assert state_value([900.0, 0.0], alpha=0.1) == pytest.approx(900.0)
    assert state_value([0.0, -math.inf]) == 0.0


def test_the_endogenous_reward_is_the_likelihood_of_the_response() -> None:
    (said,) = bigram.BigramModel()([("abab", bigram.sampled("abc"))])
    (found,) = score("endogenous", "abab", "abc")
    assert found.value == pytest.approx(sum(said.logprobs))
    assert found.aspects["endogenous_mean"] == pytest.approx(sum(said.logprobs) / 3)
    (mean,) = score({"endogenous": {"over": "mean"}}, "abab", "abc")
    assert mean.value == found.aspects["endogenous_mean"]


def test_likely_text_is_worth_more_and_no_text_is_not_scored() -> None:
    likely, odd, empty = score("endogenous", "ababab", "abab", "#!?x", "")
    assert likely.value is not None and odd.value is not None
    assert likely.value > odd.value
    assert empty.value is None and "no tokens" in empty.note


# -- demonstrations -------------------------------------------------------------------------------


def test_demonstrations_raise_what_they_made_likelier() -> None:
    assert demonstration_ratio([-0.3, -0.8], [-1.0, -0.7]) == pytest.approx([0.7, -0.1])
    with pytest.raises(ValueError):
        demonstration_ratio([-0.3], [-1.0, -0.7])


# -- follow-ups -----------------------------------------------------------------------------------


def test_follow_ups_are_compared_pair_by_pair() -> None:
    # ((-2.1 + 2.6) + (-1.8 + 1.5)) / 2 = 0.1
    assert follow_up_likelihood([-2.1, -1.8], [-2.6, -1.5]) == pytest.approx(0.1)


@pytest.mark.parametrize("gap", [None, NAN])
def test_a_missing_follow_up_leaves_no_value(gap: float | None) -> None:
    assert follow_up_likelihood([-2.1, gap], [-2.6, -1.5]) is None


def test_a_reply_is_paid_for_the_follow_up_it_makes_likely() -> None:
    spec = {"follow_up": {"positive": ["great thanks"], "negative": ["wrong, no"]}}
    good, bad = score(spec, "hello", "you will say great thanks", "you will say wrong, no")
    assert good.value is not None and bad.value is not None
    assert good.value > 0 > bad.value
    assert good.value == pytest.approx(
        good.aspects["follow_up_positive"] - good.aspects["follow_up_negative"]  # type: ignore[operator]
    )


def test_the_length_of_a_follow_up_does_not_matter() -> None:
    # A model that gives every token the same: longer is less likely, and yet no worse.
    def flat(pairs: Any, *, hidden: bool = False) -> list[TokenScores]:
        return [TokenScores((-1.0,) * len(s.text), (), ()) for _, s in pairs]

    spec = {"follow_up": {"positive": ["yes"], "negative": ["no, not at all"]}}
    assert score(spec, "hello", "x", model=flat)[0].value == 0.0


def test_the_model_reads_the_conversation_and_then_the_user() -> None:
    model = bigram.BigramModel()
    chat = ({"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"})
    spec = {"follow_up": {"positive": ["a", "b"], "negative": ["c", "d"]}}
    score(spec, chat, "hello", "bye", model=model)
    first, second = (f"System: be kind\nUser: hi\nAssistant: {t}\nUser:" for t in ("hello", "bye"))
    assert model.asked == [[first] * 4 + [second] * 4]
    assert transcript("hi", ("assistant", "yo")) == "User: hi\nAssistant: yo"


def test_a_model_that_is_silent_leaves_no_value() -> None:
    def silent(pairs: Any, *, hidden: bool = False) -> list[TokenScores]:
        return [TokenScores((), (), ()) for _ in pairs]

    (found,) = score("follow_up", "hi", "hello", model=silent)
    assert found.value is None
    assert found.note.startswith("follow_up: a follow-up has no tokens")


# -- listener -------------------------------------------------------------------------------------

COLUMNS = {"options": ["cat", "dog"], "answer": "dog"}


def test_options_share_all_probability() -> None:
    assert option_probability([math.log(0.3), math.log(0.1)], 0) == pytest.approx(0.75)
    assert option_probability([-900.0, -901.0], 1) == pytest.approx(1 / (1 + math.e))
    assert option_probability([-1.0, None], 0) is None


def test_reasoning_that_leads_to_the_right_option_convinces() -> None:
    good = r"<think>dogs bark, a dog is it, so dogs: do dog</think> \boxed{it}"
    bad = r"<think>cats purr, a cat is it, so cats: ca cat</think> \boxed{it}"
    right, wrong = score("listener", "who?", good, bad, columns=COLUMNS)
    assert right.value is not None and wrong.value is not None
    assert 1 >= right.value > 0.5 > wrong.value >= 0


def test_the_listener_never_reads_the_answer_itself() -> None:
    model = bigram.BigramModel()
    texts = ("it barks, so a dog it is: dog, dogged.\n" r"\boxed{dog}", "it barks. #### dog")
    score("listener", "who?", *texts, columns=COLUMNS, model=model)
    (asked,) = model.asked
    heard = [str(prompt).partition("Reasoning:")[2] for prompt in asked]
    assert heard[0].startswith(" it barks, so a [...] it is: [...], dogged.")
    assert heard[2] == " it barks.\nThe answer is:"
    assert "Options:\n- cat\n- dog\n" in str(asked[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(r"\boxed{dog}", "", id="an answer alone"),
        pytest.param("dog", "", id="a bare answer"),
        pytest.param(r"so it is $\boxed{dog}$.", "so it is", id="an answer in a formula"),
        pytest.param(r"<think></think> it is a \boxed{dog}", "", id="an empty thought"),
        pytest.param(r"<think>dog</think> \boxed{dog}", "", id="a thought that is the answer"),
        pytest.param("I have no idea at all", "I have no idea at all", id="no answer"),
        pytest.param(r"so 1 \boxed{1} and \boxed{2}", "so 1", id="two boxes"),
    ],
)
def test_what_counts_as_reasoning(text: str, expected: str) -> None:
    assert hidden_reasoning(text) == expected


def test_a_long_answer_is_hidden_too() -> None:
    answer = "x + " * 80 + "1"
    assert hidden_reasoning(rf"<think>we get {answer} by hand</think> \boxed{{{answer}}}") == (
        "we get [...] by hand"
    )


@pytest.mark.parametrize("text", [" ", "$ ", r"\boxed{", "####", ". "])
def test_hiding_the_answer_takes_time_in_proportion_to_the_text(text: str) -> None:
    began = time.perf_counter()
    hidden_reasoning(text * 50_000 + r"a \boxed{3}")
    assert time.perf_counter() - began < 2.0


def test_no_reasoning_is_a_blind_guess_and_not_asked_about() -> None:
    model = bigram.BigramModel()
    columns = {"options": ["cat", "dog", "cow", "hen"], "answer": "dog"}
    blind, heard = score(
        "listener",
        "who?",
        r"\boxed{dog}",
        "it moos, so it gives milk",
        columns=columns,
        model=model,
    )
    assert blind.value == 0.25
    assert heard.value is not None and heard.value != 0.25
    assert [len(asked) for asked in model.asked] == [4]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"answer": "dog"}, "problem 'p7': column 'options' is missing"),
        ({"options": ["cat", "dog"]}, "problem 'p7': column 'answer' is missing"),
        ({"options": ["cat", "cat"], "answer": "cat"}, "at least two different strings"),
        ({"options": "cat", "answer": "cat"}, "column 'options' is 'cat', expected a list"),
        ({"options": ["cat", 1], "answer": "cat"}, "at least two different strings"),
        ({"options": ["cat", "dog"], "answer": "B"}, "column 'answer' is 'B', expected one of"),
    ],
)
def test_check_names_the_problem_and_the_column(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(GoldError) as raised:
        build_reward("listener").check(Problem("p7", "q", columns))
    assert message in str(raised.value)


# -- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(), (1.0, NAN), (-math.inf,)])
def test_a_total_of_nothing_or_of_what_is_not_finite_is_none(values: tuple[float, ...]) -> None:
    assert total(values) is None and total(values, "mean") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive": ["a", "b"]}, None),
        ({"positive": ["a"]}, "positive lists 1 and negative 2"),
        ({"positive": [], "negative": []}, "at least one"),
        ({"positive": ["a"], "negative": [" "]}, "a follow-up is empty"),
    ],
)
def test_follow_ups_come_in_pairs(options: dict[str, Any], message: str | None) -> None:
    if message is None:
        build_reward({"follow_up": options})
        return
    with pytest.raises(ValueError, match=message):
        build_reward({"follow_up": options})


@pytest.mark.parametrize("spec", ["endogenous", "follow_up", "listener"])
def test_a_frozen_model_is_needed(spec: str) -> None:
    reward = build_reward(spec)
    assert reward.need == "frozen_logprobs"
    group = Group(Problem("p", "q", COLUMNS), (bigram.sampled("it barks"),))
    with pytest.raises(RuntimeError, match=f"'{spec}' is not bound"):
        reward.score([group])
    reward.bind(Services(verify=no_verifier, policy=bigram.BigramModel()))
    with pytest.raises(RuntimeError, match="of a frozen model and the host lends none"):
        reward.score([group])
