import json
import math
from dataclasses import fields, is_dataclass
from datetime import date

import pytest
import torch

from llmalign.experience import Experience, ScoredGroup
from llmalign.rewards import Group, Problem, Sample, Score, StepScore
from llmalign.rollout.tree import Leaf, TreeGroup
from llmalign.sampling.codec import decode, encode
from llmalign.verifiers import Judgement, Verdict

COLUMNS = {
    "answer": "4",
    "tests": [{"input": (1, 2), "pattern": b"\xff\x00"}],
    "by_number": {1: "one", (2, 3): None},
    "is": "a name of our own",
    "nothing": {},
    "level": 3,
    "flag": True,
}


def full_group():
    """A group with something in every field."""
    sample = Sample(
        "half a pair: \ud83d, and \u2028",
        (5, 0, 151935),
        (-0.1, -1e-300, -math.inf),
        "length",
        weights_version=12,
        seed=2**63 - 1,
        turns=((0, 1), (2, 3)),
        kept_ids=bytes(range(256)),
        kept_counts=b"\x01\x00\x00\x00",
    )
    score = Score(
        0.1 + 0.2,
        {"math": 1.0, "style": None},
        Judgement(Verdict.UNDECIDED, "4", "time ran out", 5.25),
        "note",
        (StepScore(0, 4, -0.5),),
        1.5,
        {1: (0.5, None), 2: ()},
    )
    problem = Problem("id-1", ({"role": "user", "content": "2+2?"},), COLUMNS)
    tree = TreeGroup((Leaf(sample, (0, 3), (1, 2), 0.5), Leaf(sample, (0,), (2,), 0.5)), 5)
    scores = [score, Score(None)]
    return ScoredGroup(Group(problem, (sample, sample), 64), scores, (1, 2, 3), 2, tree)


def through_json(value):
    return decode(json.loads(json.dumps(encode(value))))


def assert_same(a, b):
    """Equal in value and in type, all the way down."""
    assert type(a) is type(b)
    if is_dataclass(a):
        for field in fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_a_scored_group_comes_back_exactly():
    group = full_group()
    assert_same(through_json(group), group)
    assert through_json(group) == group


def test_a_value_that_is_not_a_number_comes_back_too():
    assert math.isnan(through_json(Score(math.nan)).value)


def test_the_tensors_of_a_decoded_group_are_those_of_the_group():
    sample = Sample(
        "ab",
        (3, 9),
        (-0.25, -1.5),
        "eos",
        kept_ids=torch.tensor([3, 4, 9], dtype=torch.int32).numpy().tobytes(),
        kept_counts=torch.tensor([2, 1], dtype=torch.int32).numpy().tobytes(),
    )
    group = ScoredGroup(Group(Problem("p", "q"), (sample,)), [Score(1.0)], (1,))

    def tensors(scored):
        mask_BT = torch.ones(1, 2, dtype=torch.bool)
        reward_B = torch.tensor([scored.scores[0].value], dtype=torch.float64)
        experience = Experience([scored], reward_B, torch.zeros(1, dtype=torch.int64), mask_BT)
        kept, counts = experience.kept([0], torch.device("cpu"))
        return experience.rows, experience.logp_sampled_BT, *kept, counts

    for a, b in zip(tensors(group), tensors(through_json(group)), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_a_column_that_is_no_plain_value_is_named():
    group = ScoredGroup(Group(Problem("p", "q", {"day": date(2026, 1, 2)}), ()), [], ())
    with pytest.raises(TypeError, match=r"holds datetime.date\(2026, 1, 2\) of type date.*column"):
        encode(group)


def test_a_class_with_the_name_of_ours_is_not_taken_for_it():
    class Sample:
        pass

    with pytest.raises(TypeError, match="of type Sample, expected"):
        encode(Sample())


def test_a_state_with_an_unknown_word_builds_nothing():
    with pytest.raises(ValueError, match="the saved state holds a 'Popen', expected one of Scored"):
        decode({"is": "Popen", "of": {"args": ["true"]}})
