from dataclasses import dataclass

import pytest
import torch

from llmalign.experience import Experience, ScoredGroup
from llmalign.rewards import Group, Problem, Sample, Score, StepScore
from llmalign.structure import (
    margins_of_all,
    margins_over_reference,
    node_values,
    spans,
    steps,
    token_counts,
)

NAN = float("nan")


@dataclass
class Words:
    """A tokenizer whose tokens are pieces of text; an empty piece is special, as an end is."""

    pieces: tuple[str, ...]

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(self.pieces[i] for i in ids)


TOKENIZER = Words(("", "ab", "c", "\n", "def", "g"))
TEXT_IDS = (1, 2, 3, 4, 5, 0)  # ab c \n def g END


def experience_of(*groups):
    """Groups of (token ids, score) samples."""
    made = [
        ScoredGroup(
            Group(
                Problem(f"p{p}", "?", {}),
                tuple(Sample("", ids, (0.0,) * len(ids), "eos") for ids, _ in members),
            ),
            [score for _, score in members],
            (9,),
        )
        for p, members in enumerate(groups)
    ]
    rows = sum(len(members) for members in groups)
    width = max(len(ids) for members in groups for ids, _ in members)
    number = [p for p, members in enumerate(groups) for _ in members]
    mask_BT = torch.ones(rows, width, dtype=torch.bool)
    return Experience(made, torch.zeros(rows), torch.tensor(number), mask_BT)


def scored(*places):
    return Score(0.0, steps=tuple(StepScore(*place) for place in places))


@pytest.mark.parametrize(
    ("place", "count"),
    [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (7, 4), (8, 5), (9, 6)],
)
def test_tokens_are_counted_up_to_a_character(place: int, count: int) -> None:
    assert token_counts(TOKENIZER, TEXT_IDS, [place]) == [count]


def test_a_step_ends_with_the_token_of_its_last_character_and_the_last_takes_the_end_along():
    # "abc\n" is tokens 0 to 2, "defg" 3 and 4, and the end of the text belongs to it
    both = ((TEXT_IDS, scored((0, 4, 0.25), (4, 8, -1.0))), ((1, 2, 0), scored((0, 3, 0.5))))
    found = steps(experience_of(both), TOKENIZER, "pure")
    assert found["step_end_BK"].tolist() == [[2, 5], [2, -1]]
    expected = torch.tensor([[0.25, -1.0], [0.5, NAN]], dtype=torch.float64)
    torch.testing.assert_close(found["step_reward_BK"], expected, equal_nan=True)


def test_of_steps_that_end_in_one_token_the_last_counts_and_a_sample_may_have_none():
    both = ((TEXT_IDS, scored((0, 4, 1.0), (4, 5, 2.0), (5, 6, 3.0))), (TEXT_IDS, Score(0.0)))
    found = steps(experience_of(both), TOKENIZER, "pure")
    assert found["step_end_BK"].tolist() == [[2, 5], [-1, -1]]
    assert found["step_reward_BK"][0].tolist() == [1.0, 3.0]


def test_spans_are_half_open_in_tokens():
    one = ((TEXT_IDS, scored((0, 3, 2.0), (4, 8, 0.5), (8, 8, 9.0))), (TEXT_IDS, Score(0.0)))
    found = spans(experience_of(one), TOKENIZER, "spans")
    assert found["span_BS2"][0].tolist()[:2] == [[0, 2], [3, 5]]
    assert found["value_BS"][0].tolist()[:2] == [2.0, 0.5]
    assert found["span_BS2"][1].tolist() == [[0, 0]] * 3


@pytest.mark.parametrize("make", [steps, spans])
def test_without_a_step_score_the_way_out_is_named(make) -> None:
    with pytest.raises(ValueError, match="no sample has step scores, which 'pure' needs; use a"):
        make(experience_of(((TEXT_IDS, Score(0.0)),)), TOKENIZER, "pure")


def versus(**margins):
    return Score(0.0, versus={int(k[1:]): v for k, v in margins.items()})


def test_comparisons_stay_within_their_group() -> None:
    ids = (1, 0)
    one = ((ids, versus(i1=(2.0, 1.0))), (ids, versus(i0=(-2.0, -1.0))))
    two = ((ids, versus(i1=(-1.0, 1.0))), (ids, versus(i0=(1.0, -1.0))))
    margin_BB = margins_of_all(experience_of(one, two), "pairwise_wins")["margin_BB"]
    assert margin_BB[:2, :2].tolist() == [[0.0, 1.5], [-1.5, 0.0]]
    assert margin_BB[2:, 2:].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert not margin_BB[:2, 2:].any() and not margin_BB[2:, :2].any()


def test_a_group_whose_samples_met_no_reference_leaves_the_loss() -> None:
    ids = (1, 0)
    one = ((ids, versus(i1=(2.0, -1.0))), (ids, Score(0.5)))
    two = ((ids, Score(0.0)), (ids, Score(0.0)))
    experience = experience_of(one, two)
    found = margins_over_reference(experience, "brpo")
    assert found["reference_B"].tolist() == [False, True, True, False]
    assert found["margin_BJ"][0].tolist() == [2.0, -1.0]
    assert experience.mask_BT.any(1).tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match="no sample was compared with another, which 'brpo'"):
        margins_over_reference(experience_of(two), "brpo")


def test_a_reward_node_gives_a_value_per_sample_or_its_name_is_wrong() -> None:
    ids = (1, 0)
    both = ((ids, Score(0.0, {"gap": 2.0})), (ids, Score(0.0, {"gap": None})))
    found = node_values(experience_of(both), "gap")
    assert found[0] == 2.0 and found[1].isnan()
    with pytest.raises(ValueError, match="names reward node 'gpa', expected one of gap"):
        node_values(experience_of(both), "gpa")
