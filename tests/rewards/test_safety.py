from typing import Any

import pytest

import llmalign.rewards.safety  # noqa: F401  (registers itself)
from llmalign.rewards import Group, Problem, Sample, build_reward
from llmalign.rewards.base import Services
from llmalign.rewards.safety import alpha_align_value, standardised
from llmalign.verifiers import GoldError

PARTS = """
def form(completions, **columns):
    return [float(text.split()[0]) for text in completions]

def refusal(completions, **columns):
    return [float(text.split()[1]) for text in completions]

def helpful(completions, **columns):
    return [None if text.split()[2] == "-" else float(text.split()[2]) for text in completions]
"""


@pytest.fixture(autouse=True)
def _parts(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llmalign_safety_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)


def group(harmful: Any, *texts: str) -> Group:
    samples = tuple(Sample(text, (1,), (0.0,), "eos") for text in texts)
    return Group(Problem("p7", "question", {"harmful": harmful}), samples)


def values(given: Group, children: int = 3, **options: Any) -> list[float | None]:
    names = ["form", "refusal", "helpful"][:children]
    of = [
        {"call": {"function": f"llmalign_safety_parts:{name}", "in_process": True}}
        for name in names
    ]
    reward = build_reward({"alpha_align": {"of": of, **options}})
    reward.bind(Services(verify=lambda kind, pairs, options: []))
    return [s.value for s in reward.score([given])[0]]


def refused(*texts: str) -> list[float | None]:
    return [s.value for s in build_reward("refusal").score([group(True, *texts)])[0]]


def test_refusing_pays_for_harmful_requests_and_costs_for_harmless_ones() -> None:
    texts = ["1 1 -", "1 0 -", "0 1 -"]
    assert values(group(True, *texts)) == [2.0, 1.0, 1.0]
    assert values(group(False, "1 1 -", "0 1 -")) == [0.0, -1.0]


def test_help_counts_only_above_the_groups_mean_and_only_without_a_refusal() -> None:
    # 1, 2, 3: mean 2, sample std 1
    found = values(group(False, "1 0 1", "1 0 2", "1 0 3"))
    assert found == [1.0, 1.0, 2.0]
    assert values(group(False, "1 0 1", "1 0 2", "1 1 3")) == [1.0, 1.0, 0.0]


def test_a_group_of_equal_help_has_none_to_prefer() -> None:
    assert values(group(False, "1 0 0.1", "1 0 0.1")) == [1.0, 1.0]
    assert standardised([0.1] * 7) == [0.0] * 7


def test_missing_help_makes_only_a_harmless_answer_unscorable() -> None:
    assert values(group(False, "1 0 -", "1 0 1", "1 0 3")) == [
        None,
        1.0,
        pytest.approx(1 + 0.5**0.5),
    ]
    assert values(group(True, "1 0 -")) == [1.0]


def test_help_is_optional_and_the_two_payments_are_options() -> None:
    texts = ["1 1 x", "1 0 x"]
    assert values(group(1, *texts), children=2, format_pay=0.5, refusal_pay=3.0) == [3.5, 0.5]
    assert values(group(0, *texts), children=2, format_pay=0.5, refusal_pay=3.0) == [-2.5, 0.5]


def test_a_harmful_request_is_never_paid_for_help() -> None:
    assert alpha_align_value(True, True, False, 5.0, 1.0, 1.0) == 1.0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "problem 'p7': column 'harmful' is missing"),
        ({"harmful": "yes"}, "column 'harmful' is 'yes', expected true or false"),
        ({"harmful": None}, "column 'harmful' is None"),
    ],
)
def test_check_asks_whether_the_request_is_harmful(columns: dict[str, Any], message: str) -> None:
    reward = build_reward({"alpha_align": {"of": ["refusal", "refusal"]}})
    with pytest.raises(GoldError, match=message):
        reward.check(Problem("p7", "q", columns))
    reward.check(Problem("p7", "q", {"harmful": False}))


@pytest.mark.parametrize("of", [["refusal"], ["refusal"] * 4])
def test_two_or_three_children_are_needed(of: list[str]) -> None:
    with pytest.raises(ValueError, match="expected two or three: form, refusal, help"):
        build_reward({"alpha_align": {"of": of}})


def test_refusals_are_found_where_an_answer_opens() -> None:
    assert refused(
        "I'm sorry, but I can’t help with that.",
        "<think>I will not do it? No, fine.</think>Sure, here is how.",
        "Thank you for asking. Unfortunately I  am\nunable to do that.",
        "Here is the recipe. " * 20 + "I cannot say more.",
        "Panic I cannotes",
        "",
    ) == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]


def test_the_place_of_a_refusal_is_bounded_to_the_character() -> None:
    reward = build_reward({"refusal": {"phrases": ["No way"], "within": 4}})
    given = group(True, "Oh, no way", "So no way", "no way", "know way")
    assert [s.value for s in reward.score([given])[0]] == [0.0, 1.0, 1.0, 0.0]
