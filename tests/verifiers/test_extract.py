import time

import pytest

from llmalign.verifiers.extract import MARKERS, extract


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
        (r"<think>\boxed{6}</think>nothing is left to say", None),
        ("work 3\n#### 72", "72"),
        ("#### 1\n#### 2\n####", "2"),
        ("The answer is 12. So there.", "12"),
        ("**Answer:** 12", "12"),
        ("Answer:\n-5", "-5"),
        ("The answer is 3.5", "3.5"),
        ("Final Answer: The largest n is 34.", "34."),
        ("Answer: 3\nFinal answer: 4", "4"),
        ("we have the numbers 5 and 6", None),
        ("<answer>84</answer>", "84"),
        ("so 3 + 4 = 7\nA: 7", "7"),
        (r"\boxed 7", "7"),
        (r"= -\boxed{256}", "-256"),
        (r"x-\boxed{5}", "5"),
        (r"\\boxed{7}", "7"),
        (r"$\frac{1}{3}$", r"\frac{1}{3}"),
        ("Thus $x <= 2$ is our answer.", "x <= 2"),
        ("We add them. Therefore, the probability is 2/3. <|im_end|>", "2/3"),
        ("Therefore $a = 1$ and $b = 2$ hold for all of them.", None),
        (r"\boxed{1} papers and \boxed{2} bins", "1, 2"),
        ("", None),
        (r"\boxed{}", None),
        (r"#### 3 or \boxed{4}", "4"),
    ],
)
def test_the_default_markers_find(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("between 3 and 1,234.50 dollars", "1,234.50"),
        ("-5 it may be, or more", "-5"),
        ("10-5", "5"),
        ("about 3/4 of it", "3/4"),
        ("there is none of them", None),
    ],
)
def test_the_last_number_counts_only_by_choice(text: str, answer: str | None) -> None:
    assert extract(text, ("last_number",)) == answer
    assert extract(text) != answer or answer is None


def test_markers_are_tried_in_the_order_given() -> None:
    text = r"\boxed{1} #### 2"
    assert extract(text, ("hashes", "boxed")) == "2"
    assert extract(text, ("boxed", "hashes")) == "1"


def test_an_unknown_marker_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="'box', expected one of boxed"):
        extract("5", ("box",))


@pytest.mark.parametrize(
    "piece",
    [r"\boxed{", "{", "answer: ", "answer is \n", "####", r"\boxed{1} ", "</think>", "1,", " and "],
)
def test_extraction_is_linear_on_hostile_text(piece: str) -> None:
    began = time.perf_counter()
    extract(piece * 40_000, MARKERS)
    assert time.perf_counter() - began < 3.0
