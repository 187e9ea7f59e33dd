"""A pool of problems to select from, and what a reward's file says about it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmalign.data import ROW, read_rows, to_problems
from llmalign.layouts import problem_of
from llmalign.recipe import list_recipes, load_recipe
from llmalign.rewards import Problem, RewardHost, Sample, build_reward
from llmalign.rewards.node import walk
from llmalign.saved import read_reward
from llmalign.schema import Data, Recipe, Source


@dataclass(frozen=True)
class Plan:
    """A reward tree, and the recipe it comes from, where there is one."""

    reward: Any
    judge: Mapping[str, Any] | None = None
    recipe: Recipe | None = None

    @property
    def data(self) -> Data:
        """How rows become prompts."""
        return self.recipe.data if self.recipe else Data(train=Source(path="rows"))

    def open_host(self, workers: int, timeout_s: float) -> RewardHost:
        """A host for the tree, with the judge of the file."""
        judge = None
        if self.judge is not None:
            from llmalign.rewards.judge import OpenAIJudge

            judge = OpenAIJudge(**self.judge)
        tree = build_reward(self.reward)
        return RewardHost(tree, workers=workers, timeout_s=timeout_s, judge=judge)


def read_plan(reward: Any) -> Plan:
    """A reward's name or tree, a YAML file with one, or a recipe (file or shipped name)."""
    if not isinstance(reward, str | Path):
        return Plan(reward)
    name = str(reward)
    if name in list_recipes():
        return _of_recipe(load_recipe(name))
    if not name.endswith((".yaml", ".yml")):
        return Plan(name)
    tree = read_reward(name)
    raw = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    if isinstance(raw, Mapping) and "algorithm" in raw:
        return _of_recipe(load_recipe(name))
    judge = raw.get("judge") if isinstance(raw, Mapping) and "reward" in raw else None
    return Plan(tree, judge)


def _of_recipe(recipe: Recipe) -> Plan:
    if recipe.reward is None:
        raise ValueError(f"recipe {recipe.name!r} has no reward; give one that has")
    return Plan(recipe.reward, recipe.judge, recipe)


@dataclass
class Member:
    """One problem of a pool: the places of its rows, and answers, each with its row's place."""

    problem: Problem
    places: list[int]
    answers: list[tuple[int, Sample]] = field(default_factory=list)


class Pool:
    """Rows, the problems they are about, and the rows left out with the reason.

    Args:
        rows: rows, or what ``data.train.path`` may be.
        data: how a row becomes a prompt.
    """

    def __init__(self, rows: str | Path | Sequence[Mapping[str, Any]], data: Data) -> None:
        self.data = data
        self.rows: list[dict[str, Any]]
        if isinstance(rows, str | Path):
            self.source = str(rows)
            self.rows = read_rows(self.source, subset=None, split="train", limit=None)
        else:
            self.source, self.rows = "rows", [dict(row) for row in rows]
        self.problems: list[Problem] = []
        self._left_out: dict[int, dict[str, Any]] = {}

    @property
    def left_out(self) -> list[dict[str, Any]]:
        """``row``, ``id`` and ``why`` of each row left out, in the order of the rows."""
        return [self._left_out[place] for place in sorted(self._left_out)]

    def leave_out(self, place: int, why: str) -> None:
        """Lists a row, with the first reason given."""
        number = self.rows[place].get(ROW, place + 1)
        entry = {"row": number, "id": self.problems[place].id, "why": why}
        self._left_out.setdefault(place, entry)

    def members(self, host: RewardHost, tokenizer: Any = None) -> list[Member]:
        """The problems that the reward can score, in the order of their first rows.

        Rows of one problem have the same ``problem_id``, or without one the same prompt and the
        same values in the columns that the reward reads.
        """
        self.problems = to_problems(
            self.rows,
            source=self.source,
            columns=self.data.columns,
            template=self.data.template,
            system=self.data.system,
            chat=self._is_chat(tokenizer),
        )
        members: dict[str, Member] = {}
        read = _columns_read(host)
        for place, problem in enumerate(self.problems):
            own: Any = problem.columns.get("problem_id")
            if own is None:
                own = [problem.prompt, [problem.columns.get(name) for name in read]]
            key = json.dumps(own, sort_keys=True, default=str)
            members.setdefault(key, Member(problem, [])).places.append(place)
        bad = {
            problem.id: why for problem, why in host.check([m.problem for m in members.values()])
        }
        return self.without(list(members.values()), bad)

    def without(self, members: Sequence[Member], bad: Mapping[str, str]) -> list[Member]:
        """The members but those whose problem's id is in ``bad``, which are listed."""
        for member in members:
            if why := bad.get(member.problem.id):
                for place in member.places:
                    self.leave_out(place, why)
        return [member for member in members if member.problem.id not in bad]

    def _is_chat(self, tokenizer: Any) -> bool:
        if tokenizer is not None:
            from llmalign.problems import uses_chat  # brings torch along

            return uses_chat(self.data, tokenizer)
        column = self.data.columns.get("problem", "")
        return any(isinstance(row.get(column) or problem_of(row), list) for row in self.rows)


def _columns_read(host: RewardHost) -> list[str]:
    """Names of columns that a tree may read: the gold's, and every text among its options."""
    options = [value for node in walk(host.reward) for value in vars(node).values()]
    return sorted({value for value in options if isinstance(value, str)} | {"answer"})
