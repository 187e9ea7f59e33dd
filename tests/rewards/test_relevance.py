import sys
from pathlib import Path
from typing import Any

import pytest

import llmalign.rewards.relevance  # noqa: F401  (registers itself)
from llmalign.rewards import Group, Problem, Sample, Score, build_reward
from llmalign.rewards.relevance import length_incentive, ngram_similarity, question, variety
from llmalign.verifiers import GoldError

ASKED = "Why is the sky blue during the day?"


def score(options: dict[str, Any], columns: dict[str, Any], *texts: str) -> list[Score]:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    reward = build_reward({"relevance": options})
    return reward.score([Group(Problem("p7", ASKED, columns), samples)])[0]


def test_similarity_is_a_cosine_of_counts() -> None:
    # " ab " and " abab ": trigrams {" ab", "ab "} and {" ab", "aba", "bab", "ab "}
    assert ngram_similarity("ab", "abab") == pytest.approx(2 / (2 * 4) ** 0.5)
    assert ngram_similarity("The sky!", "the SKY") == pytest.approx(1.0)
    assert ngram_similarity("abc", "xyz") == ngram_similarity("", "abc") == 0.0


def test_an_open_answer_is_paid_for_relevance_length_and_variety() -> None:
    told = "the sky is blue as air scatters blue light"
    aside = "my dog eats shoes all day long now ok"
    on, off, loop = score({}, {}, told, aside, "the sky is the sky is the sky is")
    assert on.value is not None and off.value is not None and on.value > off.value
    parts = on.aspects
    assert parts["relevance.length"] == 0.09 and parts["relevance.variety"] == 1.0
    assert on.value == pytest.approx(parts["relevance.similarity"] * 0.09)
    assert loop.aspects["relevance.variety"] == 3 / 7


def test_a_closed_answer_is_compared_with_its_best_reference_whatever_its_length() -> None:
    short, wrong = score({}, {"references": ["Rayleigh", "air"]}, "Rayleigh", "magic")
    assert short.value == pytest.approx(1.0)
    assert wrong.value is not None and wrong.value < 0.3


def test_an_empty_reference_makes_an_open_question() -> None:
    (found,) = score({}, {"references": []}, ASKED)
    assert found.value == pytest.approx(0.08)


def test_length_is_bounded_unless_asked_otherwise() -> None:
    assert length_incentive(250, 100) == 1.0
    assert length_incentive(250) == 2.5


def test_fewer_than_three_words_repeat_nothing() -> None:
    assert variety([]) == variety(["a", "a"]) == 1.0


def test_an_answer_of_nothing_earns_nothing() -> None:
    assert [s.value for s in score({}, {}, "")] == [0.0]
    assert [s.value for s in score({}, {"references": "air"}, "...")] == [0.0]


def test_the_last_message_of_the_user_is_the_question() -> None:
    chat = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    assert question(tuple({"role": r, "content": c} for r, c in chat)) == "c"
    assert question(({"role": "system", "content": "s"},)) == ""


def test_a_similarity_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_similarity.py").write_text(
        "def overlap(pairs):\n"
        "    return [len(a) if b else float('nan') for a, b in pairs]\n"
        "def short(pairs):\n"
        "    return []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = score({"similarity": "my_similarity:overlap"}, {"references": ["ab", "abcd"]}, "x", "")
    assert [s.value for s in found] == [4.0, None]
    assert "expected finite numbers" in found[1].note
    with pytest.raises(ValueError, match="returned 0 values, expected one for each of 1 pairs"):
        score({"similarity": "my_similarity:short"}, {}, "x")
    sys.modules.pop("my_similarity", None)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("cosine", "expected 'ngrams' or 'package.module:f'"),
        ("no_such_module:f", "is it on PYTHONPATH"),
        ("json:nothing", "but: module 'json' has no attribute 'nothing'"),
        ("json:__name__", "expected a function"),
    ],
)
def test_a_similarity_that_cannot_be_had_is_refused(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_reward({"relevance": {"similarity": path}})


def test_check_asks_for_the_reference_of_a_closed_question() -> None:
    with pytest.raises(GoldError, match="problem 'p7': column 'references' is missing"):
        build_reward({"relevance": {"mode": "closed"}}).check(Problem("p7", "q"))
    build_reward("relevance").check(Problem("p7", "q"))
