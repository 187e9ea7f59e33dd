import math
import subprocess
import sys
from typing import Any

import pytest

from llmalign.rewards import Sample
from llmalign.rewards.base import TokenScores
from llmalign.rewards.embed import (
    cosine_matrix,
    ngram_embeddings,
    policy_embeddings,
    sentence_embeddings,
)


def test_cosines_are_those_of_a_plain_loop_and_never_negative() -> None:
    vectors = [[1.0, 2.0, -3.0], [0.5, 0.0, 4.0], [2.0, 4.0, -6.0]]
    found = cosine_matrix(vectors)
    for i, a in enumerate(vectors):
        for j, b in enumerate(vectors):
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            cosine = dot / math.hypot(*a) / math.hypot(*b)
            assert found[i][j] == pytest.approx(max(0.0, cosine), abs=1e-12)
    assert found[0][1] == 0.0


def test_a_missing_vector_is_similar_to_nothing_and_disturbs_nobody() -> None:
    assert cosine_matrix([[1.0, 0.0], None, [1.0, 0.0]]) == [
        [1.0, None, 1.0],
        [None, None, None],
        [1.0, None, 1.0],
    ]
    assert cosine_matrix([None]) == [[None]]
    assert cosine_matrix([]) == []


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_the_length_of_a_vector_does_not_matter(size: float) -> None:
    (row, _) = cosine_matrix([[size, size], [1.0, 0.0]])
    assert row[1] == pytest.approx(math.sqrt(0.5))


def test_vectors_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lengths \[1, 2\], expected one length"):
        cosine_matrix([[1.0], [1.0, 2.0]])


def test_ngrams_find_a_paraphrase_closer_than_another_argument() -> None:
    texts = [
        "First add 3 and 4 to get 7, then double it.",
        "First we add 3 and 4, which gives 7, then we double it.",
        "By symmetry the triangle has two equal angles.",
    ]
    near, far = cosine_matrix(ngram_embeddings(texts))[0][1:]
    assert near is not None and far is not None
    assert near > 0.4 > 0.1 > far


def test_features_that_share_a_place_cancel() -> None:
    # Without signs, texts that have nothing in common would look alike in few dimensions.
    texts = ["the quick brown fox jumps over a lazy dog", "PAIRWISE NIMBUS VECTORS HIKE UTMOST"]
    assert (cosine_matrix(ngram_embeddings(texts, dimensions=64))[0][1] or 0.0) < 0.3


def test_ngrams_are_the_same_in_another_process() -> None:
    # The hash of a str is not.
    code = (
        "from llmalign.rewards.embed import ngram_embeddings as e;"
        "print([i for i, x in enumerate(e(['some words here'])[0]) if x])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    (places,) = runs
    assert places.count(",") > 5


def test_a_text_without_words_has_no_vector() -> None:
    assert ngram_embeddings(["", " \n"]) == [None, None]


@pytest.mark.parametrize("said", [(), (0.0, 0.0), (1.0, math.nan), (math.inf, 1.0)])
def test_hidden_states_that_say_nothing_are_no_vector(said: tuple[float, ...]) -> None:
    def policy(pairs: Any, *, hidden: bool = False) -> list[TokenScores]:
        return [TokenScores((), (), (), said if hidden else (1.0,))]

    assert policy_embeddings([("q", Sample("x", (1,), (0.0,), "eos"))], policy) == [None]


def test_a_missing_package_names_the_setting_and_the_way_out() -> None:
    try:
        import sentence_transformers  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(RuntimeError, match="pip install sentence-transformers, or choose"):
            sentence_embeddings(["x"], "some/model")
    else:
        pytest.skip("sentence-transformers is installed")
