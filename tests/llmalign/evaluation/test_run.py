import pytest

from llmalign.evaluation.run import reward_summary
from llmalign.rewards import Group, Problem, Sample, Score
from llmalign.training import describe
from llmalign.verifiers import Judgement, Verdict


def scored(name, *values, verdict=None):
    group = Group(Problem(name, "q"), (Sample("x", (1,), (), "eos"),) * len(values))
    judgement = Judgement(verdict, "5", "") if verdict else None
    return group, [Score(v, {"root": v, "child": 2.0}, judgement) for v in values]


def test_the_mean_reward_is_over_problems_and_leaves_out_what_has_no_value():
    found = reward_summary(
        [scored("a", 0.0, 1.0, None), scored("b", 2.0), scored("c", None)], seed=0
    )
    assert found["reward"] == pytest.approx((0.5 + 2.0) / 2)
    assert found["reward_ci"] == pytest.approx([0.5, 2.0])
    assert found["nodes"] == {"root": pytest.approx(1.25), "child": 2.0}
    assert found["verified"] is False
    assert reward_summary([scored("a", 1.0, verdict=Verdict.RIGHT)], seed=0)["verified"] is True


def test_nothing_scorable_has_no_mean():
    found = reward_summary([scored("a", None)], seed=0)
    assert (found["reward"], found["reward_ci"], found["nodes"]["root"]) == (None, None, None)


@pytest.mark.parametrize(
    ("verified", "words"),
    [
        (False, "before: reward 0.250 [0.200, 0.300], on 9 problems"),
        (True, "before: pass@1 0.000 [0.000, 0.100], pass@4 0.125, on 9 problems"),
    ],
    ids=["no verifier", "verifier"],
)
def test_a_run_is_described_by_what_its_reward_can_say(verified, words):
    summary = {"pass@1": 0.0, "ci": [0.0, 0.1], "pass@k": {"1": 0.0, "4": 0.125}, "maj@k": {}}
    summary |= {"reward": 0.25, "reward_ci": [0.2, 0.3], "problems": 9, "undecided": 0}
    assert describe("before", summary | {"verified": verified}) == words
