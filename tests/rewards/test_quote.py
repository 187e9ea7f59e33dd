import random
from pathlib import Path
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, RewardHost, Sample, Score, build_reward
from llmalign.rewards.base import Services
from llmalign.rewards.quote import QuoteIndex, best_quote_pair, quote_pairs
from llmalign.verifiers import GoldError

SOURCE = "It was the best of times, it was the worst of times, it was the age of wisdom."


def group(*texts: str, **columns: Any) -> Group:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return Group(Problem("p7", "question", columns), samples)


def score(options: dict[str, Any], given: Group) -> list[Score]:
    reward = build_reward({"quote": options})
    reward.bind(Services(verify=lambda kind, pairs, options: []))
    return reward.score([given])[0]


def test_hashes_find_what_a_set_of_runs_finds() -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("ab ", k=300)) for _ in range(3)]
    plain = [" ".join(text.split()) for text in texts]
    index = QuoteIndex.of(texts[:2], 5)
    runs = {text[i : i + 5] for text in plain[:2] for i in range(len(text) - 4)}
    expected = [plain[2][i : i + 5] in runs for i in range(len(plain[2]) - 4)]
    assert index.hits(texts[2]) == expected
    assert 0 < sum(expected) < len(expected)


def test_the_share_is_of_the_answers_runs() -> None:
    # 13 characters have 4 runs of 10; only the first, "the worst ", is the source's
    (found,) = score({"column": "source", "ngram": 10}, group("the worst bus", source=SOURCE))
    assert found.value == 0.25
    assert found.aspects == {"quote": 0.25, "quote.longest": 10.0}


def test_a_quote_earns_one_and_words_of_ones_own_nothing() -> None:
    texts = [SOURCE[:60], "Times were good, and times were bad, and people were wise."]
    assert [s.value for s in score({"column": "source"}, group(*texts, source=[SOURCE]))] == [1, 0]


def test_white_space_does_not_matter_and_case_only_if_asked() -> None:
    wrapped, loud = SOURCE.replace(" ", "\n  "), SOURCE.upper()
    given = group(wrapped, loud, source=SOURCE)
    assert [s.value for s in score({"column": "source"}, given)] == [1.0, 0.0]
    lower = {"column": "source", "lowercase": True}
    assert [s.value for s in score(lower, given)] == [1.0, 1.0]


def test_an_answer_too_short_to_quote_earns_nothing_and_says_so() -> None:
    for found in score({"column": "source"}, group("", "It was", source=SOURCE)):
        assert found.value == 0.0
        assert "fewer than 25 characters" in found.note


def test_no_run_spans_two_texts_of_the_corpus() -> None:
    assert not any(QuoteIndex.of(["abc", "def"], 4).hits("abcdef"))


def test_a_corpus_shorter_than_a_run_quotes_nothing() -> None:
    assert QuoteIndex.of(["abc"], 25).hits("a" * 26) == [False, False]


def test_any_character_can_be_looked_up() -> None:
    text = "日本語のテキスト 🙂 \ud800 end"
    assert all(QuoteIndex.of([text], 5).hits(text))


def test_a_corpus_is_read_from_text_and_jsonl(tmp_path: Path) -> None:
    plain, rows = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_text(SOURCE[:40])
    rows.write_text('{"text": "call me Ishmael, some years ago, never mind"}\n')
    options = {"corpus": [str(plain), str(rows)]}
    given = group(SOURCE[:40], "call me Ishmael, some years ago", SOURCE[41:])
    host = RewardHost(build_reward({"quote": options}), workers=1)
    try:
        (found,) = host.score([given])
    finally:
        host.close()
    assert [s.value for s in found] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "which is no file; expected plain text or JSONL"),
        ("a.jsonl", '{"text": "x"}\n{"body": "y"}\n', "line 2 has no text under 'text'; set field"),
        ("b.jsonl", "not json\n", "line 1 has no text"),
    ],
)
def test_an_unreadable_corpus_is_named(
    name: str, content: str | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        score({"corpus": [str(tmp_path / name)]}, group("x" * 30))


@pytest.mark.parametrize("options", [{}, {"corpus": ["a"], "column": "b"}])
def test_either_a_corpus_or_a_column_is_needed(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected exactly one"):
        build_reward({"quote": options})


def test_check_and_score_say_what_is_missing() -> None:
    reward = build_reward({"quote": {"column": "source"}})
    with pytest.raises(GoldError, match="problem 'p7': column 'source' is missing"):
        reward.check(group("x").problem)
    with pytest.raises(RuntimeError, match="'quote' is not bound"):
        build_reward({"quote": {"corpus": ["a.txt"]}}).score([group("x")])


def test_pairs_differ_in_quoting_and_not_in_length() -> None:
    shares, lengths = [0.5, 0.1, 0.45, 0.1], [100, 109, 100, 110]
    pairs = quote_pairs(shares, lengths, min_gap=0.1, max_length_gap=0.1)
    assert pairs == [(0, 1), (2, 1)]  # 10 of 100 is not less than a tenth; 0.05 is no gap
    assert best_quote_pair(shares, pairs) == (0, 1)
    assert best_quote_pair(shares, []) is None
