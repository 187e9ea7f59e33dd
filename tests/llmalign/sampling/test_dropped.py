import json

import pytest

from llmalign.experience import ScoredGroup
from llmalign.rewards import Group, Problem, Sample, Score
from llmalign.sampling.dropped import Dropped, teaches_nothing


def test_a_record_is_one_line_of_json_with_step_problem_and_reason():
    dropped = Dropped(3, "gsm8k-7", "all equal", "8 samples at 0.0")
    assert json.loads(json.dumps(dropped.to_record())) == {
        "step": 3,
        "problem_id": "gsm8k-7",
        "reason": "all equal",
        "detail": "8 samples at 0.0",
    }


def test_a_reason_outside_the_list_is_refused():
    with pytest.raises(ValueError, match="reason is 'too boring', expected one of all equal, "):
        Dropped(0, "a", "too boring")


@pytest.mark.parametrize(
    "values, expected",
    [
        pytest.param([0.0, 1.0], None, id="differ"),
        pytest.param([0.5, None, 0.25], None, id="differ beside an unscored one"),
        pytest.param([1.0, 1.0, None], "all equal", id="equal"),
        pytest.param([1.0, None], "all equal", id="one alone has nothing to be compared with"),
        pytest.param([None, None], "not scorable", id="nothing scored"),
    ],
)
def test_the_reason_agrees_with_what_dynamic_sampling_keeps(values, expected):
    samples = tuple(Sample("", (1,), (), "eos") for _ in values)
    group = ScoredGroup(Group(Problem("a", "q"), samples), [Score(v) for v in values], (1,))
    assert teaches_nothing(values) == expected
    assert group.differs(None) == (expected is None)
