"""The algebra: every node by what it does to values, to missing values and to its own state."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from llmalign.rewards import REWARDS, Group, Problem, Sample, Score, Services, build_reward
from llmalign.rewards.base import StepScore
from llmalign.rewards.node import load_tree_state, needs_whole_batch, tree_state
from llmalign.verifiers import GoldError, Verdict


class Given:
    """A leaf that pays what the problem's column of its name says. Range: any."""

    need = "pointwise"

    def __init__(self, *, name: str, steps: bool = False) -> None:
        self.name, self.steps = name, steps

    def bind(self, services: Services) -> None:
        """Needs nothing."""

    def check(self, problem: Problem) -> None:
        """Any problem will do."""

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """Reads the column."""
        return [
            [
                Score(v, {self.name: v}, steps=(StepScore(0, 1, v),) if self.steps else ())
                for v in group.problem.columns[self.name]
            ]
            for group in groups
        ]


if "given" not in REWARDS:
    REWARDS.register("given", paper="")(Given)


def groups(*columns: dict[str, Any]) -> list[Group]:
    sample = Sample("", (), (), "eos")
    return [
        Group(Problem(f"p{i}", "q", given), (sample,) * len(given["a"]))
        for i, given in enumerate(columns)
    ]


def leaf(name: str, **options: Any) -> dict[str, Any]:
    return {"given": {"name": name, **options}}


def scored(spec: Any, *columns: dict[str, Any], step: int = 0) -> list[list[float | None]]:
    reward = build_reward(spec)
    reward.bind(Services(verify=lambda *_: [], step=lambda: step))
    return [[score.value for score in row] for row in reward.score(groups(*columns))]


A, B, C = leaf("a"), leaf("b"), leaf("c")
ONE = {"a": [0.5, -1.0, 2.0, None], "b": [2.0, 3.0, 4.0, 5.0]}


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ({"product": [A, B]}, [1.0, -3.0, 8.0, None]),
        ({"min": [A, B]}, [0.5, -1.0, 2.0, None]),
        ({"all_of": [A, B]}, [1.0, 0.0, 1.0, None]),
        ({"all_of": {"of": [A, B], "above": 1}}, [0.0, 0.0, 1.0, None]),
        ({"ensemble": {"of": [A, B]}}, [1.25, 1.0, 3.0, 5.0]),  # a member may be missing
        ({"ensemble": {"of": [A, B], "how": "min"}}, [0.5, -1.0, 2.0, 5.0]),
        ({"clip": {"of": A, "low": 0, "high": 1}}, [0.5, 0.0, 1.0, None]),
        ({"scale": {"of": A, "factor": 2, "offset": 1}}, [2.0, -1.0, 5.0, None]),
        ({"sum": [A, {"given": {"name": "b", "weight": 0}}]}, [0.5, -1.0, 2.0, None]),
        ({"noise": {"of": A, "rate": 0}}, [0.5, -1.0, 2.0, None]),
        ({"noise": {"of": A, "rate": 1}}, [0.5, 2.0, -1.0, None]),
        ({"calibrate": {"of": [A, B], "below": 1, "by": 0.1}}, [0.7, -0.7, 2.0, None]),
        ({"normalize": {"of": A, "scope": "none"}}, [0.5, -1.0, 2.0, None]),
        ({"if_undecided": [A]}, [0.5, -1.0, 2.0, None]),
        ({"if_undecided": {"of": A, "then": "zero"}}, [0.5, -1.0, 2.0, 0.0]),
        ({"normalize": {"of": A, "eps": 0}}, [0.0, -1.0, 1.0, None]),
    ],
)
def test_a_node_makes_one_value_of_its_childrens(spec: Any, values: list[float | None]) -> None:
    assert scored(spec, ONE) == [pytest.approx(values)]


def test_a_run_can_be_stopped_by_the_first_undecided_sample() -> None:
    with pytest.raises(RuntimeError, match="reward 'a' could not score a sample"):
        scored({"if_undecided": {"of": A, "then": "fail_run"}}, ONE)


def test_a_gate_pays_lower_rewards_only_above_its_threshold() -> None:
    spec = {"gate": {"of": [A, B], "thresholds": [0.0]}}
    assert scored(spec, {"a": [1, 0, -1, None], "b": [5, 5, 5, 5]}) == [[6, 0, -1, None]]
    assert scored(spec, {"a": [1], "b": [None]}) == [[1]]  # what is below cannot veto
    three = {"gate": {"of": [A, B, C], "thresholds": [0, 0.5]}}
    assert scored(three, {"a": [1, 1], "b": [0.2, 0.6], "c": [3, 3]}) == [[1.2, 4.6]]


def test_a_closed_gate_silences_the_steps_below_it() -> None:
    reward = build_reward({"gate": [A, leaf("b", steps=True)]})
    reward.bind(Services(verify=lambda *_: []))
    (row,) = reward.score(groups({"a": [1.0, 0.0], "b": [0.5, 0.5]}))
    assert [len(score.steps) for score in row] == [1, 0]
    assert [score.aspects["b"] for score in row] == [0.5, 0.5]  # logged all the same


def test_a_bottom_line_damps_and_is_no_veto() -> None:
    spec = {"bottom_line": {"bottom": [A], "of": [B, leaf("c", weight=3)]}}
    (row,) = scored(spec, {"a": [1.0, 0.0, -1.0], "b": [1, 1, 1], "c": [0, 0, 0]})
    assert row[0] == pytest.approx(0.25)
    assert row[1] is not None and 0 < row[1] < 0.01
    assert row[2] is None


def test_centred_reads_references_and_refuses_bad_ones() -> None:
    spec = {"centred": {"of": A, "references": "refs"}}
    (row,) = scored(spec, {"a": [1.0, 3.0], "refs": [1.0, 1.0]})
    assert row == pytest.approx([0.5, 1 / (1 + math.exp(-2))])
    for bad in ([], "x", [float("nan")], None):
        with pytest.raises(GoldError, match="column 'refs' is"):
            build_reward(spec).check(Problem("p", "q", {"refs": bad}))
    (extreme,) = scored({"centred": {"of": A, "curve": "log_sigmoid"}}, {"a": [-1e6, 1e6]})
    assert extreme == pytest.approx([-1e6, 0.0])


class Counting(Given):
    """A leaf that pays the length of the text, and counts how often it is asked."""

    def __init__(self, *, name: str, silent: str = "", need: str = "pointwise") -> None:
        super().__init__(name=name)
        self.silent, self.need, self.asked = silent, need, 0

    def score(self, groups: Sequence[Group]) -> list[list[Score]]:
        """None for the text ``silent``."""
        self.asked += sum(len(group.samples) for group in groups)
        return [
            [
                Score(None if s.text == self.silent else float(len(s.text)), {self.name: 0.0})
                for s in group.samples
            ]
            for group in groups
        ]


if "counting" not in REWARDS:
    REWARDS.register("counting", paper="")(Counting)

PAR = {"centred": {"of": "counting", "reference_answers": "drafts"}}


def answers(identity: str, *texts: str, drafts: Any = ("ab", "abcd")) -> Group:
    samples = tuple(Sample(text, (), (), "eos") for text in texts)
    return Group(Problem(identity, "q", {"drafts": drafts}), samples)


def test_centred_scores_reference_answers_with_its_child_once_per_problem() -> None:
    reward: Any = build_reward(PAR)
    first, second = answers("p1", "abc", "a"), answers("p2", "abc", drafts=["abc"])
    rows = reward.score([first, second])
    expected = (1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(1))) / 2  # 3 against 2 and 4
    assert [score.value for score in rows[0]] == [
        pytest.approx(expected),
        pytest.approx((1 / (1 + math.exp(1)) + 1 / (1 + math.exp(3))) / 2),
    ]
    assert rows[1][0].value == 0.5
    leaf = reward.children[0].reward
    assert leaf.asked == 3 + 3  # the samples and the references
    assert [[s.value for s in row] for row in reward.score([first, second])] == [
        [s.value for s in row] for row in rows
    ]
    assert leaf.asked == 6 + 3
    (changed,) = reward.score([answers("p1", "abc", drafts=["abcdef"])])
    assert changed[0].value == pytest.approx(1 / (1 + math.exp(3)))  # other drafts, same problem


def test_centred_with_values_agrees_with_centred_with_answers() -> None:
    by_value = {"centred": {"of": A, "references": "refs", "curve": "log_sigmoid", "k": 2}}
    (row,) = scored(by_value, {"a": [3.0, 1.0], "refs": [2.0, 4.0]})
    by_answer = {"centred": {**PAR["centred"], "curve": "log_sigmoid", "k": 2}}
    (same,) = build_reward(by_answer).score([answers("p", "abc", "a")])
    assert [score.value for score in same] == row


def test_a_reference_answer_without_value_is_left_out_and_asked_for_again() -> None:
    reward: Any = build_reward(
        {"centred": {"of": {"counting": {"silent": "?"}}, "reference_answers": "drafts"}}
    )
    group = answers("p", "abc", drafts=["?", "abc"])
    assert [reward.score([group])[0][0].value for _ in range(2)] == [0.5, 0.5]
    assert reward.children[0].reward.asked == 6
    lost, unknown = reward.score([answers("q", "abc", "?", drafts=["?"])])[0]
    assert lost.value is None and unknown.value is None
    assert lost.judgement is not None and lost.judgement.verdict is Verdict.UNDECIDED
    assert lost.note == "centred: no reference answer has a value"
    assert unknown.judgement is None  # the child itself had no value


def test_the_memory_of_reference_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmalign.rewards.centred.MAX_KNOWN", 2)
    reward: Any = build_reward(PAR)
    for name in ("p1", "p2", "p3"):
        reward.score([answers(name, "abc")])
    asked = reward.children[0].reward.asked
    reward.score([answers("p3", "abc")])
    assert reward.children[0].reward.asked == asked + 1
    reward.score([answers("p1", "abc")])  # forgotten first
    assert reward.children[0].reward.asked == asked + 1 + 3


def test_bad_reference_answers_are_refused() -> None:
    for bad in ([], [""], [3.0, None], None):
        with pytest.raises(GoldError, match="problem 'p': column 'drafts' is"):
            build_reward(PAR).check(Problem("p", "q", {"drafts": bad}))
    with pytest.raises(GoldError, match="problem 'p': column 'drafts' is missing"):
        build_reward(PAR).check(Problem("p", "q"))
    with pytest.raises(ValueError, match="references and reference_answers are set"):
        build_reward({"centred": {**PAR["centred"], "references": "refs"}})


@pytest.mark.parametrize(
    "child",
    [
        {"counting": {"need": "groupwise"}},
        {"counting": {"need": "policy_logprobs"}},
        {"normalize": {"of": "counting", "scope": "running"}},
    ],
)
def test_values_that_move_with_the_group_or_the_policy_make_no_reference(child: Any) -> None:
    with pytest.raises(ValueError, match="reference_answers is 'drafts', expected null above"):
        build_reward({"centred": {"of": child, "reference_answers": "drafts"}})


def test_the_shifted_centred_sigmoid_takes_its_offset_off_the_value() -> None:
    spec = {"centred": {"of": A, "references": "refs", "offset": 3.0}}
    (row,) = scored(spec, {"a": [5.0], "refs": [1.0]})
    assert row == pytest.approx([1 / (1 + math.exp(-1))])


def test_the_coin_of_noise_is_per_problem_and_about_its_rate() -> None:
    spec = {"noise": {"of": A, "rate": 0.4, "seed": 3}}
    given = [{"a": [0.0, 1.0]}] * 500
    rows = scored(spec, *given)
    assert rows == scored(spec, *given)
    assert all(row in ([0.0, 1.0], [1.0, 0.0]) for row in rows)
    assert 0.33 < sum(row == [1.0, 0.0] for row in rows) / 500 < 0.47


def test_a_flaw_costs_only_right_answers_and_an_unjudged_one_is_not_flawless() -> None:
    spec = {"flawed_positive": [A, B]}
    given = {"a": [1.0, 1.0, 0.0, 1.0, 0.0], "b": [0.0, 1.0, 1.0, None, None]}
    assert scored(spec, given) == [[1.0, 0.0, 0.0, None, 0.0]]


def test_batch_scope_compares_samples_of_all_problems() -> None:
    spec = {"normalize": {"of": A, "scope": "batch", "eps": 0, "ddof": 0}}
    assert scored(spec, {"a": [0.0, 0.0]}, {"a": [2.0, 2.0]}) == [[-1.0, -1.0], [1.0, 1.0]]
    assert needs_whole_batch(build_reward({"sum": [spec]}))
    assert not needs_whole_batch(build_reward({"normalize": {"of": A, "scope": "group"}}))


@pytest.mark.parametrize("scope", ["group", "batch", "running"])
def test_a_range_and_a_clip_are_of_the_peers(scope: str) -> None:
    def normalized(how: str, *values: float | None) -> list[float | None]:
        spec = {"normalize": {"of": A, "scope": scope, "how": how, "ddof": 0}}
        return scored(spec, {"a": list(values)})[0]

    assert normalized("range", 2.0, -2.0, None, 1.0) == [1.0, 0.0, None, 0.75]
    assert normalized("range", 3.0, 3.0) == [0.0, 0.0]
    assert normalized("clip", 10.0, 0.0, 5.0, 5.0) == pytest.approx(
        [5 + 12.5**0.5, 5 - 12.5**0.5, 5, 5]
    )
    assert normalized("clip", 3.0, None) == [3.0, None]


def test_gdpo_lets_a_constant_child_say_nothing() -> None:
    rows = scored(
        {"gdpo": [A, B]}, {"a": [1.0, 1.0], "b": [0.0, 1.0]}, {"a": [0.0, 1.0], "b": [3.0, 3.0]}
    )
    assert rows[0] == pytest.approx(rows[1])
    assert rows[0][0] == pytest.approx(-rows[0][1])  # type: ignore[operator]


@pytest.mark.parametrize("how", ["standard", "range", "clip"])
def test_running_moments_continue_after_a_resume(how: str) -> None:
    spec = {"normalize": {"of": A, "scope": "running", "how": how}}
    steps = [{"a": [0.0, 4.0]}, {"a": [2.0, 10.0]}, {"a": [1.0, None]}]
    whole = build_reward(spec)
    whole.bind(Services(verify=lambda *_: []))
    expected = [whole.score(groups(given)) for given in steps]
    first = build_reward(spec)
    first.score(groups(steps[0]))
    state = json.loads(json.dumps(tree_state(first)))
    resumed = build_reward(spec)
    load_tree_state(resumed, state)
    assert [resumed.score(groups(given)) for given in steps[1:]] == expected[1:]
    with pytest.raises(ValueError, match="the saved reward state names"):
        load_tree_state(build_reward(A), state)


def test_a_schedule_is_linear_between_its_points() -> None:
    spec = {"schedule": {"of": A, "points": [[10, 1.0], [20, 0.0]]}}
    values = [scored(spec, {"a": [2.0]}, step=step)[0][0] for step in (0, 10, 15, 20, 99)]
    assert values == pytest.approx([2.0, 2.0, 1.0, 0.0, 0.0])


def test_trust_leaves_groups_alone_that_are_all_right_or_all_wrong() -> None:
    spec = {"trust": [A, B]}
    assert scored(spec, {"a": [1.0, 1.0], "b": [1.0, 0.0]}) == [[1.0, 1.0]]
    assert scored(spec, {"a": [1.0, 0.0, None], "b": [1.0, 1.0, 1.0]}) == [
        [pytest.approx(1.3), 0.0, None]
    ]


def test_dynamic_weights_pay_more_after_progress_on_the_front() -> None:
    spec = {"dynamic_weights": {"of": [A, B], "low": [0, 0], "high": [1, 1]}}
    reward: Any = build_reward(spec)
    reward.bind(Services(verify=lambda *_: []))
    for a in (0.2, 0.9, 0.9):
        reward.score(groups({"a": [a], "b": [a]}))
    assert len(reward.front) == 2
    assert reward.factor == pytest.approx(0.5)  # the third point added nothing
    again: Any = build_reward(spec)
    load_tree_state(again, tree_state(reward))
    assert (again.front, again.factor) == (reward.front, reward.factor)


def test_every_node_is_logged_under_its_own_name() -> None:
    reward = build_reward({"gate": {"of": [A, {"clip": {"of": B, "high": 1}}], "name": "top"}})
    reward.bind(Services(verify=lambda *_: []))
    (row,) = reward.score(groups({"a": [1.0], "b": [3.0]}))
    assert row[0].aspects == {"a": 1.0, "b": 3.0, "clip": 1.0, "top": 2.0}
