from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest

from llmalign.rewards import Group, Problem, Sample, Score, build_reward
from llmalign.rewards.base import Services
from llmalign.rewards.majority import Ballot, answer_classes, cross_labels, majority_vote
from llmalign.verifiers import Judgement, Verdict
from llmalign.verifiers.pool import VerifierPool


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(1, 2.0) as pool:
        yield pool


def group(*texts: str) -> Group:
    return Group(Problem("p", "q"), tuple(Sample(t, (1,), (0.0,), "eos") for t in texts))


def boxed(*answers: str) -> Group:
    return group(*(rf"So it is \boxed{{{answer}}}." for answer in answers))


def score(pool: VerifierPool, *groups: Group, **options: Any) -> list[list[Score]]:
    reward = build_reward({"majority": options})
    reward.bind(Services(verify=pool.judge_many))
    return reward.score(groups)


def values(scores: list[Score]) -> list[float | None]:
    return [s.value for s in scores]


def test_the_vote_leaves_out_who_has_no_answer_but_counts_them_in_the_ratio() -> None:
    ballot = majority_vote(["7", "7", None, "3"])
    assert (ballot.label, ballot.ratio) == ("7", 0.5)
    assert ballot.agrees == [True, True, False, False]


def test_a_tie_goes_to_the_class_that_came_first() -> None:
    assert majority_vote([4, 2, 2, 4]).label == 4
    assert majority_vote([None, 2, 4]).label == 2


def test_a_vote_without_voters_has_no_label_and_nobody_agrees() -> None:
    ballot: Ballot[str] = majority_vote([None, None])
    assert (ballot.label, ballot.ratio, ballot.agrees) == (None, 0.0, [False, False])


def test_a_question_and_its_paraphrase_label_each_other() -> None:
    original, paraphrase = cross_labels(["4", "4", "5", None], ["5", "5", "4"])
    assert (original.label, original.agrees) == ("5", [False, False, True, False])
    assert (paraphrase.label, paraphrase.agrees) == ("4", [False, False, True])


def test_a_paraphrase_without_answers_labels_nothing() -> None:
    original, _ = cross_labels(["4", None], [None, None])
    assert (original.label, original.agrees) == (None, [False, False])


def test_equal_answers_vote_together_however_they_are_written(pool: VerifierPool) -> None:
    # By string, 3 would win with two votes; by value, one half has four.
    given = boxed("0.5", "3", r"\frac{1}{2}", "3", "1/2", r"\frac12")
    assert values(score(pool, given)[0]) == [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]


def test_answers_are_compared_by_meaning_where_normal_forms_differ(pool: VerifierPool) -> None:
    given = boxed(r"\sqrt{8}", r"2\sqrt 2", r"2 \pi r", r"r \cdot 2\pi", r"2^{3/2}")
    (answers,) = answer_classes([given], pool.judge_many)
    assert len({j.answer for j in answers.judgements}) == 5
    assert answers.classes == [0, 0, 1, 1, 0]


def test_equality_does_not_depend_on_who_is_the_gold(pool: VerifierPool) -> None:
    # As a gold, 0.33 accepts what rounds to it; as an answer to 1/3 it is wrong.
    for votes in (["0.33", "1/3", "1/3"], ["0.33", "0.33", "1/3"]):
        for order in permutations(votes):
            (answers,) = answer_classes([boxed(*order)], pool.judge_many)
            assert len(set(answers.classes)) == 2


def test_the_most_voted_form_gathers_its_equals_first(pool: VerifierPool) -> None:
    # 28% equals 28 and 0.28, which differ: it must not bring them together.
    (answers,) = answer_classes([boxed(r"28\%", "0.28", "28", "28")], pool.judge_many)
    assert answers.classes == [0, 1, 0, 0]


def test_samples_without_readable_answer_are_wrong_and_say_so(pool: VerifierPool) -> None:
    given = group(r"\boxed{7}", "I have no idea at all", r"\boxed{}", r"\boxed{(}", r"\boxed{7}")
    (scores,) = score(pool, given)
    assert values(scores) == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert {s.aspects["majority_ratio"] for s in scores} == {0.4}
    assert scores[1].note == "majority: no readable answer"


def test_a_group_without_any_answer_is_wrong_throughout(pool: VerifierPool) -> None:
    (scores,) = score(pool, group("I have no idea at all", "No idea what this could be"))
    assert values(scores) == [0.0, 0.0]
    assert scores[0].aspects["majority_ratio"] == 0.0


def test_a_group_of_one_agrees_with_itself(pool: VerifierPool) -> None:
    assert values(score(pool, boxed("7"))[0]) == [1.0]


def test_groups_vote_apart_and_options_set_what_is_paid(pool: VerifierPool) -> None:
    found = score(pool, boxed("1", "1", "2"), boxed("2", "1", "2"), right=2.0, wrong=-1.0)
    assert [values(scores) for scores in found] == [[2.0, 2.0, -1.0], [2.0, -1.0, 2.0]]


def test_agreement_is_the_part_of_the_group_with_the_same_answer(pool: VerifierPool) -> None:
    (scores,) = score(pool, boxed("1", "2", "1.0", "3"))
    assert [s.aspects["majority_agreement"] for s in scores] == [0.5, 0.25, 0.5, 0.25]


def test_markers_say_where_the_answer_stands(pool: VerifierPool) -> None:
    given = group(r"#### 1 \boxed{3}", r"#### 1 \boxed{4}", r"#### 2 \boxed{4}")
    assert values(score(pool, given, markers=["boxed"])[0]) == [0.0, 1.0, 1.0]
    given = group("#### 1\n" r"\boxed{3}", "#### 1\n" r"\boxed{4}", "#### 2\n" r"\boxed{4}")
    assert values(score(pool, given, markers=["hashes"])[0]) == [1.0, 1.0, 0.0]


def test_what_the_verifier_could_not_read_in_time_is_not_scored() -> None:
    def verify(kind: str, pairs: Any, options: Any) -> list[Judgement]:
        return [
            Judgement(Verdict.UNDECIDED, None, "timed out")
            if "slow" in text
            else Judgement(Verdict.WRONG, "7", "")
            for text, _ in pairs
        ]

    reward = build_reward("majority")
    reward.bind(Services(verify=verify))
    (scores,) = reward.score([group(r"\boxed{7}", r"slow \boxed{8}")])
    assert values(scores) == [1.0, None]
    assert scores[1].note == "majority: timed out"


def test_equal_normal_forms_are_never_compared_again() -> None:
    calls: list[int] = []

    def verify(kind: str, pairs: Any, options: Any) -> list[Judgement]:
        calls.append(len(pairs))
        return [Judgement(Verdict.WRONG, text[-2], "") for text, _ in pairs]

    groups = [group(*[r"\boxed{7}"] * 20, r"\boxed{8}"), group(*[r"\boxed{9}"] * 8)]
    answer_classes(groups, verify)
    assert calls == [29, 1]  # one look at every sample, one comparison of 8 with 7


def test_scoring_without_a_host_is_refused() -> None:
    with pytest.raises(RuntimeError, match="'majority' is not bound"):
        build_reward("majority").score([boxed("1")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"right": 0.0}, "right is 0.0 and wrong is 0.0"),
        ({"markers": []}, "markers is empty"),
        ({"markers": ["box"]}, "markers is"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_reward({"majority": options})


def test_it_needs_no_gold() -> None:
    reward = build_reward("majority")
    reward.check(Problem("p", "q"))
    assert reward.need == "groupwise"
