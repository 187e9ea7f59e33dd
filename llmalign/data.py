"""Rows into problems, prompts into tokens, and the cursor that deals them out.

Nothing is cut or skipped in silence: what cannot be used is an error, or is left out and listed.
"""

import hashlib
import json
import random
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmalign.layouts import gold_of, problem_of
from llmalign.rewards import Problem
from llmalign.rewards.base import Message

ROW = "__row__"  # where a row keeps its number, for messages
SUFFIXES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
Prompt = str | tuple[Message, ...]


@dataclass(frozen=True)
class LeftOut:
    """A row that was left out, and why."""

    id: str
    why: str


# -- rows -----------------------------------------------------------------------------------------


def read_rows(
    path: str, *, subset: str | None, split: str, limit: int | None
) -> list[dict[str, Any]]:
    """Rows of a local file or folder, or of a hub data set; each knows its number (from 1).

    Args:
        path: JSONL, JSON, CSV or parquet, a folder of such files, or a hub name.
        subset: of a hub data set.
        split: of a hub data set; in a folder, the files whose name starts with it, where there
            are any.
        limit: only the first so many rows.
    Raises:
        FileNotFoundError: a local path that does not exist.
        ValueError: no rows, or a line that is not JSON (its number is named).
        RuntimeError: a hub name that cannot be loaded.
    """
    local = Path(path).expanduser()
    if local.exists():
        rows = _read_local(local, split)
    elif local.suffix in SUFFIXES or path.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"data path {path!r} does not exist, expected a file, a folder or a hub name"
        )
    else:
        rows = _read_hub(path, subset, split)
    numbered = [{**row, ROW: number} for number, row in enumerate(rows[:limit], 1)]
    if not numbered:
        raise ValueError(f"data path {path!r} has no rows, expected at least one")
    return numbered


def _read_local(path: Path, split: str) -> list[dict[str, Any]]:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
        files = [p for p in files if p.name.startswith(split)] or files
        if not files:
            raise ValueError(f"{path} holds no file of {', '.join(SUFFIXES)}")
        return [row for file in files for row in _read_local(file, split)]
    if path.suffix == ".jsonl":
        return list(_read_jsonl(path))
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} ends in {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if not path.stat().st_size:
        return []
    from datasets import load_dataset

    try:
        found = load_dataset(SUFFIXES[path.suffix], data_files=str(path), split="train")
    except Exception as error:  # noqa: BLE001 (the library raises many kinds; all mean unreadable)
        raise ValueError(f"{path} cannot be read: {_root(error)}") from error
    return [dict(row) for row in found]


def _read_jsonl(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path} line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path} line {number} is {line[:80]!r}, expected a JSON object")
            yield row


def _read_hub(name: str, subset: str | None, split: str) -> list[dict[str, Any]]:
    from datasets import load_dataset

    try:
        return [dict(row) for row in load_dataset(name, subset, split=split)]
    except Exception as error:  # noqa: BLE001 (network, name, split: all mean it is not to be had)
        raise RuntimeError(
            f"data set {name!r} (subset {subset!r}, split {split!r}) cannot be loaded: "
            f"{_root(error)}; give a local path, or check name and network"
        ) from error


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__).partition("\n")[0][:200]


# -- problems -------------------------------------------------------------------------------------


def to_problems(
    rows: Sequence[Mapping[str, Any]],
    *,
    source: str,
    columns: Mapping[str, str],
    template: str | None,
    system: str | None,
    chat: bool,
) -> list[Problem]:
    """Problems in row order. The gold, where there is one, is in ``columns["answer"]``.

    Args:
        rows: as ``read_rows`` or a generator gives them.
        source: the rows' name, for ids and messages.
        columns: our name -> the row's, for ``problem``, ``answer`` and whatever a reward reads;
            what is not named is found by layout (gsm8k, MATH, DAPO-Math, countdown, TRL).
        template: text with ``{problem}`` and other columns in braces; None: the problem itself.
        system: a system message (in plain form: text in front).
        chat: whether prompts are chats.
    Raises:
        ValueError: a column is missing; its row, the columns there and the way out are named.
    """
    problems, taken = [], set[str]()
    for number, raw in enumerate(rows, 1):
        row = mapped_row(raw, columns, source, raw.get(ROW, number))
        problem = row["problem"] if "problem" in columns else problem_of(row)
        if problem is None:
            raise missing_column("problem", row, source, raw.get(ROW, number))
        prompt = build_prompt(problem, row, template, system, chat, source)
        gold = row["answer"] if "answer" in columns else gold_of(row)
        found = {k: v for k, v in row.items() if k != ROW} | {"answer": gold}
        problems.append(Problem(unique_id(raw, source, number, taken), prompt, found))
    return problems


def mapped_row(
    row: Mapping[str, Any], columns: Mapping[str, str], source: str, number: int
) -> dict[str, Any]:
    """The row with our names added, as ``data.columns`` says."""
    mapped = dict(row)
    for ours, theirs in columns.items():
        if theirs not in row:
            raise missing_column(theirs, row, source, number)
        mapped[ours] = row[theirs]
    return mapped


def missing_column(column: str, row: Mapping[str, Any], source: str, number: int) -> ValueError:
    """The error for a column that is not there: its row, what there is, and the way out."""
    there = ", ".join(sorted(k for k in row if k != ROW))
    return ValueError(
        f"{source} row {number} has no column {column!r}; it has {there}; "
        "say which column is which in data.columns, for example data.columns.problem=question"
    )


def build_prompt(
    problem: Any,
    row: Mapping[str, Any],
    template: str | None,
    system: str | None,
    chat: bool,
    source: str,
) -> Prompt:
    """A chat or a plain string, with template and system message applied."""
    if isinstance(problem, list | tuple):
        if not chat:
            raise ValueError(
                f"{source} holds conversations, but prompts are plain text here; "
                "use a model with a chat template, or data.chat=always"
            )
        return _conversation(problem, row, template, system, source)
    text = str(problem)
    if template is not None:
        text = _filled(template, {**row, "problem": text}, source)
    if not chat:
        return f"{system}\n\n{text}" if system else text
    user = {"role": "user", "content": text}
    return ({"role": "system", "content": system}, user) if system else (user,)


def _conversation(
    messages: Sequence[Mapping[str, Any]],
    row: Mapping[str, Any],
    template: str | None,
    system: str | None,
    source: str,
) -> tuple[Message, ...]:
    """A row's own conversation; the template goes around its last message."""
    own = [{k: str(v) for k, v in m.items()} for m in messages]
    if system and own and own[0].get("role") == "system":
        raise ValueError(
            f"data.system is set, but {source} brings system messages of its own; leave one out"
        )
    if template is not None and own:
        asked = {**row, "problem": own[-1]["content"]}
        own[-1]["content"] = _filled(template, asked, source)
    return tuple([{"role": "system", "content": system}, *own] if system else own)


def _filled(template: str, row: Mapping[str, Any], source: str) -> str:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ValueError(
            f"data.template is {template!r:.80}: {error}; write {{{{ and }}}} for braces"
        ) from None
    for name in names:
        if name not in row:
            raise ValueError(
                f"data.template asks for {{{name}}}, which {source} does not have; known: "
                f"{', '.join(sorted(k for k in row if k != ROW))}; write {{{{ }}}} for braces"
            )
    return template.format(**{name: row[name] for name in names})


def unique_id(row: Mapping[str, Any], source: str, number: int, taken: set[str]) -> str:
    """The row's own id, or source and row number; made unique within ``taken``."""
    own = row.get("id")
    stem = Path(source).stem or source
    wanted = str(own) if own not in (None, "") else f"{stem}-{row.get(ROW, number)}"
    found, count = wanted, 1
    while found in taken:
        count += 1
        found = f"{wanted}~{count}"
    taken.add(found)
    return found


def check_golds(
    problems: Sequence[Problem],
    check: Callable[[Sequence[Problem]], list[tuple[Problem, str]]],
    *,
    policy: str,
    source: str,
) -> tuple[list[Problem], list[LeftOut]]:
    """Asks the reward which problems it could never score, before anything is trained.

    Raises:
        ValueError: there are such problems and ``policy`` is ``error``, or nothing is left.
    """
    bad = [LeftOut(problem.id, why) for problem, why in check(problems)]
    if bad and policy == "error":
        shown = "\n".join(f"  {b.id}: {b.why}" for b in bad[:10])
        more = f"\n  and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise ValueError(
            f"{source}: {len(bad)} of {len(problems)} golds cannot be used:\n{shown}{more}\n"
            "mend them, or leave them out with data.on_bad_gold=drop"
        )
    out = {b.id for b in bad}
    kept = [p for p in problems if p.id not in out]
    if not kept:
        raise ValueError(
            f"{source}: none of {len(problems)} golds can be used; first: {bad[0].why}"
        )
    return kept, bad


def split_holdout(
    problems: Sequence[Problem], count: int, seed: int
) -> tuple[list[Problem], list[Problem]]:
    """(train, held out): about ``count`` problems chosen by a hash of their prompt.

    Equal prompts always land on the same side, so nothing held out is trained on.

    Raises:
        ValueError: nothing would be left to train on.
    """

    def rank(problem: Problem) -> bytes:
        return hashlib.sha256(f"{seed}\x1f{problem.prompt!r}".encode()).digest()

    ordered = sorted({rank(p) for p in problems})
    if count >= len(ordered):
        raise ValueError(
            f"data.holdout is {count}, expected fewer than the {len(ordered)} distinct problems"
        )
    held = set(ordered[:count])
    train = [p for p in problems if rank(p) not in held]
    return train, [p for p in problems if rank(p) in held]


# -- tokens ---------------------------------------------------------------------------------------


def encode_prompt(prompt: Prompt, tokenizer: Any) -> list[int]:
    """Token ids of a prompt, once and for all: a chat through its template, text as it is.

    The tokenizer's own start token is kept; an end token it would add is not.
    """
    if not isinstance(prompt, str):
        ids = tokenizer.apply_chat_template(
            [dict(m) for m in prompt], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return list(ids)
    ids = list(tokenizer(prompt, verbose=False)["input_ids"])
    if ids and ids[-1] == tokenizer.eos_token_id and tokenizer.eos_token not in prompt[-20:]:
        ids.pop()
    return ids or [tokenizer.bos_token_id or tokenizer.eos_token_id]


def drop_long_prompts(
    problems: Sequence[Problem], tokenizer: Any, max_tokens: int, policy: str
) -> tuple[list[tuple[Problem, tuple[int, ...]]], list[LeftOut]]:
    """(problem, prompt ids) of what fits into ``max_tokens``, and what does not; never a cut.

    Raises:
        ValueError: a prompt is too long and ``policy`` is ``error``, or none fits.
    """
    measured = [(p, tuple(encode_prompt(p.prompt, tokenizer))) for p in problems]
    kept = [(p, ids) for p, ids in measured if len(ids) <= max_tokens]
    long = [
        LeftOut(p.id, f"prompt has {len(ids)} tokens, more than {max_tokens}")
        for p, ids in measured
        if len(ids) > max_tokens
    ]
    if long and (policy == "error" or not kept):
        longest = max(len(ids) for _, ids in measured)
        raise ValueError(
            f"{len(long)} of {len(measured)} prompts have more than {max_tokens} tokens (longest "
            f"{longest}, first {long[0].id!r}); raise data.max_prompt_tokens within the model's "
            "context, or leave them out with data.on_long_prompt=drop"
        )
    return kept, long


# -- the cursor -----------------------------------------------------------------------------------


class ProblemSampler:
    """Deals out indices epoch by epoch, each epoch in its own seeded order; its place is state."""

    def __init__(self, num_problems: int, *, seed: int, shuffle: bool) -> None:
        if num_problems < 1:
            raise ValueError(f"num_problems is {num_problems}, expected at least 1")
        self._num, self._seed, self._shuffle = num_problems, seed, shuffle
        self._epoch = self._position = 0
        self._late: list[int] = []  # what this epoch deals out last
        self._order = self._order_of(0)

    def next(self, count: int) -> list[tuple[int, int]]:
        """The next ``count`` (index, epoch); endless, and without repeats up to ``num_problems``.

        Where a call runs into the next epoch, that epoch deals out last what the call has had.
        """
        drawn: list[tuple[int, int]] = []
        for _ in range(count):
            if self._position == self._num:
                self._epoch, self._position = self._epoch + 1, 0
                self._late = [index for index, _ in drawn[-self._num + 1 :]]
                self._order = self._order_of(self._epoch)
            drawn.append((self._order[self._position], self._epoch))
            self._position += 1
        return drawn

    def _order_of(self, epoch: int) -> list[int]:
        order = list(range(self._num))
        if self._shuffle:
            random.Random(f"{self._seed}-{epoch}").shuffle(order)
        late = set(self._late)
        return [i for i in order if i not in late] + [i for i in order if i in late]

    def state_dict(self) -> dict[str, Any]:
        """The place, and what it is a place in."""
        return {
            "epoch": self._epoch,
            "position": self._position,
            "late": self._late,
            "num_problems": self._num,
            "seed": self._seed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state_dict`` returned.

        Raises:
            ValueError: the state is of other data or another seed.
        """
        for name, own in (("num_problems", self._num), ("seed", self._seed)):
            if state[name] != own:
                raise ValueError(
                    f"the saved cursor has {name} {state[name]}, expected {own}: "
                    "the data changed since; start a new run under another name"
                )
        self._epoch, self._position = state["epoch"], state["position"]
        self._late = list(state["late"])
        self._order = self._order_of(self._epoch)
