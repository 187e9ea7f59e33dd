import pytest
from sacrebleu.metrics.chrf import CHRF

import llmalign.rewards.chrf  # noqa: F401  (registers itself)
from llmalign.rewards import Group, Problem, Sample, build_reward


def values(references: object, *texts: str, **options: object) -> list[float | None]:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    given = Group(Problem("p", "q", {"references": references}), samples)
    return [s.value for s in build_reward({"chrf": options}).score([given])[0]]


def test_one_order_by_hand() -> None:
    # characters of "ab" against "abc": precision 1, recall 2/3, F2 = 5 * 2/3 / (4 + 2/3) = 5/7
    assert values("abc", "ab", char_order=1) == [pytest.approx(5 / 7)]


@pytest.mark.parametrize("word_order", [0, 2])
def test_it_is_sacrebleus_number_over_100(word_order: int) -> None:
    told, said = "The cat sat quietly on the mat.", "A cat sat on a mat, quietly."
    expected = CHRF(word_order=word_order).sentence_score(said, [told]).score / 100
    assert values([told], said, word_order=word_order) == [pytest.approx(expected)]
    assert 0.2 < expected < 0.9


def test_the_best_reference_counts_and_the_order_does_not() -> None:
    assert values(["dog", "cat"], "cat") == values(["cat", "dog"], "cat") == [pytest.approx(1.0)]


def test_scripts_without_spaces_are_compared_by_their_characters() -> None:
    near, far = values("我喜欢吃苹果", "我喜欢苹果", "今天下雨")
    assert near is not None and far is not None and near > 0.3 > far


def test_case_counts_unless_told_otherwise() -> None:
    assert values("CAT", "cat") == [0.0]
    assert values("CAT", "cat", lowercase=True) == [pytest.approx(1.0)]


def test_an_empty_answer_earns_nothing_and_only_the_tagged_answer_is_read() -> None:
    assert values("cat", "", "dog <answer>cat</answer>") == [0.0, pytest.approx(1.0)]


@pytest.mark.parametrize(("option", "value"), [("char_order", 0), ("word_order", -1), ("beta", 0)])
def test_orders_out_of_range_are_refused(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{option} is {value}, expected >="):
        build_reward({"chrf": {option: value}})
