import math
import operator
import random
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmalign.advantages.difficulty import difficulty
from llmalign.rewards import Group, Problem, Sample, Score, build_reward
from llmalign.rewards.clause_distance import clause_distance, clauses
from llmalign.rewards.embed import sentence_embeddings


def score(texts: list[str], columns: dict[str, Any], **options: Any) -> list[Score]:
    reward = build_reward({"clause_distance": options})
    problem = Problem("p", "q", columns)
    reward.check(problem)
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return reward.score([Group(problem, samples)])[0]


def test_the_nearest_clause_counts_for_each_of_the_demonstration() -> None:
    # cosines by hand: (1, 0) finds 1 and 0.6, (0, 1) finds 0 and 0.8
    assert clause_distance([(1, 0), (0, 1)], [(1, 0), (3, 4)]) == pytest.approx(1 - (1 + 0.8) / 2)
    assert clause_distance([(1, 0)], [(-1, 0)]) == 1.0  # opposite counts as unlike


def test_a_missing_vector_is_left_out_and_an_empty_response_is_farthest() -> None:
    assert clause_distance([(1, 0), None], [None, (1, 0)]) == pytest.approx(0.0)
    assert clause_distance([(1, 0)], []) == 1.0
    assert clause_distance([None], [(1, 0)]) is None
    assert clause_distance([], []) is None


def test_it_is_what_a_plain_loop_makes_of_it() -> None:
    draw = random.Random(1)
    vectors = [[draw.gauss(0, 1) for _ in range(5)] for _ in range(9)]
    shown, said = vectors[:4], vectors[4:]

    def cosine(x: list[float], y: list[float]) -> float:
        return sum(map(operator.mul, x, y)) / math.hypot(*x) / math.hypot(*y)

    nearest = [max(max(cosine(d, r), 0.0) for r in said) for d in shown]
    assert clause_distance(shown, said) == pytest.approx(1 - sum(nearest) / 4)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("I can't, but here is why: it harms.", ["I can't", "but here is why", "it harms"]),
        ("Pi is 3.14; 1,000 of them!\nYes", ["Pi is 3.14", "1,000 of them", "Yes"]),
        ("不行。为什么？", ["不行", "为什么"]),
        ("...  \n - ?", []),
        ("", []),
    ],
)
def test_clauses_end_at_punctuation_and_lines_but_not_within_numbers(
    text: str, parts: list[str]
) -> None:
    assert clauses(text) == parts


DEMONSTRATION = "I cannot help with that. Poison harms people, so call a doctor."


def test_a_response_that_holds_the_demonstration_is_near_and_another_far() -> None:
    texts = [f"Hm. {DEMONSTRATION}", "I cannot help with that.", "Buy seven blue kites!", "..."]
    same, part, other, nothing = [
        one.value for one in score(texts, {"demonstration": DEMONSTRATION})
    ]
    assert same == pytest.approx(0.0, abs=1e-12) and nothing == 1.0
    assert same < part < other < 1.0


def test_the_nearest_of_several_demonstrations_counts() -> None:
    (found,) = score(["Sure thing."], {"demo": [DEMONSTRATION, "Sure thing"]}, column="demo")
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert found.aspects == {"clause_distance": found.value}


@pytest.mark.parametrize("columns", [{}, {"demonstration": None}, {"demonstration": " "}])
def test_without_a_demonstration_there_is_no_distance(columns: dict[str, Any]) -> None:
    (found,) = score(["a"], columns)
    assert found.value is None and found.note == "clause_distance: no demonstration"


def test_a_demonstration_without_a_clause_has_no_distance() -> None:
    (found,) = score(["a"], {"demonstration": "?!"})
    assert found.value is None
    assert found.note == "clause_distance: no vector for the demonstration"


def test_distances_are_the_delta_of_grpo_s() -> None:
    texts = [DEMONSTRATION, "I cannot help with that.", "Buy seven blue kites!"]
    values = [one.value for one in score(texts, {"demonstration": DEMONSTRATION})]
    delta_B = torch.tensor(values, dtype=torch.float64)
    alpha_B = difficulty(delta_B, torch.zeros(3), boosts="small")
    expected = torch.sigmoid(delta_B) / torch.sigmoid(delta_B.mean())
    assert alpha_B.tolist() == pytest.approx(expected.tolist())
    assert alpha_B[0] < 1 < alpha_B[2]


def test_a_sentence_model_may_make_the_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    class ByLength:
        """A model of another package: (1, 0) for texts of one letter, else (0, 1)."""

        def __init__(self, name: str) -> None:
            assert name == "by-length"

        def encode(self, texts: list[str], show_progress_bar: bool) -> list[list[float]]:
            return [[1.0, 0.0] if len(text) == 1 else [0.0, 1.0] for text in texts]

    package = SimpleNamespace(SentenceTransformer=ByLength)
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    assert sentence_embeddings(["a"], "by-length") == [[1.0, 0.0]]
    options = {"embedder": "sentence_transformers", "model": "by-length"}
    found = score(["x", "x. yy"], {"demonstration": "a. bb"}, **options)
    assert [one.value for one in found] == [0.5, 0.0]


@pytest.mark.parametrize(
    "options", [{"model": "m"}, {"embedder": "sentence_transformers"}], ids=["extra", "missing"]
)
def test_model_and_embedder_belong_together(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="embedder 'sentence_transformers' needs a model"):
        build_reward({"clause_distance": options})
