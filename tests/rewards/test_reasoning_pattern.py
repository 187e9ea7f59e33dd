import pytest

import llmalign.rewards.reasoning_pattern  # noqa: F401  (registers itself)
from llmalign.rewards import Group, Problem, Sample, build_reward
from llmalign.rewards.reasoning_pattern import PHRASES, pattern_reward, repetition

BOX = r" \boxed{3}"


def values(*texts: str, **options: object) -> list[float | None]:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    reward = build_reward({"reasoning_pattern": options})
    return [s.value for s in reward.score([Group(Problem("p", "q"), samples)])[0]]


def test_each_phrase_counts_once_whatever_its_case() -> None:
    assert values(f"Wait, thus x.{BOX}", f"WAIT wait wait{BOX}") == [2 / 20, 1 / 20]


def test_all_phrases_together_earn_no_more_than_one() -> None:
    text = " ".join(PHRASES)
    assert values(text + BOX) == [1.0]
    assert len(set(PHRASES)) == 40


def test_a_response_without_a_boxed_answer_earns_nothing_unless_told_otherwise() -> None:
    assert values("Wait, thus 3.") == [0.0]
    assert values("Wait, thus 3.", boxed=False) == [0.1]


def test_an_invented_turn_of_the_user_takes_off_a_whole_point() -> None:
    assert values(" ".join(PHRASES) + " User: another" + BOX) == [0.0]
    assert values(" ".join(PHRASES) + " User: another" + BOX, forbidden="") == [1.0]


def test_a_loop_is_punished_the_more_the_longer_it_goes_on() -> None:
    line = " ".join(f"w{i}" for i in range(30)) + " "
    once, twice, often = (repetition(line * n, 20) for n in (1, 2, 20))
    assert once == 0.0
    assert 0.2 < twice < 0.5 < 0.9 < often


def test_texts_shorter_than_a_run_repeat_nothing() -> None:
    assert repetition("a a a", 20) == 0.0 == repetition("", 20)


def test_repetition_is_taken_off_and_the_value_never_negative() -> None:
    loop = "thus so " * 50
    assert pattern_reward(loop, ["thus"], 1, 20, "") == pytest.approx(2 / 81)
    assert pattern_reward(loop, ["never said"], 1, 20, "") == 0.0


def test_phrases_of_ones_own_replace_the_list() -> None:
    assert values(f"Daher gilt es.{BOX}", phrases=["daher", "weil"], enough=2) == [0.5]


@pytest.mark.parametrize("options", [{"phrases": []}, {"phrases": [""]}, {"enough": 0}])
def test_nothing_to_look_for_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        build_reward({"reasoning_pattern": options})
