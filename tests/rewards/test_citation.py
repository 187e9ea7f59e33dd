import time
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, Sample, Score, build_reward
from llmalign.rewards.citation import Quotation, find_quotations, is_quoted, words
from llmalign.verifiers import GoldError

SOURCES = [
    "The Eiffel Tower was completed in March 1889. It is 330 metres tall.",
    {"title": "Louvre", "text": "It opened as a museum on 10 August 1793, with 537 paintings."},
]


def score(spec: Any, *texts: str, sources: Any = SOURCES) -> list[Score]:
    problem = Problem("p7", "q", {"sources": sources})
    reward = build_reward(spec)
    reward.check(problem)
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return reward.score([Group(problem, samples)])[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param('It "was completed in March 1889" [1].', 1.0, id="word for word"),
        pytest.param("It “WAS completed, in March 1889” [1].", 1.0, id="case and punctuation"),
        pytest.param('It "was completed in April 1889" [1].', 0.0, id="one word off"),
        pytest.param('It "was completed in March 188" [1].', 0.0, id="half a word"),
        pytest.param('It "was completed in March 1889" [2].', 0.0, id="in another source"),
        pytest.param('It "was completed in March 1889" [1, 2].', 1.0, id="one of two sources"),
        pytest.param('It "was completed in March 1889" [7].', 0.0, id="a source there is not"),
        pytest.param('It "was completed in March 1889".', 1.0, id="without a source"),
        pytest.param("«opened as a museum […] with 537 paintings» [2]", 1.0, id="words left out"),
        pytest.param("«with 537 paintings … opened as a museum» [2]", 0.0, id="in the wrong order"),
        pytest.param("> It is 330 metres tall. [1]", 1.0, id="a quoted line"),
        pytest.param("> It is 330 metres tall.", 1.0, id="a quoted line without source"),
        pytest.param('"330 metres" is tall', 0.0, id="too short to count"),
        pytest.param("The tower was completed in March 1889 [1].", 0.0, id="not quoted"),
        pytest.param('<think>"was completed in March 1889"</think> Yes.', 0.0, id="in thinking"),
        pytest.param("", 0.0, id="empty"),
        pytest.param(
            '"was completed in March 1889" and "is the tallest of all towers"', 0.5, id="one of two"
        ),
        pytest.param(
            '"was completed in March 1889", "was completed in March 1889", "it was never built"',
            0.5,
            id="a repetition counts once",
        ),
    ],
)
def test_quotations_must_stand_in_their_source(text: str, value: float) -> None:
    assert score("citation", text)[0].value == value


def test_a_source_can_be_asked_for_or_not_looked_at() -> None:
    bare, wrong = 'It "was completed in March 1889".', '"was completed in March 1889" [2]'
    required = score({"citation": {"cited": "required"}}, bare, wrong)
    ignored = score({"citation": {"cited": "ignored"}}, bare, wrong)
    assert [s.value for s in required] == [0.0, 0.0]
    assert [s.value for s in ignored] == [1.0, 1.0]


def test_one_quotation_is_not_enough_where_more_are_expected() -> None:
    spec = {"citation": {"min_quotes": 4}}
    assert score(spec, '"was completed in March 1889"')[0].value == 0.25


def test_what_was_found_is_logged() -> None:
    text = '"was completed in March 1889" [1] and "it is made of gold" [9], see [2] and [0]'
    (found,) = score("citation", text)
    assert found.aspects == {
        "citation": 0.5,
        "citation.quotes": 2.0,
        "citation.found": 1.0,
        "citation.unknown_sources": 2.0,
    }
    assert "'it is made of gold'" in found.note


def test_quotations_are_found_with_their_sources() -> None:
    text = 'A "b c" [1][2], “d” and\n> e f [3]\nnot [4] "g" h.'
    assert find_quotations(text) == [
        Quotation("b c", (1, 2)),
        Quotation("d", ()),
        Quotation("e f  ", (3,)),
        Quotation("g", ()),
    ]


def test_parts_of_a_quotation_must_be_whole_words_in_order() -> None:
    source = words("one two three four five six seven")
    assert is_quoted("one two three … five six seven", source)
    assert is_quoted("two three", source)
    assert not is_quoted("one two three … four five si", source)
    assert not is_quoted("five six seven ... one two three", source)
    assert not is_quoted("one two three four … three four five", source)
    assert not is_quoted("one … three … five … seven", source)
    assert not is_quoted("…", source)


@pytest.mark.parametrize("text", ['"' * 100_000, "“" * 100_000, "[1]" * 60_000, "> " * 90_000])
def test_hostile_text_takes_no_time(text: str) -> None:
    began = time.perf_counter()
    score("citation", text)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("sources", ["one text", [], [""], [{"title": "x"}], [3], None])
def test_sources_that_cannot_be_read_are_named(sources: Any) -> None:
    with pytest.raises(GoldError, match="problem 'p7': column 'sources' is"):
        build_reward("citation").check(Problem("p7", "q", {"sources": sources}))


@pytest.mark.parametrize(
    "spec",
    [{"citation": {"min_words": 0}}, {"citation": {"min_quotes": 0}},
     {"citation": {"cited": "maybe"}}],
)  # fmt: skip
def test_options_out_of_range_are_refused(spec: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        build_reward(spec)
