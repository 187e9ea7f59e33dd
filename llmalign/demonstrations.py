"""Rows that supervised and preference losses learn from, as tokens; measured, and never cut."""

from collections.abc import Sequence
from typing import Any

from llmalign.data import Prompt
from llmalign.examples import encode_completion, to_demonstrations
from llmalign.problems import load_rows, uses_chat
from llmalign.schema import Data

Row = tuple[tuple[int, ...], tuple[int, ...]]  # prompt ids, response ids
Example = tuple[str, list[Row]]  # id, and one row (a demonstration) or two (chosen, rejected)


def read_demonstrations(data: Data, tokenizer: Any) -> list[Example]:
    """The demonstrations of ``data.train``, each one row.

    Raises: ValueError: no rows, or one that is no demonstration; RuntimeError: a hub name that
        cannot be loaded.
    """
    rows, name = load_rows(data.train, split="train")
    demonstrations = to_demonstrations(
        rows,
        source=name,
        columns=data.columns,
        template=data.template,
        system=data.system,
        chat=uses_chat(data, tokenizer),
    )
    return [(d.id, [encoded(d.prompt, d.completion, tokenizer)]) for d in demonstrations]


def encoded(prompt: Prompt, completion: str, tokenizer: Any) -> Row:
    """A row; see ``encode_completion``."""
    prompt_ids, completion_ids = encode_completion(prompt, completion, tokenizer)
    return tuple(prompt_ids), tuple(completion_ids)


def fitting(
    examples: Sequence[Example], *, limit: int, data: Data, place: str = "data"
) -> tuple[list[list[Row]], list[dict[str, str]]]:
    """Examples none of whose rows has more than ``limit`` tokens, and id and reason of the others.

    Args:
        examples: as they were read.
        limit: most tokens of prompt and response together.
        data: ``on_long_prompt`` says whether a longer row is an error or is left out.
        place: of ``data`` in the recipe, for messages.
    Raises: ValueError: a row is too long under ``error``, or none fits.
    """
    tokens = {id_: max(len(p) + len(r) for p, r in rows) for id_, rows in examples}
    long_ids = sorted(id_ for id_, count in tokens.items() if count > limit)
    if long_ids and data.on_long_prompt == "error":
        raise ValueError(
            f"{len(long_ids)} of {len(examples)} rows have more than {limit} tokens (longest "
            f"{max(tokens.values())}, first {long_ids[0]!r}); raise {place}.max_prompt_tokens or "
            f"rollout.max_new_tokens, or leave them out with {place}.on_long_prompt=drop"
        )
    if len(long_ids) == len(examples):
        raise ValueError(
            f"all {len(examples)} rows have more than {limit} tokens, "
            "expected at least one that fits"
        )
    kept = [rows for id_, rows in examples if tokens[id_] <= limit]
    return kept, [{"id": id_, "why": f"more than {limit} tokens"} for id_ in long_ids]
