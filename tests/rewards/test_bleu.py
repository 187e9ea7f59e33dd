import math
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

import llmalign.recipe
from llmalign.rewards import Group, Problem, RewardHost, Sample, Score, build_reward
from llmalign.rewards.bleu import Bleu, sentence_bleu, tokens_13a
from llmalign.rewards.references import answer_text, references
from llmalign.verifiers import GoldError

STORY = "One day a little girl named Lily found a needle in her room."


def group(*texts: str, **columns: Any) -> Group:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return Group(Problem("p7", "question", columns), samples)


def score(group: Group, **options: Any) -> list[Score]:
    return build_reward({"bleu": options}).score([group])[0]


def test_the_reference_itself_earns_one_and_another_text_little() -> None:
    same, other = score(group(STORY, "We sell cars and bikes at low prices!", references=[STORY]))
    assert same.value == pytest.approx(1.0)
    assert other.value is not None and other.value < 0.15


def test_an_n_gram_matches_as_often_as_in_one_reference() -> None:
    # "the" stands once in either reference: one match of two, not two. No longer n-gram matches.
    found = sentence_bleu(["the", "the"], [["the", "cat"], ["the", "dog"]])
    assert found.precisions == (2 / 3, 1 / 2, 1.0, 1.0)
    assert found.bleu == pytest.approx((2 / 3 * 1 / 2) ** 0.25)


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(1, math.exp(1 - 4)), (2, math.exp(-1)), (4, 1.0), (5, 1.0)],
)
def test_only_answers_shorter_than_the_shortest_reference_are_penalised(
    length: int, penalty: float
) -> None:
    found = sentence_bleu(["a"] * length, [["a"] * 4, ["a"] * 9])
    assert found.brevity_penalty == pytest.approx(penalty)


@pytest.mark.parametrize("text", ["", "   ", "<skipped>", "<answer></answer>", "</think>"])
def test_an_answer_without_tokens_earns_nothing(text: str) -> None:
    assert [s.value for s in score(group(text, references=STORY))] == [0.0]


@pytest.mark.parametrize("answer", [["x"], []])
def test_a_reference_without_tokens_is_refused_by_the_formula(answer: list[str]) -> None:
    for bad in ([], [[]], [["a"], []]):
        with pytest.raises(ValueError, match="expected tokens in each"):
            sentence_bleu(answer, bad)


def test_smoothing_pays_short_texts_for_nothing_which_is_why_they_are_refused() -> None:
    assert sentence_bleu(["no"], [["yes"]]).bleu == pytest.approx(0.8409, abs=1e-4)
    assert sentence_bleu(list("abcdefgh"), [list("ijklmnop")]).bleu < 0.14


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"answer": "x"},
            "problem 'p7': column 'references' is missing, expected it among: answer",
        ),
        ({"references": []}, "problem 'p7': column 'references' is [], expected a text or a list"),
        ({"references": [STORY, " "]}, "none of them empty; drop the row"),
        ({"references": [STORY, None]}, "expected a text or a list of texts"),
        ({"references": True}, "is True, expected a text"),
        (
            {"references": [STORY, "Paris."]},
            "holds 'Paris.' with 2 tokens, expected 8 or more; use",
        ),
        ({"references": "<skipped>"}, "with 0 tokens, expected 8 or more"),
    ],
)
def test_check_names_problem_column_and_way_out(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(GoldError) as raised:
        build_reward({"bleu": {}}).check(Problem("p7", "q", columns))
    assert message in str(raised.value)


def test_short_references_are_not_scorable_rather_than_wrong() -> None:
    found = score(group("Paris.", "Rome.", references=["Paris."]))
    assert [s.value for s in found] == [None, None]
    assert "lower bleu.min_reference_tokens" in found[0].note
    allowed = score(group("Paris.", "Rome.", references=["Paris."]), min_reference_tokens=1)
    assert allowed[0].value == pytest.approx(1.0)


def test_a_reference_that_tokenises_to_nothing_is_never_divided_by() -> None:
    found = score(group("hello", references=["<skipped>"]), min_reference_tokens=1)
    assert found[0].value is None


def test_the_last_answer_tag_after_the_thinking_is_compared() -> None:
    def read(text: str) -> str:
        return answer_text(Sample(text, (1,), (0.0,), "eos"))

    assert read("<answer>a</answer> so <answer> b </answer>") == "b"
    assert read("<answer>a</answer></think>c d") == "c d"
    assert read("<answer>a</answer> <answer></answer>") == ""
    assert read("<answer>never closed") == "<answer>never closed"


def test_parts_are_logged_beside_the_value() -> None:
    (found,) = score(group("One day a girl", references=STORY), name="b")
    assert set(found.aspects) == {"b", "b.brevity_penalty", "b.length_ratio"}
    assert found.aspects["b.length_ratio"] == pytest.approx(4 / 14)


def test_numbers_and_single_texts_are_references_too() -> None:
    assert references(Problem("p", "q", {"r": 5}), "r") == ["5"]
    assert references(Problem("p", "q", {"r": ("a", 2)}), "r") == ["a", "2"]


def test_texts_that_were_scored_are_not_kept_in_memory() -> None:
    score(group(*(f"{STORY} {i}" for i in range(50)), references=STORY))
    assert Tokenizer13a.__call__.cache_info().currsize == 0


def test_tokens_are_those_of_mteval() -> None:
    assert tokens_13a("It's 3.5%, not 1,000-2.") == ["It's", "3.5", "%", ",", "not", "1,000", "-",
                                                     "2", "."]  # fmt: skip


def test_it_is_one_line_of_a_recipe_and_runs_in_a_host() -> None:
    host = RewardHost(build_reward("bleu"), workers=1)
    try:
        ((found,),) = host.score([group(STORY, references=[STORY])])
    finally:
        host.close()
    assert found.value == pytest.approx(1.0)


def test_a_least_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="min_reference_tokens is 0, expected >= 1"):
        build_reward({"bleu": {"min_reference_tokens": 0}})


def test_the_lab_recipe_is_built_with_this_reward() -> None:
    path = Path(llmalign.recipe.__file__).parent / "recipes" / "lab" / "bleu_tinystories.yaml"
    recipe = llmalign.recipe.load_recipe(str(path))
    assert isinstance(build_reward(recipe.reward), Bleu)
    assert recipe.data.on_bad_gold == "drop"
