import math
from typing import Any

import pytest

import llmalign.rewards.graph  # noqa: F401  (registers itself)
from llmalign.rewards import Group, Problem, RewardHost, Sample, Score, build_reward
from llmalign.rewards.graph import path_pay, replies, retrieval_attenuation, says, word_f1
from llmalign.verifiers import GoldError


def score(spec: Any, columns: dict[str, Any], *texts: str, prompt: str = "q") -> list[Score]:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    host = RewardHost(build_reward(spec), workers=1)
    try:
        return host.score([Group(Problem("p7", prompt, columns), samples)])[0]
    finally:
        host.close()


def values(spec: Any, columns: dict[str, Any], *texts: str, **more: Any) -> list[float | None]:
    return [s.value for s in score(spec, columns, *texts, **more)]


def search(*queries: str) -> str:
    return " ".join(f"<search>{query}</search>" for query in queries)


def test_each_further_retrieval_pays_half_of_the_one_before() -> None:
    texts = [search(), search("a"), search("a", "b"), search("a", "b", "c")]
    assert values("progressive_retrieval", {}, *texts) == [0.0, 0.5, 0.75, 0.875]


def test_the_same_question_again_an_empty_or_an_open_one_pays_nothing() -> None:
    texts = [search("Who?", "who"), search("", " "), "<search>never closed"]
    assert values("progressive_retrieval", {}, *texts) == [0.5, 0.0, 0.0]


def test_retrievals_beyond_the_bound_pay_nothing_even_without_decay() -> None:
    many = search(*map(str, range(50)))
    spec = {"progressive_retrieval": {"decay": 1.0, "max_calls": 3}}
    assert values(spec, {}, many) == [1.5]
    assert retrieval_attenuation(4, 0.5, 1.0) == 2.0
    assert retrieval_attenuation(4, 0.5, 0.0) == 0.5


def test_every_retrieval_lowers_what_a_right_answer_earns() -> None:
    texts = [f"{search(*'ab'[:n])} <answer>Paris</answer>" for n in range(3)]
    expected = [pytest.approx(math.exp(-0.1 * n)) for n in range(3)]
    assert values("cost_aware_f1", {"answer": ["Rome", "Paris"]}, *texts) == expected


def test_empty_retrievals_cost_as_well() -> None:
    found = score("cost_aware_f1", {"answer": "Paris"}, f"{search('')}<answer>Paris</answer>")[0]
    assert found.value == pytest.approx(math.exp(-0.1))
    assert found.aspects["cost_aware_f1.f1"] == 1.0


def test_words_are_compared_as_in_squad_and_as_often_as_they_stand() -> None:
    assert word_f1("The capital, Paris", "paris") == pytest.approx(2 / 3)
    assert word_f1("Paris Paris Paris Paris", "Paris") == 0.4
    assert word_f1("", "Paris") == word_f1("Rome", "Paris") == 0.0


KG = {"kg_path": {"of": "math"}}
PATH = {"path": ["aspirin", "inhibits", "cyclooxygenase"], "answer": "7"}
TOLD = "Aspirin inhibits cyclooxygenase. #### 7"
WRONG = TOLD.replace("7", "8")


def test_the_path_pays_on_top_of_the_answer_and_less_for_a_wrong_one() -> None:
    right, bare, wrong = values(KG, PATH, TOLD, "#### 7", WRONG)
    assert right == pytest.approx(0.1 + 1.5)
    assert bare == pytest.approx(0.1)
    assert wrong == pytest.approx(-1 + 0.5 * 1.5)


def test_by_default_no_wrong_answer_earns_more_than_a_right_one() -> None:
    worst_right, best_wrong = values(KG, PATH, "#### 7", WRONG)
    assert worst_right is not None and best_wrong is not None and worst_right > best_wrong
    paper = {"kg_path": {**KG["kg_path"], "wrong_share": 1.0}}
    assert values(paper, PATH, WRONG) == [pytest.approx(0.5)]


def test_repeating_the_path_lowers_its_pay() -> None:
    once, often = values(KG, PATH, TOLD, "aspirin inhibits cyclooxygenase " * 30 + "#### 7")
    assert once is not None and often is not None and often < 0.3 < once


@pytest.mark.parametrize(
    ("hits", "path_words", "variety", "pay"),
    [(0, 4, 1.0, 0.0), (1, 4, 1.0, 0.3), (2, 4, 1.0, 0.9), (4, 4, 1.0, 1.5), (4, 4, 0.6, 0.9),
     (0, 0, 1.0, 0.0)],
)  # fmt: skip
def test_path_pay_has_a_bonus_from_two_hits_on_and_a_bound(
    hits: int, path_words: int, variety: float, pay: float
) -> None:
    assert path_pay(hits, path_words, variety) == pytest.approx(pay)


FACTS = {"masked_facts": ["budget is 500", "two children", "leaves in May"]}


def turn(question: str, reply: str) -> str:
    return f"<question>{question}</question>\n<reply>{reply}</reply>\n"


def test_only_facts_that_are_new_are_paid_and_each_once() -> None:
    text = (
        turn("Budget?", "My budget is 500.") + turn("And?", "As I said, the budget is 500!")
        + turn("Weather?", "No idea.") + turn("Who, when?", "Two children; she leaves in May.")
    )  # fmt: skip
    (found,) = score("proactive", FACTS, text)
    assert found.value == 3.0
    assert [step.value for step in found.steps] == [1.0, 0.0, 0.0, 2.0]
    assert found.aspects["proactive.turns"] == 4.0


def test_a_step_is_what_the_policy_wrote_in_its_turn() -> None:
    text = "Hm. " + turn("Budget?", "500") + "So. " + turn("Who?", "two")
    steps = score("proactive", FACTS, text)[0].steps
    assert [text[step.start : step.end].strip() for step in steps] == [
        "Hm. <question>Budget?</question>",
        "So. <question>Who?</question>",
    ]


def test_facts_the_prompt_already_says_are_not_paid() -> None:
    text = turn("Who?", "two children")
    assert values("proactive", FACTS, text, prompt="For two children, please.") == [0.0]
    assert values("proactive", FACTS, text) == [1.0]


@pytest.mark.parametrize(
    "text",
    ["", "The budget is 500.", "<reply>budget is 500</reply>",
     "<question>a</question> so <reply>budget is 500</reply>",
     "<question>a</question><reply>budget is 500"],
    ids=["nothing", "own words", "no question", "not right after", "never closed"],
)  # fmt: skip
def test_only_a_reply_right_after_a_question_is_the_users(text: str) -> None:
    assert values("proactive", FACTS, text) == [0.0]


def test_a_question_without_a_reply_belongs_to_the_next_turn() -> None:
    text = "<question>a</question> b <question>c</question><reply>d</reply>"
    ((start, end, reply),) = replies(text, "question", "reply")
    assert (text[start:end], reply) == ("<question>a</question> b <question>c</question>", "d")


def test_a_fact_is_found_by_whole_words() -> None:
    assert says("It costs 500, I think", "500")
    assert not says("It costs 5000", "500")
    assert not says("anything", "?!")


@pytest.mark.parametrize(
    ("spec", "column"), [("cost_aware_f1", "answer"), ("proactive", "masked_facts"), (KG, "path")]
)
def test_check_names_the_missing_column(spec: Any, column: str) -> None:
    columns = {"answer": "7"} if column == "path" else {}
    with pytest.raises(GoldError, match=f"problem 'p7': column '{column}' is missing"):
        build_reward(spec).check(Problem("p7", "q", columns))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"progressive_retrieval": {"decay": 1.1}}, "decay is 1.1, expected it in"),
        ({"progressive_retrieval": {"first": -1.0}}, "expected both >= 0"),
        ({"cost_aware_f1": {"cost": -0.1}}, "cost is -0.1"),
        ({"kg_path": {"of": "math", "wrong_share": 2.0}}, "wrong_share is 2.0"),
        ({"kg_path": {"of": "math", "wrong_pay": 0.1}}, "right_pay must be the larger"),
    ],
)
def test_options_out_of_range_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_reward(spec)
