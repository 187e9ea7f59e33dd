"""From a recipe's ``data`` block to checked, tokenised problems; what was left out is listed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmalign.data import (
    check_golds,
    drop_long_prompts,
    read_rows,
    split_holdout,
    to_problems,
)
from llmalign.generate import generate_rows
from llmalign.policy import Policy
from llmalign.rewards import Problem, RewardHost
from llmalign.schema import Data, Recipe, Source

Prompted = tuple[Problem, tuple[int, ...]]


@dataclass
class ProblemSets:
    """Problems with their prompt tokens, and what was left out (for the run folder)."""

    train: list[Prompted]
    held_out: list[Prompted]
    left_out: list[dict[str, Any]] = field(default_factory=list)


def load_rows(source: Source, *, split: str) -> tuple[list[dict[str, Any]], str]:
    """Rows of a source and the name messages use for it."""
    if source.generate is not None:
        rows = generate_rows(
            source.generate, source.count, seed=source.seed, split=split, options=source.options
        )
        return rows[: source.limit], f"generate:{source.generate}"
    assert source.path is not None
    rows = read_rows(source.path, subset=source.subset, split=source.split, limit=source.limit)
    return rows, source.path


def uses_chat(data: Data, tokenizer: Any) -> bool:
    """Whether prompts are chats: as the recipe says, or where the tokenizer has a template."""
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if data.chat == "always" and not has_template:
        raise ValueError(
            "data.chat is 'always', but the tokenizer has no chat template; use data.chat=never"
        )
    return data.chat == "always" or (data.chat == "auto" and has_template)


def load_problems(
    recipe: Recipe, policy: Policy, host: RewardHost, *, held_out_only: bool = False
) -> ProblemSets:
    """Training and held-out problems: every gold parsed, every prompt measured.

    ``held_out_only`` leaves training rows unread where ``data.eval`` stands apart from them: an
    evaluation does not need them, and those of an offline loss need not be problems at all.

    Raises:
        ValueError: no rows, a missing column, a bad gold or an over-long prompt under ``error``.
    """
    data = recipe.data
    left_out: list[dict[str, Any]] = []
    train: list[Problem] = []
    if not (held_out_only and data.eval is not None):
        train = _checked(data, data.train, "train", policy, host, left_out)
    held_out: list[Problem] = []
    if data.eval is not None:
        held_out = _checked(data, data.eval, "eval", policy, host, left_out)
    elif data.holdout:
        train, held_out = split_holdout(train, data.holdout, recipe.seed)
    if recipe.evaluate.problems is not None:
        held_out = held_out[: recipe.evaluate.problems]
    return ProblemSets(
        _measured(train, data, policy, left_out),
        _measured(held_out, data, policy, left_out),
        left_out,
    )


def _checked(
    data: Data,
    source: Source,
    split: str,
    policy: Policy,
    host: RewardHost,
    left_out: list[dict[str, Any]],
) -> list[Problem]:
    rows, name = load_rows(source, split=split)
    problems = to_problems(
        rows,
        source=name,
        columns=data.columns,
        template=data.template,
        system=data.system,
        chat=uses_chat(data, policy.tokenizer),
    )
    kept, bad = check_golds(problems, host.check, policy=data.on_bad_gold, source=name)
    left_out += [{"id": b.id, "why": b.why} for b in bad]
    return kept


def _measured(
    problems: Sequence[Problem], data: Data, policy: Policy, left_out: list[dict[str, Any]]
) -> list[Prompted]:
    if not problems:
        return []
    limit = min(data.max_prompt_tokens, policy.context_length - 1)
    kept, dropped = drop_long_prompts(problems, policy.tokenizer, limit, data.on_long_prompt)
    left_out += [{"id": d.id, "why": d.why} for d in dropped]
    return kept
