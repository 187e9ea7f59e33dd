"""Rows of tokens as the model reads them, and how they are cut into micro-batches.

Shape letters in this file
    B  sequences       T  response tokens, right-padded      L  prompt, or prompt + response
    U  distinct prompts of a batch    R  rows that lie one behind the other
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Row = tuple[Sequence[int], Sequence[int]]  # prompt ids, response ids


@dataclass(frozen=True)
class TokenBatch:
    """Rows of prompt + response, right-padded: causal attention never looks at the padding.

    Attributes:
        input_ids_BL: token ids.
        response_BL: bool, True for tokens of the response.
    """

    input_ids_BL: Tensor
    response_BL: Tensor

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Row],
        *,
        pad_id: int,
        device: torch.device,
    ) -> "TokenBatch":
        """From (prompt ids, response ids) pairs."""
        width = max(len(prompt) + len(response) for prompt, response in rows)
        input_ids_BL = torch.full((len(rows), width), pad_id, dtype=torch.long)
        response_BL = torch.zeros((len(rows), width), dtype=torch.bool)
        for row, (prompt, response) in enumerate(rows):
            start, end = len(prompt), len(prompt) + len(response)
            input_ids_BL[row, :end] = torch.tensor([*prompt, *response], dtype=torch.long)
            response_BL[row, start:end] = True
        if response_BL[:, 0].any():
            raise ValueError(
                "a row has an empty prompt, expected at least one token before a response"
            )
        return cls(input_ids_BL.to(device), response_BL.to(device))

    @property
    def mask_BT(self) -> Tensor:
        """bool, True where a row has a response token; T is the longest response."""
        count_B = self.response_BL.sum(1)
        width = int(count_B.max()) if len(count_B) else 0
        return torch.arange(width, device=count_B.device)[None, :] < count_B[:, None]


@dataclass(frozen=True)
class SharedBatch:
    """The same rows with each distinct prompt once: it is computed once, its keys and values serve
    all its responses, and their gradients add up in it.

    Attributes:
        prompt_ids_UL: token ids, left-padded, so that every response follows its prompt at once.
        prompt_seen_UL: bool, True for tokens of a prompt.
        prompt_B: which prompt each row has.
        response_ids_BT: token ids.
        mask_BT: bool, True where a row has a response token.
    """

    prompt_ids_UL: Tensor
    prompt_seen_UL: Tensor
    prompt_B: Tensor
    response_ids_BT: Tensor
    mask_BT: Tensor

    @classmethod
    def from_rows(cls, rows: Sequence[Row], *, pad_id: int, device: torch.device) -> "SharedBatch":
        """From (prompt ids, response ids) pairs."""
        number = {prompt: u for u, prompt in enumerate(dict.fromkeys(tuple(p) for p, _ in rows))}
        if () in number:
            raise ValueError(
                "a row has an empty prompt, expected at least one token before a response"
            )
        prompts, responses = list(number), [response for _, response in rows]
        longest, width = max(map(len, prompts)), max(map(len, responses))
        ids_UL = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
        seen_UL = torch.zeros(ids_UL.shape, dtype=torch.bool)
        for u, prompt in enumerate(prompts):
            ids_UL[u, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
            seen_UL[u, longest - len(prompt) :] = True
        ids_BT = torch.full((len(rows), width), pad_id, dtype=torch.long)
        for b, response in enumerate(responses):
            ids_BT[b, : len(response)] = torch.tensor(response, dtype=torch.long)
        prompt_B = torch.tensor([number[tuple(prompt)] for prompt, _ in rows])
        length_B = torch.tensor([len(response) for response in responses])
        mask_BT = torch.arange(width)[None, :] < length_B[:, None]
        tensors = (ids_UL, seen_UL, prompt_B, ids_BT, mask_BT)
        return cls(*(tensor.to(device) for tensor in tensors))

    @property
    def prompt_position_UL(self) -> Tensor:
        """Position of each prompt token; 0 on the padding."""
        return (self.prompt_seen_UL.long().cumsum(1) - 1).clamp(min=0)

    @property
    def position_BT(self) -> Tensor:
        """Position of each response token."""
        length_B = self.prompt_seen_UL.sum(1)[self.prompt_B]
        width = self.response_ids_BT.shape[1]
        return length_B[:, None] + torch.arange(width, device=length_B.device)[None, :]

    @property
    def seen_BL(self) -> Tensor:
        """What the responses but their last token may look at: 1 for tokens, 0 for padding."""
        prompt_BL = self.prompt_seen_UL[self.prompt_B]
        return torch.cat([prompt_BL, self.mask_BT[:, :-1]], dim=1).long()


@dataclass(frozen=True)
class PackedBatch:
    """The same rows one behind the other, without padding.

    Attributes:
        input_ids_1L: token ids of all rows.
        position_1L: position of each token in its own row.
        response_1L: bool, True for tokens of a response.
        length_R: tokens of each row.
        mask_BT: bool, True where a row has a response token.
    """

    input_ids_1L: Tensor
    position_1L: Tensor
    response_1L: Tensor
    length_R: tuple[int, ...]
    mask_BT: Tensor

    @classmethod
    def from_rows(cls, rows: Sequence[Row], *, pad_id: int, device: torch.device) -> "PackedBatch":
        """From (prompt ids, response ids) pairs; there is no padding that ``pad_id`` would fill."""
        if any(not len(prompt) for prompt, _ in rows):
            raise ValueError(
                "a row has an empty prompt, expected at least one token before a response"
            )
        length_R = tuple(len(prompt) + len(response) for prompt, response in rows)
        count_B = torch.tensor([len(response) for _, response in rows])
        ids = torch.tensor([token for row in rows for part in row for token in part])
        position = torch.cat([torch.arange(length) for length in length_R])
        left = torch.repeat_interleave(torch.tensor(length_R) - count_B, torch.tensor(length_R))
        mask_BT = torch.arange(int(count_B.max()))[None, :] < count_B[:, None]
        ids_1L, position_1L = ids.long()[None], position[None]
        tensors = (ids_1L, position_1L, position_1L >= left[None], mask_BT)
        ids_1L, position_1L, response_1L, mask_BT = (tensor.to(device) for tensor in tensors)
        return cls(ids_1L, position_1L, response_1L, length_R, mask_BT)


AnyBatch = TokenBatch | SharedBatch | PackedBatch


def microbatches(
    length_B: Sequence[int], *, tokens: int, padding: int | None = None
) -> Iterator[list[int]]:
    """Row indices in portions of like length, longest first.

    Args:
        length_B: tokens of each row.
        tokens: most tokens of a portion with its padding; a longer row goes alone.
        padding: padding that a portion may hold before the next row starts a new one: about what a
            pass of its own costs, in tokens; None: any.
    """
    portion: list[int] = []
    wasted = 0
    for row in sorted(range(len(length_B)), key=lambda b: length_B[b], reverse=True):
        widest = length_B[portion[0]] if portion else length_B[row]
        wasted += widest - length_B[row]
        too_wide = padding is not None and wasted > padding
        if portion and (too_wide or widest * (len(portion) + 1) > tokens):
            yield portion
            portion, wasted = [], 0
        portion.append(row)
    if portion:
        yield portion


def whole_units(
    length_B: Sequence[int], units: Sequence[int], *, tokens: int
) -> Iterator[list[int]]:
    """Row indices in portions of whole units, rows of one number in ``units`` together, each at
    most ``tokens`` with padding (or one unit)."""
    members: dict[int, list[int]] = {}
    for row, unit in enumerate(units):
        members.setdefault(unit, []).append(row)
    widest = {unit: max(length_B[row] for row in rows) for unit, rows in members.items()}
    order = sorted(members, key=lambda unit: widest[unit], reverse=True)
    portion: list[int] = []
    width = 0
    for unit in order:
        if portion and max(width, widest[unit]) * (len(portion) + len(members[unit])) > tokens:
            yield portion
            portion, width = [], 0
        portion += members[unit]
        width = max(width, widest[unit])
    if portion:
        yield portion


def packed_microbatches(
    length_B: Sequence[int], *, tokens: int, units: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Row indices in portions of at most ``tokens`` without padding (or one row), in their order;
    rows of one number in ``units`` stay together."""
    members: dict[int, list[int]] = {}
    for row in range(len(length_B)):
        members.setdefault(row if units is None else units[row], []).append(row)
    portion: list[int] = []
    size = 0
    for rows in members.values():
        more = sum(length_B[row] for row in rows)
        if portion and size + more > tokens:
            yield portion
            portion, size = [], 0
        portion, size = portion + rows, size + more
    if portion:
        yield portion


def shared_microbatches(rows: Sequence[Row], *, tokens: int) -> Iterator[list[int]]:
    """Row indices in portions of at most ``tokens`` with padding (or one row), each distinct prompt
    counted once a portion; rows of one prompt stay side by side, long responses come first."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for b, (prompt, _) in enumerate(rows):
        by_prompt.setdefault(tuple(prompt), []).append(b)
    for members in by_prompt.values():
        members.sort(key=lambda b: len(rows[b][1]), reverse=True)
    portion: list[int] = []
    num_prompts = longest_prompt = longest_response = 0
    for prompt in sorted(by_prompt, key=lambda p: len(rows[by_prompt[p][0]][1]), reverse=True):
        new = 1  # this prompt is not in the portion yet
        for b in by_prompt[prompt]:
            length = len(rows[b][1])
            size = (num_prompts + new) * max(longest_prompt, len(prompt))
            size += (len(portion) + 1) * max(longest_response, length)
            if portion and size > tokens:
                yield portion
                portion, num_prompts, longest_prompt, longest_response, new = [], 0, 0, 0, 1
            portion.append(b)
            num_prompts, new = num_prompts + new, 0
            longest_prompt = max(longest_prompt, len(prompt))
            longest_response = max(longest_response, length)
    if portion:
        yield portion


def padded_size(rows: Sequence[Row]) -> int:
    """Tokens of a forward pass of these rows side by side, padding included."""
    return len(rows) * max(len(p) + len(r) for p, r in rows)


def shared_size(rows: Sequence[Row]) -> int:
    """The same with each distinct prompt once."""
    prompts = {tuple(prompt) for prompt, _ in rows}
    return len(prompts) * max(map(len, prompts)) + len(rows) * max(len(r) for _, r in rows)
