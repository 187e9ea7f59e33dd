"""What the rows of known data sets mean: where the problem stands and where the gold.

A layout is recognised by its columns; ``data.columns`` in a recipe overrides any of it.
"""

import re
from collections.abc import Mapping
from typing import Any

from llmalign.verifiers.extract import extract

Row = Mapping[str, Any]
GOLD_COLUMNS = ("answer", "ground_truth", "gold", "target", "solution", "label")
PROBLEM_COLUMNS = ("problem", "question", "prompt", "instruction", "query")


def problem_of(row: Row) -> Any | None:
    """The problem: text, or a list of messages (TRL's conversational form); None if not found."""
    if "nums" in row and "target" in row:
        return countdown_text(row)
    for column in PROBLEM_COLUMNS:
        if row.get(column):
            return row[column]
    return None


def gold_of(row: Row) -> Any | None:
    """The gold answer as the verifiers read it; None if the row has none.

    gsm8k keeps it behind ``####`` of ``answer``, MATH in the last box of ``solution``, DAPO-Math in
    ``reward_model.ground_truth``.
    """
    if "nums" in row and "target" in row:
        return row["target"]
    model = row.get("reward_model")
    if isinstance(model, Mapping) and "ground_truth" in model:
        return model["ground_truth"]
    for column in GOLD_COLUMNS:
        value = row.get(column)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        if column == "label" and not isinstance(value, str):  # a class or a step's mark, no answer
            continue
        if column == "solution" and (boxed := extract(str(value), ["boxed"])):
            return boxed
        if column == "answer" and isinstance(value, str) and "####" in value:
            return value.rpartition("####")[2].strip()
        return value
    return None


def countdown_text(row: Row) -> str:
    """A countdown row in words."""
    return (
        f"Use the numbers {list(row['nums'])}, each exactly once, with + - * / and parentheses, "
        f"to reach {row['target']}. Put the expression in <answer></answer>."
    )


def solution_of(row: Row) -> str | None:
    """A worked solution to learn from."""
    if row.get("solution"):
        return str(row["solution"])
    answer = row.get("answer")
    if isinstance(answer, str) and "####" in answer:  # the hub's gsm8k
        return re.sub(r"<<[^>]*>>", "", answer)
    return None
