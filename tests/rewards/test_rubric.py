import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, Sample, Score, build_reward
from llmalign.rewards.base import Message, Services
from llmalign.rewards.judging import EMPTY_RESPONSES
from llmalign.rewards.rubric import Rubric, read_criteria, rubric_score
from llmalign.verifiers import GoldError, Judgement

Chat = Sequence[Message]
RUBRIC = [
    {"criterion": "names the capital", "weight": 2, "name": "capital"},
    {"criterion": "is brief", "name": "brief"},
    {"criterion": "is polite", "name": "polite"},
]


def no_verifier(kind: str, pairs: Any, options: Any) -> list[Judgement]:
    raise AssertionError("a rubric asks no verifier")


class Scripted:
    """A judge that answers each chat by a function of what the user message says."""

    def __init__(self, reply: Callable[[str], str | None]) -> None:
        self.reply = reply
        self.chats: list[Chat] = []

    def __call__(self, chats: Sequence[Chat]) -> list[str | None]:
        self.chats += chats
        return [self.reply(chat[-1]["content"]) for chat in chats]


def by_criterion(grades: dict[str, str | None]) -> Callable[[str], str | None]:
    def reply(asked: str) -> str | None:
        return next((answer for text, answer in grades.items() if f": {text}\n" in asked), "0")

    return reply


def score(spec: Any, judge: Any, columns: dict[str, Any], *texts: str) -> list[Score]:
    reward = build_reward(spec)
    reward.bind(Services(verify=no_verifier, judge=judge))
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return reward.score([Group(Problem("p7", "Capital of France?", columns), samples)])[0]


GRADES = {"names the capital": '{"score": 1}', "is brief": "0.2", "is polite": '{"score": 0.8}'}


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 0.75),  # (2 + 0.2 + 0.8) / 4
        ({"exponent": 2}, 0.5625),
        ({"pairs": [["capital", "brief"]]}, 0.77),  # + 0.1 * 1 * 0.2
        ({"pairs": [["capital", "unknown"]]}, 0.75),
        ({"saturation": 3}, 0.8579383013),  # (2 + 0.474828 + 0.956925) / 4
    ],
)  # fmt: skip
def test_grades_become_one_value(options: dict[str, Any], value: float) -> None:
    judge = Scripted(by_criterion(GRADES))
    (found,) = score({"rubric": options}, judge, {"rubrics": RUBRIC}, "Paris.")
    assert found.value == pytest.approx(value)
    named = {name: found.aspects[f"rubric.{name}"] for name in ("capital", "brief", "polite")}
    assert named == {"capital": 1.0, "brief": 0.2, "polite": 0.8}


def test_a_grade_below_its_minimum_makes_the_whole_nothing() -> None:
    rubric = [*RUBRIC[:1], {**RUBRIC[1], "minimum": 0.5}, RUBRIC[2]]
    assert (
        score("rubric", Scripted(by_criterion(GRADES)), {"rubrics": rubric}, "Paris")[0].value == 0
    )
    silent = by_criterion({**GRADES, "is brief": "I like it"})
    # without a verdict the veto does not fire: (2 + 0.8) / 3
    found = score("rubric", Scripted(silent), {"rubrics": rubric}, "Paris")[0]
    assert found.value == pytest.approx(2.8 / 3)
    assert found.aspects["rubric.brief"] is None
    assert found.note == "rubric: 1 of 3 criteria without a verdict"


@pytest.mark.parametrize("prose", ["fine", '{"score": NaN}', "2", None, "0.5 or so"])
def test_prose_is_no_grade_and_too_little_of_it_is_no_score(prose: str | None) -> None:
    judge = Scripted(by_criterion({**GRADES, "names the capital": prose, "is brief": prose}))
    # 1 of 4 is graded, less than half
    assert score("rubric", judge, {"rubrics": RUBRIC}, "Paris")[0].value is None
    some = {"rubric": {"min_known": 0.25}}
    assert score(some, judge, {"rubrics": RUBRIC}, "Paris")[0].value == 0.8


def test_tiers_are_graded_by_their_number() -> None:
    rubric = [{"criterion": "depth", "tiers": ["none", "some", "much", "all"]}]
    replies = {"a1": '{"score": 2}', "b2": "1.5", "c3": "4", "d4": "3"}

    def reply(asked: str) -> str | None:
        return next((answer for text, answer in replies.items() if f"\n{text}\n" in asked), "0")

    judge = Scripted(reply)
    values = [s.value for s in score("rubric", judge, {"rubrics": rubric}, "a1", "b2", "c3", "d4")]
    assert values == [pytest.approx(2 / 3), None, None, 1.0]
    assert "2: much" in judge.chats[-1][0]["content"]


def test_points_of_health_bench_may_be_negative() -> None:
    rubric = [
        {"criterion": "helps", "points": 7, "tags": ["x"]},
        {"criterion": "scares", "points": -4, "tags": []},
    ]
    judge = Scripted(by_criterion({"helps": "1", "scares": "1"}))
    assert score("rubric", judge, {"rubrics": rubric}, "a")[0].value == pytest.approx(3 / 7)
    judge = Scripted(by_criterion({"helps": "0", "scares": "1"}))
    assert score("rubric", judge, {"rubrics": rubric}, "a")[0].value == 0.0


def test_a_response_without_content_is_not_shown_to_the_judge() -> None:
    judge = Scripted(lambda asked: "1")
    reward = {"rubric": {"canary": False}}
    scores = score(reward, judge, {"rubrics": RUBRIC}, "Solution", "", "Paris")
    assert [s.value for s in scores] == [0.0, 0.0, 1.0]
    assert scores[0].note == "rubric: no content"
    assert len(judge.chats) == 3


def test_a_judge_that_empty_responses_fool_is_refused_at_the_start() -> None:
    reward = build_reward("rubric")
    judge = Scripted(lambda asked: "1" if "\nSolution\n" in asked else "0")
    with pytest.raises(RuntimeError, match="the judge of reward 'rubric' calls 10.0% of empty"):
        reward.bind(Services(verify=no_verifier, judge=judge))
    assert all(any(f"\n{e}\n" in c[-1]["content"] for c in judge.chats) for e in EMPTY_RESPONSES)
    build_reward({"rubric": {"canary": False}}).bind(Services(verify=no_verifier, judge=judge))


def test_without_a_judge_it_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="reward 'rubric' needs a judge"):
        build_reward("rubric").bind(Services(verify=no_verifier))
    assert build_reward("rubric").need == "judge"


def test_the_guard_is_a_veto_that_weighs_nothing() -> None:
    honest = by_criterion(GRADES)
    courting = Scripted(lambda asked: "0.1" if "without working on its" in asked else honest(asked))
    spec = {"rubric": {"guard": True}}
    assert score(spec, courting, {"rubrics": RUBRIC}, "Great question!")[0].value == 0.0
    fair = Scripted(lambda asked: "1" if "without working on its" in asked else honest(asked))
    assert score(spec, fair, {"rubrics": RUBRIC}, "Paris")[0].value == 0.75


def test_the_judge_sees_question_response_and_one_criterion() -> None:
    judge = Scripted(lambda asked: "0")
    score("rubric", judge, {"rubrics": RUBRIC}, "Paris")
    asked = judge.chats[-3][-1]["content"]
    assert "Capital of France?" in asked
    assert "\nParis\n" in asked
    assert "names the capital" in asked
    assert "is brief" not in asked
    score({"rubric": {"show_question": False}}, judge, {"rubrics": RUBRIC}, "Paris")
    assert "Capital of France?" not in judge.chats[-3][-1]["content"]


def test_one_rubric_can_serve_all_problems() -> None:
    spec = {"rubric": {"criteria_for_all": ["is brief", "is polite"]}}
    found = score(spec, Scripted(by_criterion(GRADES)), {}, "Paris")[0]
    assert found.value == 0.5
    assert set(found.aspects) == {"rubric", "rubric.0", "rubric.1"}


@pytest.mark.parametrize(
    ("scores", "weights", "options", "value"),
    [
        ([1, 0], [1, 1], {}, 0.5),
        ([1, None], [1, 1], {}, 1.0),
        ([1, float("nan")], [1, 1], {}, 1.0),
        ([None, None], [1, 1], {}, None),
        ([], [], {}, None),
        ([1.0, 1.0], [0, 0], {}, None),
        ([1.0, None], [-1, 1], {}, None),
        ([1, None], [1, 1], {"min_known": 0.6}, None),
        ([0.4, None], [1, 1], {"minima": [None, 0.5]}, 0.4),
        ([0.5, 1], [1, 1], {"minima": [0.5, None]}, 0.75),
        ([0.5, None], [1, 1], {"pairs": [(0, 1)], "pair_bonus": 1.0}, 0.5),
        ([0, 1], [1, -1], {"exponent": 0.5}, 0.0),
    ],
)
def test_missing_grades_and_odd_weights(
    scores: Any, weights: Any, options: Any, value: float | None
) -> None:
    assert rubric_score(scores, weights, **options) == value


def test_saturation_keeps_the_ends_and_lifts_the_middle() -> None:
    ends = [rubric_score([s], [1], saturation=3.0) for s in (0.0, 0.5, 1.0)]
    assert ends[0] == 0.0
    assert ends[2] == 1.0
    assert ends[1] == pytest.approx((1 - math.exp(-1.5)) / (1 - math.exp(-3)))


@pytest.mark.parametrize(
    ("rubric", "message"),
    [
        ([], "column 'rubrics' is [], expected a list of criteria"),
        ("be nice", "column 'rubrics' is 'be nice'"),
        ([{"points": 3}], "expected a text under 'criterion'"),
        ([{"criterion": "a", "weight": "3"}], "weight is '3', expected a number"),
        ([{"criterion": "a", "weight": float("nan")}], "weight is nan"),
        ([{"criterion": "a", "minimum": True}], "minimum is True"),
        ([{"criterion": "a", "tiers": ["only"]}], "tiers is ['only']"),
        ([{"criterion": "a", "tiers": ["bad", " "]}], "expected two texts or more"),
        ([{"criterion": "a", "weight": -1}], "no criterion with a weight above 0"),
        ([{"criterion": "a", "name": "x"}, {"criterion": "b", "name": "x"}], "names must differ"),
    ],
)
def test_a_rubric_that_cannot_be_read_is_named(rubric: Any, message: str) -> None:
    with pytest.raises(GoldError, match="problem 'p7'") as raised:
        build_reward("rubric").check(Problem("p7", "q", {"rubrics": rubric}))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"saturation": -1}, "saturation is -1.0, expected >= 0"),
        ({"exponent": 0}, "exponent is 0.0, expected > 0"),
        ({"pairs": [["a"]]}, "pairs holds ['a'], expected two names"),
        ({"min_known": 2}, "min_known is 2.0"),
        ({"criteria_for_all": []}, "criteria_for_all is [], expected a list"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        build_reward({"rubric": options})
    assert message in str(raised.value)


def test_scoring_without_a_host_is_refused() -> None:
    group = Group(Problem("p", "q", {"rubrics": RUBRIC}), (Sample("a", (), (), "eos"),))
    with pytest.raises(RuntimeError, match="'rubric' is not bound"):
        Rubric(name="rubric").score([group])


def test_criteria_keep_what_they_were_given() -> None:
    found = read_criteria([{"description": "d", "points": 3, "minimum": 0.2}, "e"], "here")
    assert [(c.text, c.name, c.weight, c.minimum) for c in found] == [
        ("d", "0", 3.0, 0.2),
        ("e", "1", 1.0, None),
    ]
    json.dumps([c.__dict__ for c in found])
