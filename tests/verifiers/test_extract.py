import time

import pytest

from llmalign.verifiers.extract import extract


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{17}, but no, it is \boxed{42}", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{5} \boxed{}", "5"),
        (r"\boxed{5}, \boxed{6}", "5, 6"),
        (r"\boxed{5} \text{ or } \boxed{6}", "5, 6"),
        ("\\boxed{5}\n\n\\boxed{5}", "5"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{4} then \boxed{unfinished", "4"),
        (r"<think>\boxed{6}</think>\boxed{5}", "5"),
        (r"<think>\boxed{6}</think>nothing", None),
        ("work 3\n#### 72", "72"),
        ("#### 1\n#### 2\n####", "2"),
        ("The answer is 12. So there.", "12"),
        ("**Answer:** 12", "12"),
        ("Answer:\n-5", "-5"),
        ("The answer is 3.5", "3.5"),
        ("Final Answer: The largest n is 34.", "34."),
        ("Answer: 3\nFinal answer: 4", "4"),
        ("the numbers 5 and 6", None),
        ("", None),
        (r"\boxed{}", None),
        (r"#### 3 or \boxed{4}", "4"),
    ],
)
def test_the_default_forms_find(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("between 3 and 1,234.50 dollars", "1,234.50"),
        ("it is -5", "-5"),
        ("10-5", "5"),
        ("about 3/4 of it", "3/4"),
        ("none", None),
    ],
)
def test_the_last_number_counts_only_by_choice(text: str, answer: str | None) -> None:
    assert extract(text, ("last_number",)) == answer
    assert extract(text) is None


def test_forms_are_tried_in_the_order_given() -> None:
    text = r"\boxed{1} #### 2"
    assert extract(text, ("hashes", "boxed")) == "2"
    assert extract(text, ("boxed", "hashes")) == "1"


def test_an_unknown_form_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="'box', expected one of boxed"):
        extract("5", ("box",))


@pytest.mark.parametrize(
    "piece",
    [r"\boxed{", "{", "answer: ", "answer is \n", "####", r"\boxed{1} ", "</think>", "1,", " and "],
)
def test_extraction_is_linear_on_hostile_text(piece: str) -> None:
    began = time.perf_counter()
    extract(piece * 40_000, ("boxed", "hashes", "answer_is", "last_number"))
    assert time.perf_counter() - began < 3.0
