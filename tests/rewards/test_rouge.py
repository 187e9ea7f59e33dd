import random
import time

import pytest

import llmalign.rewards.rouge  # noqa: F401  (registers itself)
from llmalign.rewards import Group, Problem, Sample, build_reward
from llmalign.rewards.rouge import lcs_length, rouge_l, words


def values(references: object, *texts: str) -> list[float | None]:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    given = Group(Problem("p", "q", {"references": references}), samples)
    return [s.value for s in build_reward("rouge").score([given])[0]]


def table_lcs(first: str, second: str) -> int:
    rows = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            rows[i + 1][j + 1] = rows[i][j] + 1 if a == b else max(rows[i][j + 1], rows[i + 1][j])
    return rows[-1][-1]


def test_bits_find_what_the_table_finds() -> None:
    rng = random.Random(0)
    for _ in range(500):
        first, second = ("".join(rng.choices("abc", k=rng.randint(0, 90))) for _ in range(2))
        assert lcs_length(first, second) == table_lcs(first, second)


def test_f1_is_of_the_longest_common_subsequence() -> None:
    # police … the … gunman: 3 of 4 words of either, in order
    f1, precision, recall = rouge_l(
        "police kill the gunman".split(), "police killed the gunman".split()
    )
    assert (f1, precision, recall) == (0.75, 0.75, 0.75)
    # the gunman or kill police, never both orders at once: 2 of 4
    assert rouge_l("the gunman kill police".split(), "police kill the gunman".split())[0] == 0.5


def test_precision_and_recall_are_not_swapped() -> None:
    assert rouge_l(["a"], ["a", "b"]) == (pytest.approx(2 / 3), 1.0, 0.5)


def test_the_best_reference_counts() -> None:
    assert values(["no match here", "the cat sat"], "The cat, sat!") == [1.0]


def test_nothing_in_common_or_nothing_said_earns_zero() -> None:
    assert values("the cat sat", "dogs bark", "", "...", "<answer></answer>") == [0.0] * 4


def test_words_are_of_any_script_without_case_or_punctuation() -> None:
    assert words("L'Été_2024: ДА!") == ["l", "été", "2024", "да"]


def test_a_reference_without_words_is_not_scorable() -> None:
    assert values(["?!"], "the cat") == [None]


def test_long_texts_take_no_time() -> None:
    text = random.Random(1).choices("abcdefghij", k=20_000)
    began = time.perf_counter()
    assert lcs_length(text, ["x", *text]) == 20_000
    assert time.perf_counter() - began < 5  # the table of 400 million entries takes minutes
