"""What offline losses learn from: preference pairs and demonstrations, from rows to tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmalign.data import (
    ROW,
    LeftOut,
    Prompt,
    build_prompt,
    encode_prompt,
    mapped_row,
    missing_column,
    unique_id,
)
from llmalign.layouts import problem_of, solution_of


@dataclass(frozen=True)
class Pair:
    """A prompt with a better and a worse completion."""

    id: str
    prompt: Prompt
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Demonstration:
    """A prompt with the completion to learn."""

    id: str
    prompt: Prompt
    completion: str


def encode_completion(
    prompt: Prompt, completion: str, tokenizer: Any
) -> tuple[list[int], list[int]]:
    """(prompt ids, completion ids), the completion ended by the token that ends a turn.

    Raises:
        ValueError: the chat template changes the prompt once an answer follows.
    """
    prompt_ids = encode_prompt(prompt, tokenizer)
    if isinstance(prompt, str):
        ids = list(tokenizer(completion, add_special_tokens=False, verbose=False)["input_ids"])
        ended = ids[-1:] == [tokenizer.eos_token_id]
        return prompt_ids, ids if ended else [*ids, tokenizer.eos_token_id]
    answered = [*(dict(m) for m in prompt), {"role": "assistant", "content": completion}]
    whole = list(tokenizer.apply_chat_template(answered, tokenize=True, return_dict=False))
    if whole[: len(prompt_ids)] != prompt_ids:
        raise ValueError(
            "the chat template renders the prompt differently once an answer follows, so it is "
            "unknown where the completion starts; use data.chat=never"
        )
    return prompt_ids, whole[len(prompt_ids) :]


def to_pairs(
    rows: Sequence[Mapping[str, Any]],
    *,
    source: str,
    columns: Mapping[str, str],
    template: str | None,
    system: str | None,
    chat: bool,
    policy: str,
) -> tuple[list[Pair], list[LeftOut]]:
    """Preference pairs from TRL's forms: explicit or implicit prompt, strings or conversations.

    Raises:
        ValueError: a column is missing; a pair whose sides are equal or empty under ``error``.
    """
    pairs, bad, taken = [], [], set[str]()
    for number, raw in enumerate(rows, 1):
        row = mapped_row(raw, columns, source, raw.get(ROW, number))
        for column in ("chosen", "rejected"):
            if row.get(column) is None:
                raise missing_column(column, row, source, raw.get(ROW, number))
        id_ = unique_id(raw, source, number, taken)
        prompt, chosen, rejected = _sides(row)
        if chosen is None or rejected is None:
            bad.append(LeftOut(id_, "a side is not one message of the assistant after the prompt"))
            continue
        if not chosen.strip() or not rejected.strip() or chosen == rejected:
            bad.append(LeftOut(id_, "chosen and rejected are equal, or one is empty"))
            continue
        asked = build_prompt(prompt, row, template, system, chat, source)
        pairs.append(Pair(id_, asked, chosen, rejected))
    if bad and (policy == "error" or not pairs):
        raise ValueError(
            f"{source}: {len(bad)} of {len(rows)} pairs cannot be used, first {bad[0].id}: "
            f"{bad[0].why}; leave them out with data.on_bad_row=drop"
        )
    return pairs, bad


def _sides(row: Mapping[str, Any]) -> tuple[Any, str | None, str | None]:
    """(prompt, chosen, rejected) with the sides as text after the prompt; None: no such text."""
    chosen, rejected, prompt = row["chosen"], row["rejected"], row.get("prompt")
    if isinstance(chosen, list):
        # A side may repeat the prompt; without a prompt column it is what the sides share.
        shared = _common(chosen, rejected)
        if prompt is None:
            return chosen[:shared], _answer(chosen[shared:]), _answer(rejected[shared:])
        if isinstance(prompt, list) and chosen[: len(prompt)] == prompt:
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        return prompt, _answer(chosen), _answer(rejected)
    chosen, rejected = str(chosen), str(rejected)
    if prompt is not None:
        return prompt, chosen, rejected
    shared = _common(chosen, rejected)
    turn = chosen.rfind("\n\nAssistant:", 0, shared)  # the form of HH-RLHF
    cut = turn + len("\n\nAssistant:") if turn >= 0 else chosen.rfind(" ", 0, shared) + 1
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    shared = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared += 1
    return shared


def _answer(side: Any) -> str | None:
    """The text of a side: a string, or a list of exactly one message of the assistant."""
    if isinstance(side, list):
        one = len(side) == 1 and side[0].get("role") == "assistant"
        return str(side[0]["content"]) if one else None
    return str(side)


def to_demonstrations(
    rows: Sequence[Mapping[str, Any]],
    *,
    source: str,
    columns: Mapping[str, str],
    template: str | None,
    system: str | None,
    chat: bool,
) -> list[Demonstration]:
    """Demonstrations from prompt + completion, ``messages``, problem + solution, or ``text``.

    Raises:
        ValueError: a row has none of these, or its completion is empty or not the assistant's.
    """
    found, taken = [], set[str]()
    for number, raw in enumerate(rows, 1):
        row = mapped_row(raw, columns, source, raw.get(ROW, number))
        prompt, completion = _demonstration(row)
        if completion is None:
            raise missing_column("completion", row, source, raw.get(ROW, number))
        if not completion.strip():
            raise ValueError(
                f"{source} row {raw.get(ROW, number)} has an empty completion, "
                "expected text to learn"
            )
        asked: Prompt = ""  # plain text has no prompt and belongs to no chat
        if prompt:
            asked = build_prompt(prompt, row, template, system, chat, source)
        found.append(Demonstration(unique_id(raw, source, number, taken), asked, completion))
    return found


def _demonstration(row: Mapping[str, Any]) -> tuple[Any, str | None]:
    messages = row.get("messages")
    if messages:
        return messages[:-1], _answer(messages[-1:])
    if row.get("completion") is not None:
        return row.get("prompt") or problem_of(row) or "", _answer(row["completion"])
    if row.get("text"):
        return "", str(row["text"])
    return problem_of(row), solution_of(row)
